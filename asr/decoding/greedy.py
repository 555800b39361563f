"""Greedy decoding: the best token of every frame, repeats merged, blanks dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asr.decoding.rows import Rows
from asr.text.tokens import BLANK_ID

if TYPE_CHECKING:
    from asr.padded import Padded


def greedy_decode(log_probs: Padded | Rows) -> list[list[int]]:
    """Token ids of each utterance. Shape: log_probs [B, T, V] -> B lists.

    >>> greedy_decode([np.log([[0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.01, 0.99]])])
    [[1, 1]]
    """
    return [_merged(row) for row in _best(log_probs)]


def _best(log_probs: Padded | Rows) -> list[NDArray[np.int64]]:
    """The best token of every frame. Shape: B times [T]."""
    if isinstance(log_probs, Sequence):
        return [row.argmax(axis=1) for row in log_probs]
    best = log_probs.values.argmax(dim=2).cpu().numpy()  # on the device: less is copied
    return [row[:length] for row, length in zip(best, log_probs.lengths.tolist(), strict=True)]


def _merged(best: NDArray[np.int64]) -> list[int]:
    starts = np.ones(len(best), bool)
    starts[1:] = best[1:] != best[:-1]
    ids: list[int] = best[starts & (best != BLANK_ID)].tolist()
    return ids
