"""The quietest places of a recording, where it can be cut between words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW_S = 0.01  # resolution at which the quietest place between two words is sought


@dataclass(frozen=True)
class Gap:
    """The quietest place between a word and the next one: its second, and the energy there."""

    second: float
    energy: float


def quietest(samples: np.ndarray, before: float, after: float, rate: int) -> Gap:
    """Where the signal [S] is weakest between two seconds, or close by if there is little between.

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
    energy[[0, -1]] *= 1.5  # what lies outside is not counted there
    best = int(energy.argmin())
    return Gap(float(low + (best + 0.5) * window) / rate, float(energy[best]))
