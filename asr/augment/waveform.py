"""Changes of the waveform: speed, tempo and gain.

The lengths of a batch are known on the host. Functions that need them take them as `samples`;
without, they read them from the device, which waits for its queued work.

B utterances, S samples, R rows that are changed, K frames, F frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torchaudio
from torch import Tensor
from torch.nn import functional

from asr.augment.config import TICKS
from asr.padded import Padded, pad, sent
from asr.shares import rand


def length_at_speed(samples: int, speed: float) -> int:
    """Samples of an utterance after `perturb_speed`."""
    return -(-samples * TICKS // round(TICKS * speed))


def perturb_speed(
    waves: Padded, speeds: Sequence[float], samples: Sequence[int] | None = None
) -> Padded:
    """Play each utterance at its own speed, pitch included (Ko et al. 2015).

    Speeds are rounded to 1/20, which keeps the resampling filters short. The utterances of one
    speed are resampled by one convolution: there are few speeds.

    Shape: [B, S] and B speeds -> [B, S'], lengths about S / speed.
    """
    ticks = [round(TICKS * speed) for speed in speeds]
    if all(tick == TICKS for tick in ticks):
        return waves
    device = waves.values.device
    before = waves.lengths.tolist() if samples is None else samples
    lengths = [length_at_speed(n, speed) for n, speed in zip(before, speeds, strict=True)]
    clean = waves.zeroed().values
    values = clean.new_zeros(len(lengths), max(lengths))
    for tick in sorted(set(ticks)):
        rows = sent([i for i, own in enumerate(ticks) if own == tick], device)
        played = clean.index_select(0, rows)
        if tick != TICKS:
            played = _resampled(played, tick)
        width = min(played.shape[1], values.shape[1])
        values[:, :width].index_copy_(0, rows, played[:, :width])
    after = Padded(values, sent(lengths, device))
    shortest = min(lengths)  # filters ring after the end
    values[:, shortest:].masked_fill_(~after.mask()[:, shortest:], 0.0)
    return after


def _resampled(waves: Tensor, tick: int) -> Tensor:
    """At `tick` / TICKS of the speed, with less than a period of the filter after the end. Shape:
    [R, S] -> [R, S']."""
    kernel, width, step = _filters(tick, waves.device)
    padded = functional.pad(waves, (width, width + step))
    phases = functional.conv1d(padded[:, None], kernel, stride=step)
    return phases.transpose(1, 2).flatten(1)


@lru_cache(maxsize=64)
def _filters(tick: int, device: torch.device) -> tuple[Tensor, int, int]:
    """torchaudio's filters, one a phase, their reach, and the input samples of a period."""
    made = torchaudio.transforms.Resample(tick, TICKS, lowpass_filter_width=12, dtype=torch.float32)
    step = tick // math.gcd(tick, TICKS)
    return made.kernel.to(device, non_blocking=True), made.width, step


def perturb_gain(waves: Padded, decibels: float) -> Padded:
    """Change the level of each utterance by at most the given dB. Shape: [B, S] -> [B, S]."""
    if not decibels:
        return waves
    change = decibels * (2 * rand(len(waves.lengths), 1, device=waves.values.device) - 1)
    return Padded(waves.values * 10 ** (change / 20), waves.lengths)


def change_tempo(
    waves: Padded, tempos: Sequence[float], sample_rate: int, samples: Sequence[int] | None = None
) -> Padded:
    """Play each utterance faster or slower at its own pitch, by a phase vocoder (Flanagan and
    Golden 1966). Utterances that have a window or less, before or after it, stay unchanged.

    Shape: [B, S] and B tempos -> [B, S'], lengths about S / tempo.
    """
    if all(tempo == 1 for tempo in tempos):
        return waves
    size = 1 << (round(0.032 * sample_rate) - 1).bit_length()
    before = waves.lengths.tolist() if samples is None else samples
    lengths, changed = list(before), []
    for i, (tempo, length) in enumerate(zip(tempos, before, strict=True)):
        after = round(length / tempo)
        if tempo != 1 and length > size and after > size:
            lengths[i] = after
            changed.append(i)
    device = waves.values.device
    clean = waves.zeroed().values[:, : max(lengths)]
    values = functional.pad(clean, (0, max(lengths) - clean.shape[1]))
    after = Padded(values, sent(lengths, device))
    if not changed:
        return after
    stretch = _stretched_singly if device.type == "cpu" else _stretched
    rows = sent(changed, device)
    own = Padded(waves.values.index_select(0, rows), waves.lengths.index_select(0, rows))
    counts = [before[i] for i in changed]
    played = stretch(own, counts, [tempos[i] for i in changed], size)
    played = functional.pad(played, (0, values.shape[1] - played.shape[1]))
    return Padded(values.index_copy(0, rows, played), after.lengths).zeroed()


def _stretched_singly(
    waves: Padded, samples: Sequence[int], tempos: Sequence[float], size: int
) -> Tensor:
    """torchaudio's phase vocoder for each utterance, which takes half the time of a padded batch on
    a CPU. Shape: [R, S] -> [R, S']."""
    hop, window = size // 4, torch.hann_window(size)
    advance = torch.linspace(0, math.pi * hop, size // 2 + 1)[:, None]
    rows = []
    for row, length, tempo in zip(waves.values, samples, tempos, strict=True):
        spectrum = torch.stft(row[:length], size, hop, window=window, return_complex=True)
        slower = torchaudio.functional.phase_vocoder(spectrum, tempo, advance)
        after = round(length / tempo)
        rows.append(torch.istft(slower, size, hop, window=window, length=after))
    return pad(rows).values


def _stretched(waves: Padded, samples: Sequence[int], tempos: Sequence[float], size: int) -> Tensor:
    """The same for all at once. Frames after the end of an utterance are zero and do not count in
    the sum of the windows. Shape: [R, S] -> [R, S']."""
    device, hop = waves.values.device, size // 4
    window = torch.hann_window(size, device=device)
    spectra = _spectra(waves.values[:, : max(samples)], waves.lengths[:, None], window)
    times, real = _times(samples, tempos, hop, device)
    places = (
        times.long()[:, None, :].expand(-1, spectra.shape[1], -1).clamp(max=spectra.shape[2] - 2)
    )
    first, second = spectra.gather(2, places), spectra.gather(2, places + 1)
    part = (times % 1.0)[:, None, :]
    sizes = part * second.abs() + (1 - part) * first.abs()
    advance = torch.linspace(0, math.pi * hop, size // 2 + 1, device=device)[:, None]
    turn = second.angle() - first.angle() - advance
    turn = turn - 2 * math.pi * torch.round(turn / (2 * math.pi)) + advance
    phases = torch.cat([spectra[:, :, :1].angle(), turn[:, :, :-1]], dim=2).cumsum(2)
    frames = torch.fft.irfft(torch.polar(sizes, phases), dim=1) * window[:, None]
    sums = _overlapped(frames * real, hop)
    weights = _overlapped((window.square()[:, None] * real).expand_as(frames), hop)
    return sums / weights.clamp(min=1e-11)


def _spectra(waves: Tensor, lengths: Tensor, window: Tensor) -> Tensor:
    """Each utterance mirrored at its own ends, with two frames of zeros at least after its last.
    Shape: [R, S], lengths [R, 1] -> [R, F, K] complex."""
    size, hop = len(window), len(window) // 4
    positions = torch.arange(-size // 2, waves.shape[1] + size // 2, device=waves.device)
    last = lengths - 1
    mirrored = (last - (last - positions.abs()).abs()).clamp(min=0)
    spectra = torch.stft(
        waves.gather(1, mirrored), size, hop, window=window, center=False, return_complex=True
    )
    numbers = torch.arange(spectra.shape[2], device=waves.device)
    spectra = spectra.masked_fill((numbers > lengths // hop)[:, None, :], 0.0)
    return functional.pad(spectra, (0, 2))


def _times(
    samples: Sequence[int], tempos: Sequence[float], hop: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """For each new frame, its place among the old ones, and whether it is before the end. Shape:
    [R, K], [R, 1, K]."""
    counts = [math.ceil((1 + n // hop) / tempo) for n, tempo in zip(samples, tempos, strict=True)]
    most = max(counts)
    # Rounded as in torchaudio: just before a frame, the phase is another than just after it.
    rows = {tempo: torch.arange(0, most * tempo + 1, tempo)[:most] for tempo in set(tempos)}
    times = torch.stack([rows[tempo] for tempo in tempos]).to(device, non_blocking=True)
    real = torch.arange(most, device=device) < sent(counts, device)[:, None]
    return times, real[:, None, :]


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Sum of frames of four hops each, from the middle of the first. Shape: [R, 4 hop, K] -> [R,
    (K + 1) hop]."""
    first, *parts = frames.unflatten(1, (4, hop)).unbind(1)
    total = functional.pad(first, (0, 3))
    for i, part in enumerate(parts, start=1):
        total = total + functional.pad(part, (i, 3 - i))
    return total[:, :, 2:].transpose(1, 2).flatten(1)
