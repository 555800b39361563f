"""Time in live recognition: when a result appears, and how late."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

_STEP_S = 0.01  # resolution of the latencies
_LONGEST_S = 120.0


class Clock:
    """The seconds since the first sample, as if the samples came in real time.

    Work on a piece of audio begins when its last sample has been delivered and the work on the
    pieces before is done, and takes as long as it took here. For samples that do come in real time
    this is the time on the wall; for faster ones it is the time at which the result would have
    appeared. Waiting for samples does not count, since a source may pause.
    """

    def __init__(self, seconds: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._began = self._at = 0.0  # of the work at hand: its beginning on either clock
        self._free = 0.0  # when all work before is done
        self._working = False
        self.delivered = 0.0
        """Seconds of audio so far."""
        self.busy = 0.0
        """Seconds of work so far."""

    def deliver(self, seconds: float) -> None:
        """Record that `seconds` more of audio have arrived and that the work on them begins."""
        self.delivered += seconds
        self._at = max(self._free, self.delivered)
        self._began = self._seconds()
        self._working = True

    def rest(self) -> None:
        """Record the end of the work on the last piece."""
        self._free = self.now()
        self.busy += self._free - self._at
        self._working = False

    def delay(self, seconds: float) -> None:
        """Delay the next samples by `seconds` of other work, counted from the arrival of the last
        samples or the end of earlier work, whichever is later."""
        self._free = max(self._free, self.delivered) + seconds

    def now(self) -> float:
        """Seconds since the first sample."""
        return self._at + self._seconds() - self._began if self._working else self._free

    @property
    def lag(self) -> float:
        """Seconds by which the work on the last piece began late."""
        return self._at - self.delivered


class Latencies:
    """Latencies in seconds, counted in steps of 10 ms: the memory does not grow with time."""

    def __init__(self) -> None:
        self._counts = np.zeros(round(_LONGEST_S / _STEP_S) + 1, np.int64)
        self.largest = 0.0

    def add(self, seconds: float) -> None:
        step = min(round(seconds / _STEP_S), len(self._counts) - 1)
        self._counts[max(0, step)] += 1
        self.largest = max(self.largest, seconds)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def quantile(self, share: float) -> float:
        """The smallest latency that this share of all does not exceed; 0 without any.

        >>> latencies = Latencies()
        >>> for seconds in (0.5, 0.6, 0.7, 2.0):
        ...     latencies.add(seconds)
        >>> latencies.quantile(0.5), latencies.quantile(0.9)
        (0.6, 2.0)
        """
        reached = np.searchsorted(self._counts.cumsum(), max(1, np.ceil(share * len(self))))
        return round(float(reached) * _STEP_S, 2) if len(self) else 0.0
