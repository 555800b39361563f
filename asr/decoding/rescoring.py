"""N-best rescoring with a recurrent language model or an attention decoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asr.decoding.config import RescoreConfig

if TYPE_CHECKING:
    from asr.lm.neural import NeuralLm
    from asr.lm.onnx_lm import OnnxLm


@dataclass(frozen=True)
class Scored:
    """A possible text, and its score in nats."""

    text: str
    score: float


def text_scores(neural: NeuralLm | OnnxLm, found: Iterable[Sequence[Scored]]) -> dict[str, float]:
    """The log-probability of each text by a recurrent language model, in nats."""
    texts = sorted({row.text for rows in found for row in rows})
    return dict(zip(texts, neural.score(texts), strict=True))


def attended(
    found: Iterable[Sequence[Scored]], scores: Iterable[Sequence[float]], weight: float
) -> list[list[Scored]]:
    """The texts of each utterance with an attention decoder's `scores` of them added, best first
    (Watanabe et al. 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition",
    section III-B)."""
    return [
        sorted(
            (
                Scored(row.text, row.score + weight * own)
                for row, own in zip(rows, by_attention, strict=True)
            ),
            key=lambda row: -row.score,
        )
        for rows, by_attention in zip(found, scores, strict=True)
    ]


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
