"""Changes to training data that keep its words: speed perturbation and SpecAugment.

Random numbers come from torch's global generator, which the trainer seeds for every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torchaudio
from pydantic import Field
from torch import Tensor

from asr.config import Config
from asr.features.codecs import CODECS, Codec
from asr.features.filterbank import Distortion
from asr.features.surroundings import SurroundingsConfig
from asr.padded import Padded, pad


class AugmentConfig(Config):
    """How training utterances are varied."""

    speeds: list[Annotated[float, Field(ge=0.5, le=2)]] = Field([0.9, 1.0, 1.1], min_length=1)
    """Each utterance is played at one of these speeds (from 0.5 to 2), drawn anew every epoch."""
    tempos: list[Annotated[float, Field(ge=0.5, le=2)]] = Field([1.0], min_length=1)
    """The same at its own pitch, beside the speed."""
    codec_share: float = Field(0.0, ge=0, le=1)
    """Share of the utterances that come out of a lossy codec, at its lowest quality."""
    codecs: list[Codec] = Field(list(CODECS), min_length=1)
    """Which one, drawn anew every time."""
    surroundings: SurroundingsConfig = SurroundingsConfig()
    """Rooms, noise and telephones."""
    warp: float = Field(0.1, ge=0, le=0.3)
    """Largest stretch of the frequency axis, either way: other vocal tracts at the same tempo."""
    equaliser_db: float = Field(0.0, ge=0, le=20)
    """Deviation of a random equaliser's gains (FilterAugment, Nam et al. 2022): other microphones,
    rooms and distances."""
    gain_db: float = Field(10.0, ge=0, le=30)
    """Largest change of level, either way. With features.cmvn utterance, the default, none is made:
    features are then the same at any level."""
    join: float = Field(0.5, ge=0, le=1)
    """How readily two utterances of a speaker are played as one: the words of a small corpus then
    stand in ever new places, and cannot be told by where a recording starts and ends."""
    splice: float = Field(0.0, ge=0, le=1)
    """Share of the utterances replaced by new sentences from words of the same speaker."""
    splice_from: float = Field(0.3, ge=0, le=1)
    """Share of the training after which the model aligns its data and splicing begins."""
    time_warp: int = Field(0, ge=0, le=1000)
    """SpecAugment: how far a random point of the utterance moves at most, in feature frames."""
    time_masks: int = Field(2, ge=0)
    """SpecAugment: stretches of time hidden in each utterance."""
    time_mask_frames: int = Field(25, ge=1)
    """Widest time mask, in feature frames; never more than a fifth of the utterance."""
    frequency_masks: int = Field(2, ge=0)
    """SpecAugment: stretches of the frequency axis hidden in each utterance."""
    frequency_mask_bands: int = Field(20, ge=1)
    """Widest frequency mask, in features."""


EQUALISER_GAINS = 4  # over all bands
LONGEST_MASK_SHARE = 0.2  # of an utterance's frames: SpecAugment's bound p (Park et al. 2019, 2.1)


def perturb_speed(waves: Padded, speeds: Sequence[float]) -> Padded:
    """Play each utterance at its own speed, pitch included (Ko et al. 2015).

    Speeds are rounded to 1/20, which keeps the resampling filters short.

    Shape: [B, S] and B speeds -> [B, S'], lengths about S / speed.
    """
    if all(round(20 * speed) == 20 for speed in speeds):
        return waves
    rows: list[Tensor] = [torch.empty(0)] * len(speeds)
    clean = waves.zeroed()
    lengths = waves.lengths.tolist()  # at once: a GPU is waited for each time
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


def draw_distortion(count: int, config: AugmentConfig, device: torch.device) -> Distortion:
    """For each of `count` utterances a stretch of the frequency axis, from 1 - warp to 1 + warp,
    and an equaliser of normally distributed gains."""
    warp = gains = None
    if config.warp:
        warp = 1 + config.warp * (2 * torch.rand(count, device=device) - 1)
    if config.equaliser_db:
        gains = config.equaliser_db * torch.randn(count, EQUALISER_GAINS, device=device)
    return Distortion(warp, gains)


def perturb_gain(waves: Padded, decibels: float) -> Padded:
    """Change each utterance's level by up to so many dB. Shape: [B, S] -> [B, S]."""
    if not decibels:
        return waves
    change = decibels * (2 * torch.rand(len(waves.lengths), 1, device=waves.values.device) - 1)
    return Padded(waves.values * 10 ** (change / 20), waves.lengths)


def warp_time(features: Padded, furthest: int) -> Padded:
    """Move a random frame of each utterance by up to so many frames and stretch what is on either
    side (Park et al. 2019, section 2.1). Utterances that are too short are left alone.

    Shape: [B, T, F] -> [B, T, F].
    """
    if not furthest:
        return features
    B, T, _ = features.values.shape
    device = features.values.device
    last = (features.lengths - 1).clamp(min=0).float()
    room = (last - 2 * furthest).clamp(min=0)
    centre = furthest + room * torch.rand(B, device=device)
    moved = centre + furthest * (2 * torch.rand(B, device=device) - 1) * (room > 0)
    frames = torch.arange(T, device=device)[None, :].float()
    before = frames * (centre / moved.clamp(min=1))[:, None]
    slope = (last - centre) / (last - moved).clamp(min=1)
    after = centre[:, None] + (frames - moved[:, None]) * slope[:, None]
    source = torch.where(frames < moved[:, None], before, after)
    source = torch.where((room > 0)[:, None], source, frames)
    source = torch.minimum(source.clamp(min=0), last[:, None])
    low = source.floor().long()
    high = torch.minimum(low + 1, last[:, None].long())
    share = (source - low)[:, :, None]
    values = features.values
    rows = torch.arange(B, device=device)[:, None]
    return Padded(torch.lerp(values[rows, low], values[rows, high], share), features.lengths)


def spec_augment(features: Padded, config: AugmentConfig) -> Padded:
    """Zero random bands and stretches of each utterance (Park et al. 2019; `warp_time` is its
    warping).

    Meant for normalised features, where zero is the mean.

    Shape: [B, T, F] -> [B, T, F].
    """
    B, T, F = features.values.shape
    device = features.values.device
    longest = (features.lengths * LONGEST_MASK_SHARE).clamp(max=config.time_mask_frames)
    hidden = torch.zeros(B, T, 1, dtype=torch.bool, device=device)
    for _ in range(config.time_masks):
        hidden = hidden | _stretch(longest, features.lengths, T)[:, :, None]
    widest = torch.full((B,), float(min(config.frequency_mask_bands, F)), device=device)
    sizes = torch.full((B,), F, device=device)
    banded = torch.zeros(B, 1, F, dtype=torch.bool, device=device)
    for _ in range(config.frequency_masks):
        banded = banded | _stretch(widest, sizes, F)[:, None, :]
    return Padded(features.values.masked_fill(hidden | banded, 0.0), features.lengths)


def _stretch(longest: Tensor, lengths: Tensor, size: int) -> Tensor:
    """One random stretch per row: width uniform up to `longest`, place uniform. [B, size] bool."""
    width = torch.rand(len(lengths), device=lengths.device) * (longest + 1)
    width = torch.minimum(width.floor(), longest.floor())
    start = (torch.rand(len(lengths), device=lengths.device) * (lengths - width + 1)).floor()
    positions = torch.arange(size, device=lengths.device)[None, :]
    return (positions >= start[:, None]) & (positions < (start + width)[:, None])
