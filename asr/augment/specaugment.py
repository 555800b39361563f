"""SpecAugment: masks and warps of features (Park et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.augment.config import AugmentConfig
from asr.features.filterbank import Distortion
from asr.padded import Padded
from asr.shares import rand, randn

EQUALISER_GAINS = 4  # over all bands
LONGEST_MASK_SHARE = 0.2  # of an utterance's frames: SpecAugment's bound p (Park et al. 2019, 2.1)


def draw_distortion(count: int, config: AugmentConfig, device: torch.device) -> Distortion:
    """For each of `count` utterances, a stretch factor of the frequency axis from 1 - vtlp to 1 +
    vtlp, and an equaliser with normally distributed gains."""
    warp = gains = None
    if config.vtlp:
        warp = 1 + config.vtlp * (2 * rand(count, device=device) - 1)
    if config.equaliser_db:
        gains = config.equaliser_db * randn(count, EQUALISER_GAINS, device=device)
    return Distortion(warp, gains)


def warp_time(features: Padded, furthest: int) -> Padded:
    """Move a random frame of each utterance by at most the given number of frames, and stretch both
    sides (Park et al. 2019, section 2.1). Utterances that are too short stay unchanged.

    Shape: [B, T, F] -> [B, T, F].
    """
    if not furthest:
        return features
    B, T, _ = features.values.shape
    device = features.values.device
    last = (features.lengths - 1).clamp(min=0).float()
    room = (last - 2 * furthest).clamp(min=0)
    centre = furthest + room * rand(B, device=device)
    moved = centre + furthest * (2 * rand(B, device=device) - 1) * (room > 0)
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


def spec_augment(features: Padded, config: AugmentConfig, mean: Tensor | float = 0.0) -> Padded:
    """Set random bands and time spans of each utterance to the mean of its features, which is zero
    if they are normalised (Park et al. 2019; its warping is `warp_time`).

    Shape: [B, T, F], mean [B, 1, F] -> [B, T, F].
    """
    B, T, F = features.values.shape
    device = features.values.device
    longest = (features.lengths * LONGEST_MASK_SHARE).clamp(max=config.time_mask_frames)
    hidden = _stretches(config.time_masks, longest, features.lengths, T)
    # A mask must not hide all of few features.
    bands = config.frequency_mask_bands if config.frequency_mask_bands < F else F // 2
    widest = torch.full((B,), float(bands), device=device)
    sizes = torch.full((B,), F, device=device)
    banded = _stretches(config.frequency_masks, widest, sizes, F)
    masked = hidden[:, :, None] | banded[:, None, :]
    return Padded(torch.where(masked, mean, features.values), features.lengths)


def _stretches(count: int, longest: Tensor, lengths: Tensor, size: int) -> Tensor:
    """`count` random intervals per row, which may overlap: uniform width up to `longest`, uniform
    start. All at once: a GPU would wait for the launches of each. [B, size] bool."""
    B, device = len(lengths), lengths.device
    if not count:
        return torch.zeros(B, size, dtype=torch.bool, device=device)
    drawn = torch.stack([rand(B, device=device) for _ in range(2 * count)])
    width = torch.minimum((drawn[::2] * (longest + 1)).floor(), longest.floor())
    start = (drawn[1::2] * (lengths - width + 1)).floor()
    positions = torch.arange(size, device=device)
    after, before = start[:, :, None], (start + width)[:, :, None]
    return ((positions >= after) & (positions < before)).any(dim=0)
