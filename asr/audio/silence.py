"""Where a recording is quiet: between words, where it can be cut, and before and after speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW_S = 0.01  # resolution of the search for the quietest moment between two words


@dataclass(frozen=True)
class Gap:
    """The quietest moment between a word and the next: its second, and the energy there."""

    second: float
    energy: float


def quietest(samples: np.ndarray, before: float, after: float, rate: int) -> Gap:
    """The time of lowest energy in the signal [S] between two times in seconds, or near an interval
    that is short.

    The energy is the variance of the samples, averaged over three windows.
    """
    window = int(WINDOW_S * rate)
    low = max(0, min(round(before * rate), round(after * rate) - 4 * window))
    high = min(len(samples), max(round(after * rate), low + 8 * window))
    count = (high - low) // window
    if count < 1:
        return Gap((before + after) / 2, 0.0)
    blocks = samples[low : low + count * window].reshape(count, window).astype(np.float64)
    energy = np.convolve(blocks.var(axis=1), np.ones(3) / 3, mode="same")
    energy[[0, -1]] *= 1.5  # their mean includes a zero from outside
    best = int(energy.argmin())
    return Gap(float(low + (best + 0.5) * window) / rate, float(energy[best]))


def cuts(gaps: Sequence[Gap], duration: float, seconds: float) -> list[int]:
    """The gaps at which to cut: segments are half to one and a half times `seconds` long if words
    allow it, and each ends at the quietest possible gap.

    >>> cuts([Gap(2.0, 9.0), Gap(4.0, 9.0), Gap(5.0, 1.0), Gap(7.0, 9.0)], 10.0, 4.0)
    [2]
    """
    chosen: list[int] = []
    start = 0.0
    while duration - start > 1.5 * seconds:
        late = [i for i, gap in enumerate(gaps) if gap.second - start >= seconds / 2]
        latest = min(start + 1.5 * seconds, duration - seconds / 2)
        fitting = [i for i in late if gaps[i].second <= latest] or late[:1]
        if not fitting:
            break
        chosen.append(min(fitting, key=lambda i: gaps[i].energy))
        start = gaps[chosen[-1]].second
    return chosen


def trimmed(samples: np.ndarray, decibels: float, rate: int) -> np.ndarray:
    """The recording without its quiet ends: all windows that are `decibels` or more below the
    loudest. Shape: [S] -> [S'].

    >>> trimmed(np.array([0.0] * 100 + [1.0, -1.0] * 50 + [0.0] * 100), 20.0, 1000).shape
    (100,)
    """
    window = int(WINDOW_S * rate)
    count = len(samples) // window
    if not count:
        return samples
    blocks = samples[: count * window].reshape(count, window).astype(np.float64)
    energy = np.square(blocks).mean(axis=1)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-decibels / 10))
    if not len(loud):  # digital silence
        return samples
    return samples[loud[0] * window : (loud[-1] + 1) * window]
