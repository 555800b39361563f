"""Samples in memory as a recording, checked and resampled like a file."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np
import soundfile

from asr.errors import AudioError

RATES = range(1_000, 1_000_001)  # Hz
RATE_RANGE = f"{RATES[0]} to {RATES[-1]} Hz"
MOST_CHANNELS = 1024  # of libsndfile
_SUBTYPES = {"float32": "FLOAT", "float64": "FLOAT", "int16": "PCM_16", "int32": "PCM_32"}


class _Samples(io.BytesIO):
    name = "<samples>"  # in messages


def as_array(samples: Any) -> np.ndarray:
    """An array or tensor as a numpy array in the byte order of this machine; half precision becomes
    float32. Raises ValueError for rows of different lengths."""
    if hasattr(samples, "detach"):  # a tensor, perhaps with a gradient or on a GPU
        samples = samples.detach().cpu()
        if samples.dtype.is_floating_point and samples.dtype.itemsize < 4:
            samples = samples.float()
    array = np.asarray(samples)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_recording(samples: Any, sample_rate: int | None) -> BinaryIO:
    """An array as a wav in memory, for `load_audio`.

    Shape: samples [S] or [S, C], floating point with full scale 1, or 16-bit or 32-bit integers.

    Raises AudioError for other arrays and without a rate.
    """
    array = as_array(samples)
    subtype = _SUBTYPES.get(array.dtype.name)
    channels = array.shape[1] if array.ndim == 2 else 1
    most = min(MOST_CHANNELS, max(1, len(array)))  # else the axes are probably exchanged
    if array.ndim not in (1, 2) or subtype is None or not 0 < channels <= most:
        raise AudioError(
            "<samples>: expected floating-point, 16-bit or 32-bit samples of shape [S] or"
            f" [S, channels], got {array.dtype} of shape {list(array.shape)}; convert them"
        )
    if sample_rate is None:
        raise AudioError("<samples>: expected sample_rate= with samples, got none; give it in Hz")
    if sample_rate not in RATES:
        raise AudioError(f"<samples>: expected a sample_rate of {RATE_RANGE}, got {sample_rate!r}")
    recording = _Samples()
    soundfile.write(recording, array, int(sample_rate), format="WAV", subtype=subtype)
    recording.seek(0)
    return recording
