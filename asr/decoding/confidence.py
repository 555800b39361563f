"""The confidence of each word, from the probabilities of its alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.text.characters import canonical
from asr.text.edit_distance import align_words

SUREST = 1 - 1e-4  # limit of confidence, since other texts may have left the beam


@dataclass(frozen=True)
class Evidence:
    """Which texts of a beam agree with which recognised words, and their scores in nats.

    Shape: agrees [N, W], scores [N].
    """

    agrees: NDArray[np.bool_]
    scores: NDArray[np.float64]

    def confidences(self, scale: float) -> NDArray[np.float64]:
        """The probability that each word is correct. Shape: [W]."""
        weights = np.exp(scale * (self.scores - self.scores.max()))
        shares: NDArray[np.float64] = weights @ self.agrees / weights.sum()
        return np.clip(shares, 1 - SUREST, SUREST)


def gather(text: str, others: Sequence[str], scores: Sequence[float]) -> Evidence:
    """The evidence of the texts in a beam, at least one, about the recognised text.

    >>> gather("a b", ["a b", "a c"], [-1.0, -1.0]).confidences(1.0).round(2).tolist()
    [1.0, 0.5]
    """
    agrees = [
        [column.operation == "C" for column in alignment if column.reference is not None]
        for alignment in align_words([text] * len(others), others)
    ]
    seen = [bool(canonical(word)) for word in text.split()]  # the alignment drops invisible words
    found = np.zeros((len(others), len(seen)), bool)
    found[:, seen] = np.array(agrees, bool).reshape(len(others), sum(seen))
    return Evidence(found, np.array(scores))
