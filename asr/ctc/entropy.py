"""How evenly CTC spreads its probability over the alignments of a target.

With scores s[t, k] = ln p(k | x, t), a path pi that gives the target y has the score sum_t s[t,
pi(t)], and the logarithm of the sum over all paths is ln p(y | x). Its gradient by s[t, k] is the
occupancy g[t, k], the probability of token k at frame t given y.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asr.ctc.loss import ctc_loss
from asr.padded import Padded

STEP = 0.05  # of the scale of the scores, in the difference of two occupancies


def path_entropy(log_probs: Padded, targets: Padded) -> Tensor:
    """The entropy of the alignments of each target, H = -sum_pi p(pi | y, x) ln p(pi | y, x), in
    nats (Liu et al. 2018, "Connectionist temporal classification with maximum entropy
    regularization"); 0, without a gradient, if a target does not fit.

    With p(pi | y, x) = p(pi | x) / p(y | x) this is ln p(y | x) - sum_tk g[t, k] s[t, k]. The terms
    of its gradient by s other than those of the derivative of g cancel out; what is left is minus
    the derivative of g in the direction of s, which is computed as a difference: the occupancies of
    the scores 1.05 s and 0.95 s.

    Shape: log_probs [B, T, V], targets [B, U] -> [B].
    """
    entropies: Tensor = _PathEntropy.apply(
        log_probs.zeroed().values.float(), log_probs.lengths, targets.values, targets.lengths
    )
    return entropies


class _PathEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, *rest: Tensor) -> Tensor:
        ctx.save_for_backward(scores, *rest)
        losses, occupancies = _occupancies(scores, *rest)
        entropies = -losses - (occupancies * scores).sum(dim=(1, 2))
        return entropies.masked_fill(torch.isposinf(losses), 0.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        scores, *rest = ctx.saved_tensors
        _, sharper = _occupancies((1 + STEP) * scores, *rest)
        _, flatter = _occupancies((1 - STEP) * scores, *rest)
        return slope[:, None, None] * (flatter - sharper) / (2 * STEP), None, None, None


@torch.enable_grad()
def _occupancies(
    scores: Tensor, frames: Tensor, targets: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss of each target, and the occupancies; 0 in the padding and for one that does not fit.

    Shape: scores [B, T, V], frames [B], targets [B, U], sizes [B] -> [B], [B, T, V].
    """
    x = scores.detach().requires_grad_()
    losses = ctc_loss(Padded(x, frames), Padded(targets, sizes))
    fits = ~torch.isposinf(losses)
    (slopes,) = torch.autograd.grad(losses.masked_fill(~fits, 0.0).sum(), x)
    # The gradient of CTC assumes scores of log_softmax: it is exp(score) minus the posterior.
    real = Padded(x, frames).mask() & fits[:, None]
    found = (x.exp() - slopes).detach().masked_fill(~real[:, :, None], 0.0)
    return losses.detach(), found
