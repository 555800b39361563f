"""Regions of speech from the probabilities of a detector (`audio/vad.py`), as they arrive.

N windows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class RegionConfig:
    """When speech begins and ends."""

    threshold: float = 0.5
    """Speech begins with a window of this probability,"""
    low: float = 0.35
    """and lasts while windows reach this one."""
    speech_s: float = 0.2
    """A region with less speech is dropped: the sum of the probabilities of its windows that reach
    `low`, in seconds."""
    silence_s: float = 0.1
    """A shorter pause does not end a region; nor does one of less than twice `pad_s`."""
    pad_s: float = 0.2
    """Added on both sides."""


@dataclass(frozen=True)
class Region:
    """A stretch of speech with its padding, in seconds since the beginning of the recording."""

    start: float
    end: float


@dataclass
class RegionFinder:
    """The regions of one recording. They are in order and do not overlap."""

    window_s: float
    """Seconds of a window of the detector."""
    config: RegionConfig = RegionConfig()
    _count: int = field(default=0, repr=False)  # windows so far
    _first: int | None = field(default=None, repr=False)  # of the region that is open
    _last: int = field(default=-1, repr=False)  # window with speech
    _speech: float = field(default=0.0, repr=False)  # sum of its probabilities

    def push(self, probabilities: np.ndarray) -> list[Region]:
        """The regions that have ended. Shape: [N]."""
        config = self.config
        most = max(config.silence_s, 2 * config.pad_s) / self.window_s - 1e-6
        found: list[Region] = []
        for at, probability in enumerate(probabilities.tolist(), start=self._count):
            self._count = at + 1
            if probability >= (config.threshold if self._first is None else config.low):
                if self._first is None:
                    self._first, self._speech = at, 0.0
                self._last, self._speech = at, self._speech + probability
            elif self._first is not None and at - self._last >= most:
                found += self.finish()
        return found

    def finish(self) -> list[Region]:
        """The region that is open at the end of the recording, if any."""
        found = [] if self.open is None else [self.open]
        self._first = None
        return found

    @property
    def seconds(self) -> float:
        """The end of the last window that was pushed."""
        return self._count * self.window_s

    @property
    def open(self) -> Region | None:
        """The region that has begun and not ended, if it is long enough to count."""
        if self._first is None:
            return None
        if self._speech * self.window_s < self.config.speech_s - 1e-6:
            return None
        start, end = self._first * self.window_s, (self._last + 1) * self.window_s
        pad = self.config.pad_s
        return Region(max(0.0, start - pad), min(end + pad, self.seconds))
