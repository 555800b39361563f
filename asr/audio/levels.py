"""Detection of nearly silent and clipped recordings. Letters: S samples."""

from __future__ import annotations

import math

import numpy as np

SILENT_PEAK = 1e-4  # full scale 1; a 16-bit recording with three steps of noise is below it
_QUIET_PEAK = 0.01  # -40 dB; the quantisation noise of 16 bits is then 50 dB below the peak
# A peak is clipped if this many consecutive samples are within 1 % of the loudest. None of 209 AN4
# recordings has such a place; clipped at a third of their peak, nine in ten have 31 or more.
_FLAT_SAMPLES = 4
_FLAT_SHARE = 0.99
_MOST_FLAT = 4


def is_silent(samples: np.ndarray) -> bool:
    """Whether the peak is below `SILENT_PEAK`. Shape: [S], full scale 1."""
    return float(np.abs(samples).max()) < SILENT_PEAK


def level_problems(samples: np.ndarray) -> list[tuple[str, str]]:
    """Name and figure of each problem with the level of a recording. Shape: [S], full scale 1."""
    peak = float(np.abs(samples).max())
    if peak < SILENT_PEAK:
        return [("silent audio", f"peak {peak:.1e}")]
    decibels = f"peak {20 * math.log10(peak):.0f} dB of full scale"
    if peak < _QUIET_PEAK:
        return [("quiet audio", decibels)]
    count = _flat_peaks(samples, peak)
    if count > _MOST_FLAT:
        return [("clipped audio", f"{count} peaks cut off at {decibels.removeprefix('peak ')}")]
    return []


def _flat_peaks(samples: np.ndarray, peak: float) -> int:
    top = np.abs(samples) >= _FLAT_SHARE * peak
    edges = np.diff(top.astype(np.int8), prepend=0, append=0)
    lengths = np.flatnonzero(edges < 0) - np.flatnonzero(edges > 0)
    return int((lengths >= _FLAT_SAMPLES).sum())
