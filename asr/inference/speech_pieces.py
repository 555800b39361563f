"""The speech of a long recording in pieces that a model can recognise, found as its samples arrive.

A segment is a stretch of speech between pauses. One that is longer than the utterances on which the
model was trained is cut into pieces at quiet moments. They overlap, so that the words at each cut
are whole in one of the pieces; `asr.inference.joining` joins their words.

S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from asr.audio.silence import quietest
from asr.audio.speech_regions import RegionConfig, RegionFinder
from asr.audio.vad import SpeechDetector

SEGMENTS = RegionConfig(silence_s=0.7, pad_s=0.4)
"""Pauses between segments, and what is kept of them on both sides."""

OVERLAP_S = 3.0  # at most, and a third of the longest piece
_AT_ONCE_S = 30.0  # of a block
_MARGIN_S = 1.0  # that is kept longer than needed


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording that is recognised at once."""

    start: float
    """Seconds from the beginning of the samples."""
    samples: np.ndarray
    """Shape: [S]."""
    overlap: float = 0.0
    """Seconds that it shares with the piece before; 0 where a segment begins."""
    continues: bool = False
    """Whether the next piece overlaps with it."""


def speech_pieces(
    blocks: Iterable[np.ndarray],
    rate: int,
    longest: float,
    detector: SpeechDetector,
    config: RegionConfig = SEGMENTS,
) -> Iterator[Piece | None]:
    """Pieces of at most `longest` seconds, in order, and None after each block that was read.

    About a minute and the longest block are held in memory. Shape: blocks [S] at `rate` Hz.
    """
    finder = RegionFinder(detector.window_s, config)
    cutter = _Cutter(rate, longest, min(OVERLAP_S, longest / 3))
    keep = config.pad_s + config.speech_s + max(config.silence_s, 2 * config.pad_s) + _MARGIN_S
    for block in _at_most(blocks, round(_AT_ONCE_S * rate)):
        cutter.add(block)
        for region in finder.push(detector.push(block)):
            yield from cutter.segment(region.start, region.end, last=True)
        if finder.open is not None:
            yield from cutter.segment(finder.open.start, finder.open.end, last=False)
        needed = finder.seconds - keep if finder.open is None else finder.open.start
        cutter.forget(needed)
        yield None
    for region in finder.push(detector.finish()) + finder.finish():
        yield from cutter.segment(region.start, region.end, last=True)


def _at_most(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    for block in blocks:
        yield from (block[at : at + size] for at in range(0, len(block), size))


@dataclass
class _Cutter:
    """The samples that are still needed, and how far the current segment has been cut."""

    rate: int
    longest: float
    overlap: float
    _samples: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    _first: int = 0  # sample of the recording
    _reached: float | None = None  # where the next piece of the segment begins

    def add(self, block: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, block])

    def forget(self, second: float) -> None:
        """Drop the samples before a second and before the next piece."""
        second = second if self._reached is None else self._reached
        count = max(0, round(second * self.rate) - self._first)
        self._samples = self._samples[count:].copy()
        self._first += count

    def segment(self, start: float, end: float, last: bool) -> Iterator[Piece]:
        """The pieces of a segment; if it is not the `last` call for it, those that can be cut
        now."""
        at = start if self._reached is None else self._reached
        overlap = 0.0 if self._reached is None else self.overlap
        # A segment that goes on is cut when both pieces at the cut are certain to be long enough.
        while end - at > self.longest + (0.0 if last else self.overlap):
            cut = self._cut(at, end)
            stop = cut + self.overlap / 2
            yield self._piece(at, stop, overlap, continues=True)
            at, overlap = cut - self.overlap / 2, self.overlap
            self._reached = at
        if last:
            yield self._piece(at, end, overlap, continues=False)
            self._reached = None

    def _cut(self, start: float, end: float) -> float:
        """The quietest moment at which the piece from `start` on can end."""
        half = self.overlap / 2
        latest = start + self.longest - half
        earliest = max(start + self.longest / 2, start + self.overlap)
        # The rest fits in one piece if that is possible.
        earliest = min(earliest, max(end - self.longest + half, start + self.overlap))
        begin = self._first / self.rate
        gap = quietest(self._samples, earliest - begin, latest - begin, self.rate)
        return min(max(gap.second + begin, earliest), latest)

    def _piece(self, start: float, end: float, overlap: float, continues: bool) -> Piece:
        first, stop = (round(second * self.rate) - self._first for second in (start, end))
        first = max(first, 0)
        samples = self._samples[first:stop].copy()
        return Piece((self._first + first) / self.rate, samples, overlap, continues)
