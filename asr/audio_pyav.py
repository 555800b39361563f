"""Decoding by FFmpeg, through PyAV: mp3, mp4, m4a, webm, aac and all else that holds sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np

from asr.audio_source import Quiet, Span, check_complete, joined
from asr.errors import AudioError

# Self-contained containers only: no playlists, which could name other files or addresses.
_PYAV_FORMATS = (
    "mov,mp4,m4a,3gp,matroska,webm,mp3,aac,ogg,flac,wav,w64,nistsphere,aiff,au,caf,asf,amr,flv,"
    "avi,mpegts,mpeg,ac3"
)
# Containers that state the duration of each track; elsewhere it is that of the longest track, or
# estimated from the bit rate.
_TIMED_CONTAINERS = ("mov", "ogg")
_MISSING = 0.5  # seconds that may lack of the stated duration before the file counts as damaged


def open_pyav(stream: BinaryIO) -> Any:
    container = av.open(Quiet(stream), options={"format_whitelist": _PYAV_FORMATS})
    if not container.streams.audio:
        container.close()
        raise AudioError("expected an audio track, got none; give a recording with sound")
    return container


def decode_pyav(stream: BinaryIO, span: Span) -> tuple[np.ndarray, int]:
    with open_pyav(stream) as container:
        rate, first, stop, position = 0, 0, 0, 0
        blocks: list[np.ndarray] = []
        for block, block_rate in _pyav_blocks(container):
            if not rate:
                rate = block_rate
                first, stop = span.frames(rate)
            if block_rate != rate:
                raise AudioError(
                    f"expected one sample rate, got {rate} and then {block_rate} Hz;"
                    " convert the file to wav first"
                )
            blocks.append(block[max(first - position, 0) : max(stop - position, 0)])
            position += len(block)
            if position >= stop:
                break
        check_complete(
            position, min(stop, round(stated_duration(container) * rate)), round(_MISSING * rate)
        )
        return joined(blocks), rate


def stated_duration(container: Any) -> float:
    """Seconds of the audio track as the header has them; 0 where it does not."""
    track = container.streams.audio[0]
    if not track.duration or not container.format.name.startswith(_TIMED_CONTAINERS):
        return 0.0
    return float(track.duration * track.time_base)


def _pyav_blocks(container: Any) -> Iterator[tuple[np.ndarray, int]]:
    """Mono float32 blocks [S] of the first audio track, each with its rate in Hz."""
    for frame in container.decode(container.streams.audio[0]):
        values = frame.to_ndarray()
        if not frame.format.is_planar:  # [1, S * C] interleaved
            values = values.reshape(-1, len(frame.layout.channels)).T
        if values.dtype.kind == "u":
            values = values.astype(np.float32) - 128.0
            values /= 128.0
        elif values.dtype.kind == "i":
            values = values / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
        yield values.mean(axis=0, dtype=np.float32), frame.sample_rate
