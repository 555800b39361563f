"""Samples as 16-bit integers, the storage format on disk and in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INT16 = 32768.0
"""Full scale: integers divided by it lie in [-1, 1)."""

QUIET = 1 / 32
"""Peak below which 16 bits at full scale are too coarse for a recording."""


@dataclass(frozen=True)
class Pcm:
    """A recording as 16-bit integers with its own scale, so that a quiet one keeps its precision
    and one above full scale is not clipped.

    Shape: steps [S]; one step is `unit`, a power of two, 1 / 32768 for most recordings.
    """

    steps: NDArray[np.int16]
    unit: float

    @property
    def samples(self) -> NDArray[np.float32]:
        """Full scale 1. Shape: [S]."""
        return self.steps * np.float32(self.unit)


def to_pcm(samples: NDArray[np.floating]) -> Pcm:
    """16-bit integers at full scale if the peak is from `QUIET` to 1, else scaled by a power of
    two. Shape: [S].

    >>> to_pcm(np.array([0.25, 3.0]))
    Pcm(steps=array([ 2048, 24576], dtype=int16), unit=0.0001220703125)
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if peak == 0 or QUIET <= peak <= 1:
        return Pcm(to_int16(samples), 1 / INT16)
    scale = 2.0 ** max(math.frexp(peak)[1], -100)  # half of it <= peak <= it
    return Pcm(to_int16(samples / scale), scale / INT16)


def to_int16(samples: NDArray[np.floating]) -> NDArray[np.int16]:
    """Rounded to the nearest integer; values outside the range are clipped. Shape: [S] -> [S].

    >>> to_int16(np.array([-1.0, 0.5, 1.0])).tolist()
    [-32768, 16384, 32767]
    """
    return np.clip(np.rint(samples * INT16), -INT16, INT16 - 1).astype(np.int16)
