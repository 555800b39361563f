"""Greedy decoding: the best token of every frame, repeats merged, blanks dropped."""

from __future__ import annotations

import torch

from asr.padded import Padded
from asr.text.tokens import BLANK_ID


def greedy_decode(log_probs: Padded) -> list[list[int]]:
    """Token ids of each utterance. Shape: log_probs [B, T, V] -> B lists.

    >>> scores = torch.tensor([[[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.0, 1.0]]]).log()
    >>> greedy_decode(Padded(scores, torch.tensor([4])))
    [[1, 1]]
    """
    best = log_probs.values.argmax(dim=2)
    starts = torch.ones_like(best, dtype=torch.bool)
    starts[:, 1:] = best[:, 1:] != best[:, :-1]
    kept = (starts & (best != BLANK_ID) & log_probs.mask()).cpu()
    return [row[keep].tolist() for row, keep in zip(best.cpu(), kept, strict=True)]
