"""Samples as 16-bit integers: how recordings are kept, on disk and in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INT16 = 32768.0
"""Full scale: integers over it lie in [-1, 1)."""


def to_int16(samples: NDArray[np.floating]) -> NDArray[np.int16]:
    """Rounded to the nearest; what exceeds the range is clipped. Shape: [S] -> [S].

    >>> to_int16(np.array([-1.0, 0.5, 1.0])).tolist()
    [-32768, 16384, 32767]
    """
    return np.clip(np.rint(samples * INT16), -INT16, INT16 - 1).astype(np.int16)
