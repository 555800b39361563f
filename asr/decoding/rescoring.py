"""N-best rescoring with a recurrent language model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from asr.config import Config

if TYPE_CHECKING:
    from asr.lm.neural import NeuralLm
    from asr.lm.onnx_lm import OnnxLm


class RescoreConfig(Config):
    """Weights of a recurrent language model for the texts of the beam, in nats."""

    weight: float = Field(0.3, ge=0, le=100)
    """Factor on its log-probabilities, which are added to the scores of the n-gram model."""
    word_bonus: float = Field(1.0, ge=-1000, le=1000)
    """Added for every word, because language models favour few words."""
    every_step: bool = False
    """Apply it at every step of the search instead of rescoring. It must have the recogniser's
    tokens; n-gram model, lexicon and hot words are then not allowed. Slow without a GPU."""


@dataclass(frozen=True)
class Scored:
    """A possible text, and its score in nats."""

    text: str
    score: float


def text_scores(neural: NeuralLm | OnnxLm, found: Iterable[Sequence[Scored]]) -> dict[str, float]:
    """The log-probability of each text by a recurrent language model, in nats."""
    texts = sorted({row.text for rows in found for row in rows})
    return dict(zip(texts, neural.score(texts), strict=True))


def rescored(
    found: Iterable[Sequence[Scored]], scores: Mapping[str, float], config: RescoreConfig
) -> list[list[Scored]]:
    """The texts of each utterance with a recurrent language model's `scores` added, best first."""

    def total(row: Scored) -> float:
        words = len(row.text.split())
        return row.score + config.weight * scores[row.text] + config.word_bonus * words

    return [
        sorted((Scored(row.text, total(row)) for row in rows), key=lambda row: -row.score)
        for rows in found
    ]
