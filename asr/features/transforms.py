"""Deltas, mean and variance normalisation, and frame stacking, exact with lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.padded import Padded

DELTA_REACH = 2  # frames to each side of the regression window, as in HTK and Kaldi
VARIANCE_FLOOR = 1e-5


def append_deltas(features: Padded, order: int) -> Padded:
    """Append `order` time derivatives, by linear regression over +-2 frames (HTK book, eq. 5.16).

    Past the ends, the first or last frame of the utterance is repeated, never its padding.

    Shape: [B, T, F] -> [B, T, F * (order + 1)].
    """
    blocks = [features.values]
    for _ in range(order):
        blocks.append(_delta(Padded(blocks[-1], features.lengths)))
    return Padded(torch.cat(blocks, dim=2), features.lengths)


def _delta(features: Padded) -> Tensor:
    values, lengths = features.values, features.lengths
    positions = torch.arange(values.shape[1], device=values.device)[None, :]
    last = (lengths - 1).clamp(min=0)[:, None]
    total = torch.zeros_like(values)
    for reach in range(1, DELTA_REACH + 1):
        after = torch.minimum(positions + reach, last)
        before = torch.minimum((positions - reach).clamp(min=0), last)
        total = total + reach * (_take(values, after) - _take(values, before))
    weight = 2 * sum(reach * reach for reach in range(1, DELTA_REACH + 1))
    return Padded(total / weight, lengths).zeroed().values


def _take(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[:, :, None].expand(-1, -1, values.shape[2]))


def normalise_utterance(features: Padded) -> Padded:
    """Zero mean and unit variance per feature over each utterance's own frames.

    Shape: [B, T, F] -> [B, T, F]; padding is zero.
    """
    mean, variance = utterance_statistics(features)
    centred = Padded(features.values - mean, features.lengths).zeroed()
    scaled = centred.values * torch.rsqrt(variance + VARIANCE_FLOOR)
    return Padded(scaled, features.lengths)


def utterance_statistics(features: Padded) -> tuple[Tensor, Tensor]:
    """The mean and the variance of each feature over an utterance's own frames.

    Shape: [B, T, F] -> [B, 1, F] each.
    """
    frames = features.lengths.clamp(min=1)[:, None, None]
    mean = features.zeroed().values.sum(dim=1, keepdim=True) / frames
    centred = Padded(features.values - mean, features.lengths).zeroed()
    return mean, centred.values.square().sum(dim=1, keepdim=True) / frames


class GlobalNormalisation(nn.Module):
    """Normalisation with the mean and variance of a training set, stored with the model."""

    frames: Tensor
    sums: Tensor
    squares: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("frames", torch.zeros((), dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(features, dtype=torch.float64))

    def observe(self, features: Padded) -> None:
        """Add a batch's real frames to the statistics."""
        values = features.zeroed().values.double()
        self.frames += features.lengths.sum()
        self.sums += values.sum(dim=(0, 1))
        self.squares += values.square().sum(dim=(0, 1))

    def mean_and_scale(self) -> tuple[Tensor, Tensor]:
        """The mean, and the factor that gives unit variance. Shape: [F], [F]."""
        frames = self.frames.clamp(min=1)
        mean = self.sums / frames
        variance = (self.squares / frames - mean.square()).clamp(min=0)
        # Before any observation the statistics are zero: features stay unscaled.
        scale = torch.where(self.frames > 0, torch.rsqrt(variance + VARIANCE_FLOOR), 1.0)
        return mean.float(), scale.float()

    def forward(self, features: Padded) -> Padded:
        """Shape: [B, T, F] -> [B, T, F]; padding is zero."""
        mean, scale = self.mean_and_scale()
        values = (features.values - mean) * scale
        return Padded(values, features.lengths).zeroed()


def stack_frames(features: Padded, size: int, stride: int) -> Padded:
    """Join each frame with its `size` - 1 successors and keep every `stride`-th.

    Past an utterance's end the stack is filled with zeros.

    Shape: [B, T, F] -> [B, ceil(T / stride), F * size].
    """
    values = features.zeroed().values
    B, T, F = values.shape
    kept = -(-T // stride)
    padded = nn.functional.pad(values, (0, 0, 0, max(0, (kept - 1) * stride + size - T)))
    windows = padded.unfold(1, size, stride)[:, :kept].transpose(2, 3)
    lengths = stacked_lengths(features.lengths, stride)
    return Padded(windows.reshape(B, kept, size * F), lengths).zeroed()


def stacked_lengths(lengths: Tensor, stride: int) -> Tensor:
    """Frames left after stacking. Shape: [B] -> [B]."""
    return (lengths + stride - 1) // stride
