"""Log-mel energies: ours in batches, librosa file by file. For context; no goal."""

from __future__ import annotations

import librosa
import numpy as np
import torch

from asr.features.filterbank import POWER_FLOOR, LogMel
from asr.padded import Padded
from tests.bench.timing import interleave, print_ratios, threads

RATE, SECONDS, B, BANDS = 16000, 10, 16, 80
ROUNDS = 5
SAME = 1e-3  # nats


def run() -> None:
    """Print the table."""
    waves = np.random.default_rng(0).normal(0, 0.1, (B, RATE * SECONDS)).astype(np.float32)
    batch = Padded(torch.from_numpy(waves), torch.full((B,), waves.shape[1]))
    extractor = LogMel(RATE, BANDS, window_ms=25.0, shift_ms=10.0)

    def ours() -> np.ndarray:
        with torch.inference_mode():
            values: np.ndarray = extractor(batch).values.numpy()
        return values

    def theirs() -> np.ndarray:
        return np.stack([librosa_log_mel(wave, extractor.fft_size) for wave in waves])

    with threads(1):
        difference = float(np.abs(ours() - theirs()).max())
        assert difference <= SAME, f"features differ by {difference:.2g}"
        seconds = interleave({"ours": ours, "librosa": theirs}, ROUNDS)
    print_ratios(
        f"features: {BANDS} log-mel bands of {B} x {SECONDS} s, one thread, median of {ROUNDS}",
        "s of audio a second",
        seconds,
        lambda value: f"{B * SECONDS / value:.0f}",
    )
    print(f"  they differ by {difference:.1e}")


def librosa_log_mel(wave: np.ndarray, fft_size: int) -> np.ndarray:
    """Shape: [S] -> [T, BANDS]."""
    mel = librosa.feature.melspectrogram(
        y=wave,
        sr=RATE,
        n_fft=fft_size,
        win_length=RATE // 40,
        hop_length=RATE // 100,
        n_mels=BANDS,
        pad_mode="constant",
    )
    logarithm: np.ndarray = np.log(np.maximum(mel, POWER_FLOOR)).T
    return logarithm
