"""Mono samples of a stream, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from asr.audio.resample import LARGEST_PEAK
from asr.audio.samples import as_array
from asr.errors import StreamError


def as_mono(samples: Any) -> np.ndarray:
    """Float32 samples with full scale 1. Shape: [S] -> [S]."""
    try:
        array = as_array(samples)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.name in ("int16", "int32"):
        array = array / np.float32(-np.iinfo(array.dtype).min)
    if array.ndim != 1 or array.dtype.kind != "f":
        raise StreamError(
            "expected mono samples [S], floating point, 16-bit or 32-bit integers, got "
            f"{array.dtype} of shape {list(array.shape)}: convert them"
        )
    peak = float(np.abs(array).max(initial=0.0))
    if not peak <= LARGEST_PEAK:
        got = f"a peak of {peak:.6g}" if np.isfinite(peak) else "NaN or infinite ones"
        raise StreamError(f"expected samples within [-1, 1], got {got}: scale them")
    return np.require(array, np.float32, ["C", "W"])  # torch warns of read-only arrays
