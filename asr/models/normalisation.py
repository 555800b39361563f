"""Batch normalisation whose statistics count real frames only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.padded import Padded


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over every dimension but one (Ioffe and Szegedy 2015), without padding.

    In evaluation the running statistics are used, so results do not depend on the batch.

    Shape: [B, T, ...] -> the same, normalised along dimension `feature_dim`; padding is zero.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, features: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_variance", torch.ones(features))

    def forward(self, x: Padded) -> Padded:
        """Shape: values [B, T, F] -> [B, T, F]."""
        mask = x.mask()[:, :, None]
        values = x.values.float()
        if self.training:
            mean, variance = self._batch_statistics(values, mask)
        else:
            mean, variance = self.running_mean, self.running_variance
        scale = self.weight * torch.rsqrt(variance + self.epsilon)
        shift = self.bias - mean * scale
        return Padded((values * scale + shift).masked_fill(~mask, 0.0), x.lengths)

    def _batch_statistics(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        frames = mask.sum().clamp(min=1)
        real = values.masked_fill(~mask, 0.0)
        mean = real.sum(dim=(0, 1)) / frames
        centred = (real - mean).masked_fill(~mask, 0.0)
        variance = centred.square().sum(dim=(0, 1)) / frames
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(variance, self.momentum)
        return mean, variance
