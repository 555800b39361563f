"""Blocks of one recording to samples at the wanted rate, checked, piece by piece.

Letters: S samples.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np
import soxr

from asr.audio.samples import RATE_RANGE, RATES
from asr.audio.source import Block, Request
from asr.errors import AudioError

LARGEST_PEAK = 8.0  # decoders overshoot 1 a little; above 18 dB the file has another scale
_PIECE = 1 << 18  # samples that are resampled at once, before or after
_NOTHING = np.zeros(0, np.float32)


class TooLongError(AudioError):
    """More sound than the request allows."""


def check_length(seconds: float, request: Request) -> None:
    """Raises TooLongError for more than `request.longest` seconds."""
    if seconds > request.longest:
        raise TooLongError(
            f"expected at most {request.longest / 3600:g} hours of sound at once, got more;"
            " cut the recording into shorter files, or select segments of it by start and end"
        )


def check_rate(rate: int) -> None:
    """Raises AudioError for the rate of a damaged header."""
    if rate not in RATES:
        raise AudioError(
            f"expected a sample rate of {RATE_RANGE}, got {rate};"
            " the header is damaged: convert it again from the original"
        )


def resampled(blocks: Generator[Block, None, None], request: Request) -> Iterator[np.ndarray]:
    """The samples of consecutive blocks that lie in the wanted span, at the wanted rate. The sizes
    of the blocks do not change the samples.

    Shape: each float32 [S].

    Raises:
        AudioError: samples above `LARGEST_PEAK` or not finite, after all samples before them.
        TooLongError: a block after which the sound is longer than wanted, before it is read.
    """
    span, file_rate, wanted = request.span, 0, 0.0
    resampler: soxr.ResampleStream | None = None
    with closing(blocks):
        for block in blocks:
            if span.end is not None and block.first >= span.frames(block.rate)[1]:
                break
            if block.rate != file_rate:
                yield from _rest(resampler)
                file_rate = block.rate
                resampler = _resampler(file_rate, request.rate)
            samples = block.within(span)
            wanted += len(samples) / file_rate
            check_length(wanted, request)
            size = max(1, min(_PIECE, _PIECE * file_rate // request.rate))
            for at in range(0, len(samples), size):
                piece = np.ascontiguousarray(samples[at : at + size], dtype=np.float32)
                fault = _fault(piece)
                if fault:
                    piece = piece[: int(np.argmin(np.abs(piece) <= LARGEST_PEAK))]
                yield piece if resampler is None else resampler.resample_chunk(piece)
                if fault:
                    yield from _rest(resampler)
                    raise AudioError(fault)
    yield from _rest(resampler)


def _resampler(file_rate: int, rate: int) -> soxr.ResampleStream | None:
    check_rate(file_rate)
    if file_rate == rate:
        return None
    return soxr.ResampleStream(file_rate, rate, 1, dtype="float32", quality="HQ")


def _rest(resampler: soxr.ResampleStream | None) -> Iterator[np.ndarray]:
    if resampler is not None:
        yield resampler.resample_chunk(_NOTHING, last=True)


def _fault(samples: np.ndarray) -> str:
    """What is wrong with samples, in one line; "" for sound."""
    peak = max(float(samples.max()), -float(samples.min()))  # NaN stays NaN
    if peak <= LARGEST_PEAK:
        return ""
    return (
        "expected samples within [-1, 1], got"
        f" {f'a peak of {peak:.6g}' if math.isfinite(peak) else 'NaN or infinite ones'};"
        " export it again as 16-bit PCM"
    )
