"""Changes of the waveform: speed, tempo and gain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor

from asr.padded import Padded, pad
from asr.shares import rand


def perturb_speed(waves: Padded, speeds: Sequence[float]) -> Padded:
    """Play each utterance at its own speed, pitch included (Ko et al. 2015).

    Speeds are rounded to 1/20, which keeps the resampling filters short.

    Shape: [B, S] and B speeds -> [B, S'], lengths about S / speed.
    """
    if all(round(20 * speed) == 20 for speed in speeds):
        return waves
    rows: list[Tensor] = [torch.empty(0)] * len(speeds)
    clean = waves.zeroed()
    lengths = waves.lengths.tolist()  # at once: each call waits for the GPU
    for ticks in sorted({round(20 * speed) for speed in speeds}):
        chosen = [i for i, speed in enumerate(speeds) if round(20 * speed) == ticks]
        batch = clean.values[chosen]
        if ticks != 20:
            batch = torchaudio.functional.resample(batch, ticks, 20, lowpass_filter_width=12)
        for i, row in zip(chosen, batch, strict=True):
            length = -(-lengths[i] * 20 // ticks)
            rows[i] = row[:length]
    padded = pad(rows)
    return Padded(padded.values, padded.lengths.to(waves.lengths.device))


def perturb_gain(waves: Padded, decibels: float) -> Padded:
    """Change the level of each utterance by at most the given dB. Shape: [B, S] -> [B, S]."""
    if not decibels:
        return waves
    change = decibels * (2 * rand(len(waves.lengths), 1, device=waves.values.device) - 1)
    return Padded(waves.values * 10 ** (change / 20), waves.lengths)


def change_tempo(waves: Padded, tempos: Sequence[float], sample_rate: int) -> Padded:
    """Play each utterance faster or slower at its own pitch, by a phase vocoder (Flanagan and
    Golden 1966). Shape: [B, S] and B tempos -> [B, S'], lengths about S / tempo."""
    if all(tempo == 1 for tempo in tempos):
        return waves
    size = 1 << (round(0.032 * sample_rate) - 1).bit_length()
    hop = size // 4
    window = torch.hann_window(size, device=waves.values.device)
    advance = torch.linspace(0, math.pi * hop, size // 2 + 1, device=waves.values.device)[:, None]
    rows = []
    for row, tempo in zip(waves.unpad(), tempos, strict=True):
        length = round(len(row) / tempo)
        if tempo == 1 or len(row) <= size or length <= size:
            rows.append(row)
            continue
        spectrum = torch.stft(row, size, hop, window=window, return_complex=True)
        stretched = torchaudio.functional.phase_vocoder(spectrum, tempo, advance)
        rows.append(torch.istft(stretched, size, hop, window=window, length=length))
    padded = pad(rows)
    return Padded(padded.values, padded.lengths.to(waves.lengths.device))
