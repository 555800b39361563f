"""A whole recording as mono float32 samples in memory, its duration, and samples as a wav file.

Letters: S samples.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from asr.audio.blocks import guarded, report, request_blocks, request_for
from asr.audio.pcm import to_int16
from asr.audio.recordings import seconds_of
from asr.audio.source import name_of, one_line
from asr.errors import AudioError, disk_trouble
from asr.io.files import atomic_path

SAMPLE_RATE = 16000
"""The sample rate of models in Hz, unless their configuration sets another."""

MOST_HOURS = 4
"""The most that is decoded at once: 0.9 GB of samples at 16 kHz."""

Say = Callable[[str], None]


def load_audio(
    source: str | Path | bytes | BinaryIO,
    rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: float | None = None,
    say: Say | None = None,
) -> np.ndarray:
    """Samples of a recording, or of its seconds `start` to `end`.

    Channels are mixed so that none cancels another (`audio/channels.py`), and the result is
    resampled (soxr, high quality) if the file has another rate. A segment is reached by seeking in
    formats that soundfile reads; in mp3, mp4 and the like, decoding runs from the beginning to
    `end`. An `end` past the last sample is clipped. Times are those of a player: gaps and a late
    beginning are silence. Recordings joined into one file are read one after another.

    Args:
        source: a file, its bytes, or a binary stream (read from its position).
        rate: Hz of the result.
        say: reports damage; the default is an `AudioWarning`.

    Shape: float32 [S], S about seconds * rate and at least 1. Full scale is 1; louder samples of a
    floating-point file are kept, up to a peak of 8.

    Raises:
        AudioError: missing or undecodable file, no samples, samples that are not finite, more than
            `MOST_HOURS`.

    >>> import io, soundfile
    >>> wav = io.BytesIO()
    >>> soundfile.write(wav, np.zeros((8000, 2)), 8000, format="WAV")
    >>> load_audio(wav.getvalue()).shape
    (16000,)
    """
    request = request_for(source, rate, start, end, longest=MOST_HOURS * 3600)
    blocks = list(request_blocks(source, request, say))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def audio_duration(path: str | Path, say: Say | None = None) -> float:
    """Seconds of a whole recording, from its header if that is exact, else by decoding.

    `say` reports damage; the default is an `AudioWarning`. Raises AudioError:
    missing or undecodable file, no samples.
    """
    problems: list[str] = []
    seconds = guarded(path, lambda stream: seconds_of(stream, problems.append))
    if not 0 < seconds < math.inf:
        raise AudioError(
            f"{name_of(path)}: expected audio, got no samples; record it again or leave it out"
        )
    report(name_of(path), problems, say)
    return seconds


def write_wav(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Write mono samples as a 16-bit PCM wav, atomically; samples outside [-1, 1] are clipped.

    Shape: samples [S], floating point.

    Raises:
        AudioError: samples that are not finite or not one channel; a path that cannot be written.
        OSError: a full disk.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype.kind != "f" or not np.isfinite(samples).all():
        raise AudioError(
            f"{path}: expected finite floating-point samples of one channel, got {samples.dtype} of"
            f" shape {list(samples.shape)}; convert them before writing"
        )
    sound = io.BytesIO()  # the library's own error does not report a full disk
    try:
        soundfile.write(sound, to_int16(samples), rate, subtype="PCM_16", format="WAV")
        with atomic_path(path) as temporary:
            temporary.write_bytes(sound.getvalue())
    except (OSError, soundfile.SoundFileError) as error:
        if isinstance(error, OSError) and disk_trouble(error):
            raise
        raise AudioError(
            f"{path}: expected a writable path, got {one_line(error)}; choose another path"
        ) from error
