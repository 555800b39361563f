"""The CTC loss of each utterance, and which utterances are too short for it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from asr.ctc import kernel
from asr.padded import Padded
from asr.text.tokens import BLANK_ID


def required_frames(ids: Sequence[int]) -> int:
    """Fewest frames for CTC: one per token, and a blank between equal neighbours.

    >>> required_frames([5, 5, 6])
    4
    """
    return len(ids) + sum(a == b for a, b in itertools.pairwise(ids))


def feasible(frames: Tensor, targets: Padded) -> Tensor:
    """Whether each target fits into its frames. Shape: [B], targets [B, U] -> [B] bool."""
    values = targets.values
    repeats = (values[:, 1:] == values[:, :-1]) & targets.mask()[:, 1:]
    return frames >= targets.lengths + repeats.sum(dim=1)


def ctc_loss(log_probs: Padded, targets: Padded) -> Tensor:
    """Negative log-likelihood of each target, in nats; infinite (no gradient) if it does not fit.

    Shape: log_probs [B, T, V], targets [B, U] -> [B].
    """
    # Padding may hold any values.
    scores, tokens = log_probs.zeroed().values.float(), targets.zeroed()
    fits = feasible(log_probs.lengths, targets)
    if kernel.serves(scores, tokens.values):
        losses = kernel.ctc_loss(Padded(scores, log_probs.lengths), tokens)
    else:
        losses = torch.nn.functional.ctc_loss(
            scores.transpose(0, 1),
            tokens.values,
            log_probs.lengths,
            targets.lengths,
            blank=BLANK_ID,
            reduction="none",
            zero_infinity=True,
        )
    return losses.masked_fill(~fits, torch.inf)
