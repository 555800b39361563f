from __future__ import annotations

import numpy as np
import pytest

from asr.evaluation.snr import HIGHEST, estimate_snr

RATE = 16000


def speech(snr: float | None, seconds: float = 4.0, seed: int = 0) -> np.ndarray:
    """Bursts of a buzz with pauses between them; noise so far below them in power."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    buzz = np.sign(np.sin(2 * np.pi * 120 * time)) * (np.sin(2 * np.pi * 1.1 * time) > -0.3)
    if snr is not None:
        buzz = buzz + random.normal(0, np.sqrt(np.mean(buzz**2) / 10 ** (snr / 10)), len(time))
    return np.rint(3000 * buzz).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize("snr", [0.0, 10.0, 20.0, 30.0])
def test_estimate_is_near_the_truth(snr: float) -> None:
    assert estimate_snr(speech(snr), RATE) == pytest.approx(snr, abs=2.0)


def test_loudness_does_not_matter() -> None:
    loud = estimate_snr(speech(20.0), RATE)
    soft = estimate_snr((speech(20.0) // 4).astype(np.int16), RATE)
    assert loud == pytest.approx(soft, abs=0.5)


def test_an_offset_is_no_noise() -> None:
    assert estimate_snr(speech(20.0) + np.int16(5000), RATE) == pytest.approx(20.0, abs=2.0)


def test_what_cannot_be_told() -> None:
    assert estimate_snr(np.zeros(RATE, np.int16), RATE) is None
    assert estimate_snr(speech(10.0)[:1000], RATE) is None
    assert estimate_snr(np.zeros(0, np.int16), RATE) is None
    # Digital silence in the pauses: as clean as we say.
    assert estimate_snr(speech(None), RATE) == HIGHEST
