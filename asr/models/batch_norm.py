"""Batch normalisation with statistics of real frames only."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from asr import shares
from asr.models.kernels import batch_norm as kernel
from asr.padded import Padded


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over all dimensions but the last (Ioffe and Szegedy 2015).

    In evaluation the running statistics are used, so results do not depend on the batch.

    Shape: [B, T, ..., F] -> the same; padding is zero.
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
        """Shape: values [B, T, ..., F] -> the same. A single frame uses the running statistics."""
        if self.training and x.values.is_cuda and kernel.serves(x.values, self.weight):
            return self._of_kernel(x)
        # In the type of the weights: under autocast the input has less precision.
        values = x.values.to(self.weight.dtype)
        if values.device.type == "cpu" and not (self.training and shares.current()):
            return Padded(self._of_gathered(values, x), x.lengths)
        return Padded(self._of_masked(values, x), x.lengths)

    def _of_gathered(self, values: Tensor, x: Padded) -> Tensor:
        """The real frames are gathered, so that torch's fused kernel applies: five times faster on
        a CPU than masked sums. Shape: [B, T, ..., F] -> the same."""
        frames = values.flatten(0, 1)
        real = x.mask().flatten().nonzero().flatten()
        rows = frames.index_select(0, real).reshape(-1, values.shape[-1])
        rows = self._batch_norm(rows, self.training and len(rows) > 1)
        rows = rows.reshape(-1, *frames.shape[1:])
        return torch.zeros_like(frames).index_copy(0, real, rows).reshape(values.shape)

    def _batch_norm(self, rows: Tensor, training: bool) -> Tensor:
        return nn.functional.batch_norm(
            rows, self.running_mean, self.running_variance, self.weight, self.bias, training,
            self.momentum, self.epsilon,
        )  # fmt: skip

    def _of_kernel(self, x: Padded) -> Padded:
        """In Triton. Shape: values [B, T, ..., F] -> the same."""
        running = self.running_mean, self.running_variance
        values = kernel.normalise(x, self.weight, self.bias, running, self.momentum, self.epsilon)
        return Padded(values, x.lengths)

    def _of_masked(self, values: Tensor, x: Padded) -> Tensor:
        """The same by masked sums: to gather on a GPU, the number of frames would have to be read,
        which waits for all queued work. Shape: [B, T, ..., F] -> the same."""
        F, frames = values.shape[-1], torch.arange(values.shape[1], device=values.device)
        padding = frames >= x.lengths[:, None]
        padding = padding.reshape(*padding.shape, *[1] * (values.dim() - 2))
        if not self.training:
            clean = values.masked_fill(padding, 0.0)
            rows = self._batch_norm(clean.reshape(-1, F), training=False)
            return rows.reshape(values.shape).masked_fill(padding, 0.0)
        count, mean, variance = _statistics(values.detach(), padding, x.lengths)
        enough = count > 1
        mean = torch.where(enough, mean, self.running_mean)
        variance = torch.where(enough, variance, self.running_variance)
        # An infinite count: no gradient through the statistics, no correction of the variance.
        counted = torch.where(enough, count, torch.inf)
        scale = torch.rsqrt(variance + self.epsilon)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_variance.lerp_(variance / (1 - 1 / counted), self.momentum)
        normalised: Tensor = _Normalised.apply(
            values, padding, self.weight, self.bias, mean, scale, counted
        )
        return normalised


def _statistics(values: Tensor, padding: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and variance of the real rows, of all processes if they share the batch.

    Shape: values [B, T, ..., F], padding [B, T, ..., 1] -> [], [F], [F].
    """
    share, F = shares.current(), values.shape[-1]
    count = (lengths.sum() * math.prod(values.shape[2:-1])).to(values.dtype)
    some = count.clamp(min=1)
    clean = values.masked_fill(padding, 0.0)
    mean = clean.reshape(-1, F).sum(dim=0) / some
    centred = clean.sub_(mean).masked_fill_(padding, 0.0)
    variance = centred.square_().reshape(-1, F).sum(dim=0) / some
    if share is None:
        return count, mean, variance
    return shares.statistics(share, count, mean, variance)


class _Normalised(torch.autograd.Function):
    """Normalisation by statistics of the batch, with the gradient that passes through them, in all
    processes that share the batch."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        padding: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        scale: Tensor,
        count: Tensor,
    ) -> Tensor:
        """Shape: values [B, T, ..., F], padding [B, T, ..., 1], all others [F], but count [], the
        rows of all processes; infinite if the statistics are not those of the batch."""
        normalised = (values - mean).mul_(scale).masked_fill_(padding, 0.0)
        ctx.save_for_backward(normalised, padding, weight, scale, count)
        share = shares.current()
        ctx.shared, ctx.real = share is not None, share is None or share.real
        return torch.addcmul(bias, normalised, weight).masked_fill_(padding, 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normalised, padding, weight, scale, count = ctx.saved_tensors
        F = len(weight)
        grad = grad.masked_fill(padding, 0.0)
        own = torch.stack(
            [grad.reshape(-1, F).sum(dim=0), (grad * normalised).reshape(-1, F).sum(dim=0)]
        )
        everyone = own
        if ctx.shared:
            everyone = own.clone()
            shares.all_reduce(everyone)
        if ctx.real:  # a copy of another process's utterance is not in the statistics
            straight, along = everyone / count
            grad = grad.sub_(straight).sub_(normalised * along)
        grad = grad.mul_(weight * scale).masked_fill_(padding, 0.0)
        return grad, None, own[1], own[0], None, None, None
