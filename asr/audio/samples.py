"""Samples in memory as a recording, checked and resampled like a file."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

import numpy as np
import soundfile

from asr.errors import AudioError

_SUBTYPES = {"float32": "FLOAT", "float64": "FLOAT", "int16": "PCM_16", "int32": "PCM_32"}


class _Samples(io.BytesIO):
    name = "<samples>"  # in messages


def as_recording(samples: Any, sample_rate: int | None) -> BinaryIO:
    """An array as a wav in memory, for `load_audio`.

    Shape: samples [S] or [S, C], floating point with full scale 1, or 16-bit or 32-bit integers.

    Raises AudioError for other arrays and without a rate.
    """
    if sample_rate is None:
        raise AudioError("<samples>: expected sample_rate= with samples, got none; give it in Hz")
    array = np.asarray(samples)
    more_channels = array.ndim == 2 and array.shape[1] > max(1, array.shape[0])
    if array.ndim not in (1, 2) or array.dtype.name not in _SUBTYPES or more_channels:
        raise AudioError(
            f"<samples>: expected float or 16-bit samples of shape [S] or [S, channels], got"
            f" {array.dtype} of shape {list(array.shape)}; convert them"
        )
    recording = _Samples()
    try:
        soundfile.write(
            recording, array, int(sample_rate), format="WAV", subtype=_SUBTYPES[array.dtype.name]
        )
    except (soundfile.SoundFileError, TypeError, ValueError, OverflowError):
        raise AudioError(
            f"<samples>: expected a sample_rate of 1000 to 1000000 Hz, got {sample_rate!r}"
        ) from None
    recording.seek(0)
    return recording
