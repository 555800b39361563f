"""Convolution of a plane of few channels, with a quick weight gradient on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCHES = 1 << 28  # most bytes of patches at a time


def convolved(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The output of the convolution.

    cuDNN's gradient of the weight takes a fifth of a training step on an H100: it has few entries,
    each a sum over the whole batch. On a GPU it is computed as a product of patches instead.

    Shape: [B, C_in, T, F] -> [B, C_out, T', F'].
    """
    if x.is_cuda and torch.is_grad_enabled() and convolution.weight.requires_grad:
        return _by_patches(convolution, x)
    y: Tensor = convolution(x)
    return y


def _by_patches(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = _Convolution.apply(
        x, convolution.weight, convolution.bias, convolution.stride, convolution.padding
    )
    return y


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        device = x.device.type
        if torch.is_autocast_enabled(device):  # what is saved has the precision of the output
            x = x.to(torch.get_autocast_dtype(device))
        y = functional.conv2d(x, weight, bias, stride, padding)
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        before = None
        if ctx.needs_input_grad[0]:
            before = torch.ops.aten.convolution_backward(
                grad, x, weight.to(grad.dtype), None, ctx.stride, ctx.padding, (1, 1), False,
                (0, 0), 1, (True, False, False),
            )[0]  # fmt: skip
        of_weight = _weight_gradient(x, grad, weight, ctx.stride, ctx.padding)
        return before, of_weight, grad.sum(dim=(0, 2, 3), dtype=weight.dtype), None, None


def _weight_gradient(
    x: Tensor, grad: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """A product for each utterance, which keeps all of a GPU busy, then their sum. Shape: x [B,
    C_in, T, F], grad [B, C_out, T', F'] -> [C_out, C_in, K, K]."""
    (along, across), (high, wide) = padding, weight.shape[2:]
    padded = functional.pad(x, (across, across, along, along)).permute(0, 2, 3, 1)
    # [B, T', F', C_in, K, K]; a stride may leave rows at the end unused.
    patches = padded.unfold(1, high, stride[0]).unfold(2, wide, stride[1])
    rows = grad.permute(0, 2, 3, 1).flatten(1, 2)
    bytes_ = patches[:1].numel() * x.element_size()
    count = max(1, PATCHES // max(1, bytes_))
    total = torch.zeros(weight.shape[0], weight[0].numel(), dtype=weight.dtype, device=x.device)
    for some, own in zip(patches.split(count), rows.split(count), strict=True):
        flat = some.reshape(*own.shape[:2], -1)
        total += torch.bmm(own.transpose(1, 2), flat).sum(dim=0, dtype=weight.dtype)
    return total.reshape(weight.shape)
