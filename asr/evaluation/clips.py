"""The sound of a report: embedded in the page up to a size limit, otherwise linked."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile

from asr.dataset.shards import load_recording
from asr.errors import AudioError
from asr.evaluation.utterance import Details
from asr.io.paths import as_stored

RATE = 16000
LEAST_BYTES_PER_SECOND = 4000  # of FLAC in base64; speech takes four times as many
STEADY = 0.5  # fraction of the mean bytes per second so far that every recording is assumed to need
MOST_MISSES = 20  # recordings that were read but did not fit
MEGABYTE = 1 << 20


def embed(order: Iterable[str], details: Mapping[str, Details], room: float) -> dict[str, str]:
    """Recordings as data URIs by utterance id, as many in this order as fit into `room` megabytes.

    FLAC at 16 kHz: lossless for the input of a recogniser, and playable in every browser.
    Unreadable recordings are left out; they are reported elsewhere.
    """
    clips: dict[str, str] = {}
    left, misses = room * MEGABYTE, 0
    made = seconds = 0.0  # bytes and seconds of all that was read
    for name in order:
        known = details.get(name)
        if known is None or known.audio is None:
            continue
        least = max(LEAST_BYTES_PER_SECOND, STEADY * made / seconds if seconds else 0)
        if known.seconds is not None and known.seconds * least > left:
            continue  # not read: a shorter one may still fit
        if misses == MOST_MISSES:
            break  # most of the remaining reads would be in vain
        try:
            samples = load_recording(known.audio, RATE, known.start, known.end, known.packed)
        except AudioError:
            continue
        sound = io.BytesIO()
        samples /= max(1.0, float(np.abs(samples).max()))  # for listening: audible, not clipped
        soundfile.write(sound, samples, RATE, format="FLAC", subtype="PCM_16")
        clip = "data:audio/flac;base64," + base64.b64encode(sound.getvalue()).decode("ascii")
        made, seconds = made + len(clip), seconds + len(samples) / RATE
        if len(clip) <= left:
            left -= len(clip)
            clips[name] = clip
        else:
            misses += 1
    return clips


def link(known: Details, folder: Path) -> str:
    """The address of the recording for a page in `folder`, with the segment as a media fragment; ""
    if a browser cannot play it."""
    if known.audio is None or known.packed is not None:
        return ""
    path = quote(os.fsencode(os.path.relpath(as_stored(known.audio), folder.resolve())))
    if known.end is None and not known.start:
        return path
    return f"{path}#t={known.start:g}" + ("" if known.end is None else f",{known.end:g}")
