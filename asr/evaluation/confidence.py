"""Confidences of recognised words, and their calibration.

The confidence of a word is the sum of the probabilities of the texts in the beam that have it in
its place (Wessel et al. 2001, "Confidence measures for large vocabulary continuous speech
recognition", for N-best lists). Recognisers are overconfident. A scale on the scores, chosen on the
development set, corrects this (Guo et al. 2017, section 4.2).

N texts, W words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.decoding.confidence import Evidence

SCALES = tuple(2 ** (k / 4) for k in range(-14, 5))  # 0.09 to 2
BINS = 10


def fit_scale(evidence: Sequence[Evidence], right: Sequence[Sequence[bool]]) -> float:
    """The scale of the scores with the highest likelihood of the correct and wrong words.

    `right` states for every word whether it is correct. Without words the scale is 1.
    """
    truth = np.array([word for words in right for word in words], bool)
    if not len(truth):
        return 1.0

    def surprise(scale: float) -> float:
        sure = np.concatenate([row.confidences(scale) for row in evidence])
        return float(-np.log(np.where(truth, sure, 1 - sure)).mean())

    return min(SCALES, key=surprise)


@dataclass(frozen=True)
class Bin:
    """Words of similar confidence: number, mean confidence, and share of correct words."""

    words: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """Recognised words by confidence, in `BINS` bins of equal width, without empty ones."""

    bins: tuple[Bin, ...]

    @property
    def words(self) -> int:
        return sum(row.words for row in self.bins)

    @property
    def mean_confidence(self) -> float:
        return self._mean([row.confidence for row in self.bins])

    @property
    def right(self) -> float:
        """Share of the recognised words that are correct. Deleted words do not count."""
        return self._mean([row.right for row in self.bins])

    @property
    def error(self) -> float:
        """Expected calibration error: mean difference of confidence and accuracy, as a fraction
        (Guo et al. 2017, equation 3)."""
        return self._mean([abs(row.confidence - row.right) for row in self.bins])

    def _mean(self, values: Sequence[float]) -> float:
        pairs = zip(self.bins, values, strict=True)
        return math.fsum(row.words * value for row, value in pairs) / max(1, self.words)


def calibration(confidences: Sequence[float], right: Sequence[bool]) -> Calibration:
    """Bins from the confidence of every recognised word and whether it is correct.

    >>> calibration([0.9, 0.92, 0.3], [True, False, False]).bins[-1]
    Bin(words=2, confidence=0.91, right=0.5)
    """
    sure, truth = np.array(confidences, np.float64), np.array(right, np.float64)
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins = []
    for place in range(BINS):
        inside = places == place
        if inside.any():
            mean, share = float(sure[inside].mean()), float(truth[inside].mean())
            bins.append(Bin(int(inside.sum()), round(mean, 6), round(share, 6)))
    return Calibration(tuple(bins))
