"""The signal-to-noise ratio of speech, estimated from the recording.

S samples, F frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRAME_SECONDS = 0.02
NOISE_SHARE = 0.1  # of the frames, the quietest: pauses
HIGHEST = 60.0  # dB: digital silence between words is not the noise of the microphone


def estimate_snr(samples: NDArray[np.number], sample_rate: int) -> float | None:
    """The signal-to-noise ratio in dB, at most `HIGHEST`; None for too few frames or silence.
    Shape: [S].

    The quietest tenth of the 20 ms frames counts as noise, the rest of the power as speech. The
    estimate ranks recordings; for speech without pauses it is too low.
    """
    length = int(FRAME_SECONDS * sample_rate)
    count = len(samples) // length
    if count < 1 / NOISE_SHARE:
        return None
    frames = samples[: count * length].reshape(count, length).astype(np.float64)
    power = np.sort(frames.var(axis=1))  # without the offset that some sound cards add
    noise = power[: round(count * NOISE_SHARE)].mean()
    signal = power.mean() - noise
    if signal <= 0:
        return None
    if noise <= signal * 10 ** (-HIGHEST / 10):
        return HIGHEST
    return float(10 * np.log10(signal / noise))
