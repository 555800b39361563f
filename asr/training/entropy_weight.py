"""Adaptive entropy against peaky outputs (`train.entropy_target`).

CTC gives nearly all probability to one alignment of each target. EnCTC (Liu et al. 2018) therefore
minimises loss - w H, where H is the entropy of the alignments. With a constant w, outputs stay flat
late in training even where they should be sharp. In AdaMER-CTC (Eom et al. 2024, "AdaMER-CTC:
Connectionist temporal classification with adaptive maximum entropy regularization for automatic
speech recognition") w is learnt instead, by the gradient of w (H - target), where the target is
proportional to the number of tokens: w grows while the alignments of a batch have less entropy than
wanted, and falls to zero while they have more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asr import shares
from asr.ctc.entropy import path_entropy
from asr.ctc.loss import feasible
from asr.padded import Padded

RATE = 0.01  # of the descent, per step and nat


@dataclass
class EntropyWeight:
    """The weight of the entropy, which follows the entropy of each batch. It stays on the device of
    the training: to read it in a step would wait for a GPU.

    Shape: weight [], measured [].
    """

    target: float
    """Entropy of the alignments in nats per token."""
    weight: Tensor
    measured: Tensor | None = None
    """Entropy of the last batch, in nats per token."""

    def loss(self, log_probs: Padded, targets: Padded) -> Tensor:
        """Minus the entropy per token at the present weight; targets that do not fit do not count.

        Shape: log_probs [views * B, T, V], targets [B, U] -> [].
        """
        views = len(log_probs.lengths) // max(1, len(targets.lengths))
        repeated = targets.repeated(views)
        entropies = path_entropy(log_probs, repeated)
        units = repeated.lengths * feasible(log_probs.lengths, repeated)
        own = torch.stack([entropies.detach(), units.to(entropies.dtype)], dim=1)
        found = shares.gather_batch(own.unflatten(0, (views, -1)).transpose(0, 1)).sum(dim=(0, 1))
        count = found[1].clamp(min=1)
        self.measured = found[0] / count
        return shares.objective(-self.weight * entropies.sum() / count)

    @torch.no_grad()
    def adapt(self) -> None:
        """Move the weight after a step; it stays where the entropy is not finite."""
        if self.measured is not None:
            moved = (self.weight + RATE * (self.target - self.measured)).clamp(min=0.0)
            self.weight = torch.where(torch.isfinite(moved), moved, self.weight)
