"""Decoders: conversion of log-probabilities into text, set by a model folder or by options.

A model folder may contain, besides the model:

decoder.json   settings; without it, decoding is greedy
lm/            n-gram model (see `asr.lm.storage`)
lstm/          recurrent language model (`asr.lm.neural`), for rescoring or for the search
lexicon.txt    one word per line: only these words are recognised

The modules of the search are imported when it is first needed: greedy decoding then does not load
numba, which takes half a second and 100 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from asr.config import Config
from asr.decoding.config import BeamConfig, LanguageConfig, RescoreConfig
from asr.decoding.greedy import greedy_decode
from asr.decoding.rescoring import Scored, attended, rescored, text_scores
from asr.decoding.rows import Rows
from asr.errors import ConfigError, LanguageModelError
from asr.lm.words import MOST_BOOST
from asr.text.tokens import WORD_START, Tokens

if TYPE_CHECKING:
    from asr.decoding.beam import BeamHypothesis
    from asr.decoding.confidence import Evidence
    from asr.decoding.fusion_kernel import Language
    from asr.lm.neural import NeuralLm
    from asr.lm.ngram import NgramModel
    from asr.lm.onnx_lm import OnnxLm
    from asr.padded import Padded


class DecoderConfig(Config):
    """Type and settings of the decoder."""

    kind: Literal["greedy", "beam"] = "greedy"
    """greedy: the best token of every frame; beam: the best text, with language models."""
    beam: BeamConfig = BeamConfig()
    language: LanguageConfig = LanguageConfig()
    rescore: RescoreConfig = RescoreConfig()
    attention_weight: float = Field(0.0, ge=0, le=100)
    """Factor on the log-probabilities of the texts of the beam by the model's attention decoder
    (model.attention_decoder), which are added to their scores; 0 turns it off. Streaming, live
    recognition by a streaming model and exported models leave it out."""
    hot_words: dict[str, Annotated[float, Field(ge=-MOST_BOOST, le=MOST_BOOST)]] = Field({})
    """Words and phrases with a raised score, and the bonus of each in nats."""
    confidence_scale: float = Field(0.7, gt=0, le=100)
    """Factor on the scores of the texts in the beam for word confidences; below 1, since
    recognisers are overconfident. 0.7 was best on AN4's dev; asr tune optimises it."""
    parts: tuple[Literal["lm", "lstm", "lexicon.txt"], ...] = ()
    """Files beside these settings; if one is missing, the folder was not copied completely."""
    tuned: str = ""
    """The data on which the settings were chosen."""


GREEDY = DecoderConfig()


@dataclass(frozen=True)
class Hypothesis:
    """A text and, for each of its words, the probability that it is correct."""

    text: str
    confidences: tuple[float, ...]


