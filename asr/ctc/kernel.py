"""CTC on a GPU, without waiting for it.

torch's own loss copies the lengths to the host, and three tensors to the GPU in each direction, and
waits for each copy. The recursions are in triton_ctc.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asr.models.kernels import gpu
from asr.padded import Padded
from asr.text.tokens import BLANK_ID

MOST_STATES = 4096


def serves(scores: Tensor, targets: Tensor) -> bool:
    """Whether this path supports these scores [B, T, V] and targets [B, U]."""
    return (
        scores.dtype == torch.float32
        and scores.numel() > 0
        and 2 * targets.shape[1] + 1 <= MOST_STATES
        and gpu.serves("lstm", scores)
    )


def ctc_loss(scores: Padded, targets: Padded) -> Tensor:
    """As torch's, with `zero_infinity`: negative log-likelihoods in nats. Values of `targets` must
    be tokens, in the padding as well.

    Shape: log-probabilities [B, T, V] in float32, targets [B, U] -> [B].
    """
    losses: Tensor = _Ctc.apply(
        scores.values.contiguous(), targets.values.contiguous(), scores.lengths, targets.lengths
    )
    return losses


class _Ctc(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, targets: Tensor, lengths: Tensor, sizes: Tensor
    ) -> Tensor:
        from asr.ctc.triton_ctc import ctc_forward

        B, T, V = scores.shape
        U = targets.shape[1]
        ctx.block = max(2, 1 << (2 * U).bit_length())
        alphas = scores.new_empty(B, T, ctx.block)
        losses = scores.new_empty(B)
        with torch.cuda.device_of(scores):
            ctc_forward[(B,)](
                scores, targets, lengths, sizes, alphas, losses, T, V, U,
                BLANK=BLANK_ID, BLOCK=ctx.block, num_warps=_warps(ctx.block),
            )  # fmt: skip
        ctx.save_for_backward(scores, targets, lengths, sizes, alphas, losses)
        return losses.masked_fill(torch.isposinf(losses), 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from asr.ctc.triton_ctc import ctc_backward

        scores, targets, lengths, sizes, alphas, losses = ctx.saved_tensors
        (B, T, V), U = scores.shape, targets.shape[1]
        states = torch.empty_like(alphas)
        with torch.cuda.device_of(scores):
            ctc_backward[(B,)](
                scores, targets, lengths, sizes, alphas, losses, states, T, V, U,
                BLANK=BLANK_ID, BLOCK=ctx.block, num_warps=_warps(ctx.block),
            )  # fmt: skip
        # Like torch, this assumes scores of log_softmax: the gradient is exp(score) minus the
        # posterior of the token.
        gradient = scores.exp()
        tokens = targets[:, None, :].expand(-1, T, -1)
        gradient.scatter_add_(2, tokens, -states[:, :, 1 : 2 * U : 2])
        gradient[:, :, BLANK_ID] -= states[:, :, ::2].sum(dim=2)
        left_out = ~Padded(scores, lengths).mask() | torch.isposinf(losses)[:, None]
        gradient = (gradient * grad[:, None, None]).masked_fill_(left_out[:, :, None], 0.0)
        return gradient, None, None, None


def _warps(block: int) -> int:
    return max(1, min(8, block // 128))