@dataclass(frozen=True)
class Decoder:
    """Converts log-probabilities into texts. The default is greedy.

    Raises LanguageModelError if lexicon or hot words contain characters without a token, or if the
    recurrent language model lacks some characters, and ConfigError for incompatible settings.
    """

    tokens: Tokens
    config: DecoderConfig = GREEDY
    ngram: NgramModel | None = None
    lexicon: tuple[str, ...] | None = None
    neural: NeuralLm | OnnxLm | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    """Hot words and words of the lexicon as they were given, by their spelling with the tokens,
    where the two differ. They are stored as given."""

    def __post_init__(self) -> None:
        if self.config.rescore.every_step and self._knows_words:
            raise ConfigError(
                "expected no n-gram model, lexicon or hot words with rescore.every_step, got some: "
                "leave them out"
            )
        if self.config.rescore.every_step and self.config.kind == "beam" and self.neural is None:
            raise ConfigError(
                "expected a recurrent language model with rescore.every_step, got none: give it "
                "with --rescore, or leave the setting out"
            )
        _ = self.language  # words without tokens are refused at once
        if self.neural is not None and self.config.kind == "beam":
            written = {unit.removeprefix(WORD_START) for unit in self.tokens.units[1:]}
            if missing := self.neural.tokens.missing(" ".join(written)):
                raise LanguageModelError(
                    "expected a recurrent language model with all characters of the recogniser, "
                    f"got one without {''.join(sorted(missing))!r}: train it with "
                    "asr lm train --model"
                )

    @cached_property
    def language(self) -> Language | None:
        if self.config.kind == "greedy":
            return None
        from asr.decoding.fusion import build_language

        settings = self.config.language, self.lexicon, self.config.hot_words
        return build_language(self.tokens, self.ngram, *settings)

    def texts(self, log_probs: Padded | Rows) -> list[str]:
        """The text of each utterance. Shape: [B, T, V] -> B texts."""
        if self.config.kind == "greedy":
            return [self.tokens.decode(ids) for ids in greedy_decode(log_probs)]
        return [rows[0].text for rows in self.n_best(log_probs, 1)]

    def first_search(self, log_probs: Padded | Rows) -> tuple[list[str], list[list[Scored]] | None]:
        """The result of `texts`, and the n-best texts, these included, if the search found them,
        for `evidence`. Shape: [B, T, V] -> B texts, B lists or None."""
        if not self._attends(log_probs) and (self.config.kind == "greedy" or self.neural is None):
            return self.texts(log_probs), None
        found = self.n_best(log_probs, self.config.beam.size)
        return [rows[0].text for rows in found], found

    def n_best(self, log_probs: Padded | Rows, count: int) -> list[list[Scored]]:
        """The best texts of each utterance, best first, at least one. A greedy decoder uses a beam
        without language model. Shape: [B, T, V] -> B."""
        neural = None if self.config.kind == "greedy" else self.neural
        every_step = neural is not None and self.config.rescore.every_step
        rescores = (neural is not None and not every_step) or self._attends(log_probs)
        # The best text after rescoring may come from the end of the beam.
        listed = self.config.beam.size if rescores else count
        if isinstance(log_probs, Sequence):
            if every_step:
                raise ConfigError(
                    "expected a model run by torch for rescore.every_step, got an exported one: "
                    "rescore the beam instead, or leave out the recurrent language model"
                )
            found = self._searched(log_probs, listed)
        elif every_step or (log_probs.values.is_cuda and not self._knows_words):
            found = self._batched(log_probs, listed, self._in_torch if every_step else None)
        else:
            found = self._searched(log_probs, listed)
        return [row[:count] for row in self.ranked(found, log_probs)]

    def ranked(
        self, found: Sequence[Sequence[BeamHypothesis]], log_probs: Padded | Rows = ()
    ) -> list[list[Scored]]:
        """The texts found by a search in `log_probs`, best first after rescoring, if there is any:
        by a recurrent language model, and by the attention decoder of the model, if both the
        settings and `log_probs` have one."""
        rows = [[Scored(self.tokens.decode(row.ids), row.score) for row in rows] for rows in found]
        greedy, rescore = self.config.kind == "greedy", self.config.rescore
        if self._attends(log_probs):
            rows = attended(rows, self.by_attention(log_probs, rows), self.config.attention_weight)
        if greedy or self.neural is None or rescore.every_step:
            return rows
        return rescored(rows, text_scores(self.neural, rows), rescore)

    def by_attention(
        self, log_probs: Padded | Rows, rows: Sequence[Sequence[Scored]]
    ) -> list[list[float]]:
        """The log-probability of each text by the model's attention decoder, in nats. -> B times K.

        Raises ConfigError for a model without one.
        """
        from asr.models.attention_decoder import Attended

        if not isinstance(log_probs, Attended):
            raise ConfigError(
                f"expected a model with an attention decoder for attention_weight "
                f"{self.config.attention_weight:g}, got one without: set it to 0, or train with "
                "model.attention_decoder"
            )
        return log_probs.text_scores([[self.tokens.encode(row.text) for row in b] for b in rows])

    def _attends(self, log_probs: Padded | Rows) -> bool:
        """Whether an attention decoder ranks the texts of the beam. Rows are of a stream or of an
        exported model, which have none."""
        asked = self.config.kind == "beam" and self.config.attention_weight > 0
        return asked and not isinstance(log_probs, Sequence)

    @property
    def _knows_words(self) -> bool:
        return bool(self.ngram or self.lexicon or self.config.hot_words)

    def _searched(self, log_probs: Padded | Rows, count: int) -> list[list[BeamHypothesis]]:
        from asr.decoding.beam import beam_decode
        from asr.decoding.fusion import build_language

        language = self.language or build_language(self.tokens)
        beam = self.config.beam
        if count > 1:
            beam = beam.model_copy(update={"recombine": False})
        return beam_decode(log_probs, language, beam, count)

    @property
    def _in_torch(self) -> NeuralLm:
        from asr.lm.neural import NeuralLm

        if not isinstance(self.neural, NeuralLm):
            raise ConfigError(
                "expected a language model of torch for rescore.every_step, got an exported one: "
                "give the folder that asr lm train wrote"
            )
        return self.neural

    def _batched(
        self, log_probs: Padded, count: int, neural: NeuralLm | None
    ) -> list[list[BeamHypothesis]]:
        """The whole batch at once, with the recurrent language model, if any, at every step."""
        from asr.decoding.beam_batched import batched_decode

        greedy = self.config.kind == "greedy"  # whose beam, for confidences, has no bonus
        weight, bonus = 0.0, 0.0 if greedy else self.config.language.word_bonus
        if neural is not None:
            neural.model.to(log_probs.values.device)
            weight, bonus = self.config.rescore.weight, self.config.rescore.word_bonus
        beam = self.config.beam
        return batched_decode(log_probs, self.tokens, beam, count, neural, weight, bonus)

    def hypotheses(
        self,
        log_probs: Padded | Rows,
        texts: Sequence[str] | None = None,
        found: Sequence[Sequence[Scored]] | None = None,
    ) -> list[Hypothesis]:
        """The result of `texts` with word confidences; `texts` and `found` are from `first_search`.
        Shape: [B, T, V] -> B.
        """
        scale = self.config.confidence_scale
        return [
            Hypothesis(text, tuple(evidence.confidences(scale).tolist()))
            for text, evidence in self.evidence(log_probs, texts, found)
        ]

    def evidence(
        self,
        log_probs: Padded | Rows,
        texts: Sequence[str] | None = None,
        found: Sequence[Sequence[Scored]] | None = None,
    ) -> list[tuple[str, Evidence]]:
        """Each text with the evidence of the beam; `texts` and `found` are from `first_search`.
        Shape: [B, T, V] -> B."""
        from asr.decoding.confidence import gather

        if found is None:
            found = self.n_best(log_probs, self.config.beam.size)
        alone = self.ngram is not None and self.neural is None and not self._attends(log_probs)
        if texts is None and (self.config.kind == "greedy" or alone):
            # With an n-gram model, the search for one text recombines, so n-best lists need another
            # search.
            texts = self.texts(log_probs)
        texts = texts or [rows[0].text for rows in found]
        return [
            (text, gather(text, [row.text for row in rows], [row.score for row in rows]))
            for text, rows in zip(texts, found, strict=True)
        ]

    @property
    def description(self) -> str:
        """The decoder in one line, for reports."""
        if self.language is None:
            return "greedy"
        parts = [f"beam {self.config.beam.size}"]
        if self.ngram is not None:
            words = len(self.ngram.vocabulary)
            parts.append(f"{self.ngram.order}-gram of {words} words or characters")
            parts.append(f"weight {self.config.language.weight:g}")
        if self.config.language.word_bonus:
            parts.append(f"bonus {self.config.language.word_bonus:g}")
        if self.neural is not None:
            cell, weight = self.neural.cell, self.config.rescore.weight
            use = "at every step" if self.config.rescore.every_step else "for rescoring"
            parts.append(f"language model of {cell} cells {use}, weight {weight:g}")
        if self.config.attention_weight:
            parts.append(
                f"attention decoder for rescoring, weight {self.config.attention_weight:g}"
            )
        if self.lexicon is not None:
            parts.append(f"lexicon of {len(self.lexicon)} words")
        if self.config.hot_words:
            parts.append(f"{len(self.config.hot_words)} hot words")
        return ", ".join(parts)
