"""How log-probabilities become text, as a model's folder says or as one asks for.

A model's folder may hold, besides the model:

decoder.json   settings; without it, decoding is greedy
lm/            n-gram model (see `asr.lm.storage`)
lstm/          recurrent language model, which ranks the texts of the beam anew (`asr.lm.neural`)
lexicon.txt    a word a line: nothing else is written
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from asr.config import Config, parse, with_overrides
from asr.ctc.batched import batched_decode
from asr.ctc.beam import BeamConfig, beam_decode
from asr.ctc.greedy import greedy_decode
from asr.ctc.language import LanguageConfig, build_language, check_word
from asr.ctc.text_cost import Language
from asr.errors import CheckpointError, ConfigError, LanguageModelError, reason
from asr.evaluation.confidence import Evidence, gather
from asr.io.files import atomic_path, read_json, write_json
from asr.lm.neural import NeuralLm, is_neural, load_neural, save_neural
from asr.lm.ngram import NgramModel
from asr.lm.storage import is_ngram, load_ngram, save_ngram
from asr.lm.words import read_lexicon
from asr.padded import Padded
from asr.text.tokens import WORD_START, Tokens


class RescoreConfig(Config):
    """How a recurrent language model changes the scores of the beam's texts, in nats."""

    weight: float = Field(0.3, ge=0, le=100)
    """Factor on its log-probabilities, which are added to what the n-gram model has given."""
    word_bonus: float = Field(1.0, ge=-1000, le=1000)
    """Added for every word: against the liking for few words that comes with it."""
    every_step: bool = False
    """Ask it at every step of the search, in place of ranking what is found. It must write the
    recogniser's units, and n-gram model, lexicon and hot words are left out. Slow without a GPU."""


class DecoderConfig(Config):
    """Which decoder, and its settings."""

    kind: Literal["greedy", "beam"] = "greedy"
    """greedy: the best unit of every frame; beam: the best text, with what is known of language."""
    beam: BeamConfig = BeamConfig()
    language: LanguageConfig = LanguageConfig()
    rescore: RescoreConfig = RescoreConfig()
    hot_words: dict[str, Annotated[float, Field(ge=-1000, le=1000)]] = Field({})
    """Words that score more, and by how many nats."""
    confidence_scale: float = Field(0.7, gt=0, le=100)
    """Factor on the scores of the texts in the beam where they say how sure a word is; less than 1
    since recognisers are too sure of themselves. 0.7 was best on AN4's dev; asr tune finds it."""
    parts: tuple[Literal["lm", "lstm", "lexicon.txt"], ...] = ()
    """What lies beside these settings; if it is missing, the folder was not copied whole."""
    tuned: str = ""
    """On what the settings were chosen."""


GREEDY = DecoderConfig()


@dataclass(frozen=True)
class Scored:
    """A text that may have been said, and its score in nats."""

    text: str
    score: float


@dataclass(frozen=True)
class Heard:
    """A text and, for each of its words, the probability that it was said."""

    text: str
    confidences: tuple[float, ...]


@dataclass(frozen=True)
class Decoder:
    """Turns log-probabilities into texts. With its defaults it is greedy.

    Raises LanguageModelError where lexicon or hot words need other characters than the units', or
    the recurrent language model lacks some of them, and ConfigError for settings that do not fit
    what there is.
    """

    tokens: Tokens
    config: DecoderConfig = GREEDY
    model: NgramModel | None = None
    lexicon: tuple[str, ...] | None = None
    neural: NeuralLm | None = None

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
        _ = self.language  # words that cannot be written are told at once
        if self.neural is not None and self.config.kind == "beam":
            written = {unit.removeprefix(WORD_START) for unit in self.tokens.units[1:]}
            if missing := self.neural.tokens.missing(" ".join(written)):
                raise LanguageModelError(
                    "expected a recurrent language model that can write all that the recogniser "
                    f"writes, got one without {''.join(sorted(missing))!r}: train it with "
                    "asr lm train --model"
                )

    @cached_property
    def language(self) -> Language | None:
        if self.config.kind == "greedy":
            return None
        settings = self.config.language, self.lexicon, self.config.hot_words
        return build_language(self.tokens, self.model, *settings)

    def texts(self, log_probs: Padded) -> list[str]:
        """What was said, in each utterance. Shape: [B, T, V] -> B texts."""
        if self.config.kind == "greedy":
            return [self.tokens.decode(ids) for ids in greedy_decode(log_probs)]
        return [rows[0].text for rows in self.n_best(log_probs, 1)]

    def first_search(self, log_probs: Padded) -> tuple[list[str], list[list[Scored]] | None]:
        """What `texts` gives, and where the search for it has found them, the others in the beam:
        what `evidence` needs. Shape: [B, T, V] -> B texts, B lists or None."""
        if self.config.kind == "greedy" or self.neural is None:
            return self.texts(log_probs), None
        found = self.n_best(log_probs, self.config.beam.size)
        return [rows[0].text for rows in found], found

    def n_best(self, log_probs: Padded, count: int) -> list[list[Scored]]:
        """The best texts of each utterance, best first, at least one. A greedy decoder asks a beam
        without language model. Shape: [B, T, V] -> B."""
        neural = None if self.config.kind == "greedy" else self.neural
        if neural is not None and self.config.rescore.every_step:
            return self._batched(log_probs, count, neural)
        # What is ranked anew may come from the end of the beam.
        listed = count if neural is None else self.config.beam.size
        if log_probs.values.is_cuda and not self._knows_words:
            rows = self._batched(log_probs, listed, None)
        else:
            rows = self._searched(log_probs, listed)
        if neural is not None:
            rows = rescored(rows, text_scores(neural, rows), self.config.rescore)
        return [row[:count] for row in rows]

    @property
    def _knows_words(self) -> bool:
        return bool(self.model or self.lexicon or self.config.hot_words)

    def _searched(self, log_probs: Padded, count: int) -> list[list[Scored]]:
        language = self.language or build_language(self.tokens)
        beam = self.config.beam
        if count > 1:
            beam = beam.model_copy(update={"recombine": False})
        found = beam_decode(log_probs, language, beam, count)
        return [[Scored(self.tokens.decode(row.ids), row.score) for row in rows] for rows in found]

    def _batched(
        self, log_probs: Padded, count: int, neural: NeuralLm | None
    ) -> list[list[Scored]]:
        """All at once, with the recurrent language model, if there is one, at every step."""
        weight, bonus = 0.0, self.config.language.word_bonus
        if neural is not None:
            neural.model.to(log_probs.values.device)
            weight, bonus = self.config.rescore.weight, self.config.rescore.word_bonus
        beam = self.config.beam
        found = batched_decode(log_probs, self.tokens, beam, count, neural, weight, bonus)
        return [[Scored(self.tokens.decode(row.ids), row.score) for row in rows] for rows in found]

    def hear(
        self,
        log_probs: Padded,
        texts: Sequence[str] | None = None,
        found: Sequence[Sequence[Scored]] | None = None,
    ) -> list[Heard]:
        """What `texts` gives, or has given, with how sure one can be of each word; `texts` and
        `found` as from `first_search`. Shape: [B, T, V] -> B.
        """
        scale = self.config.confidence_scale
        return [
            Heard(text, tuple(evidence.confidences(scale).tolist()))
            for text, evidence in self.evidence(log_probs, texts, found)
        ]

    def evidence(
        self,
        log_probs: Padded,
        texts: Sequence[str] | None = None,
        found: Sequence[Sequence[Scored]] | None = None,
    ) -> list[tuple[str, Evidence]]:
        """Each text, with what all in the beam say of it; `texts` and `found` as from
        `first_search`. Shape: [B, T, V] -> B."""
        if found is None:
            found = self.n_best(log_probs, self.config.beam.size)
        alone = self.model is not None and self.neural is None
        if texts is None and (self.config.kind == "greedy" or alone):
            # An n-gram model alone lets the search for one text recombine: that is another search.
            texts = self.texts(log_probs)
        texts = texts or [rows[0].text for rows in found]
        return [
            (text, gather(text, [row.text for row in rows], [row.score for row in rows]))
            for text, rows in zip(texts, found, strict=True)
        ]

    @property
    def description(self) -> str:
        """In words, for reports."""
        if self.language is None:
            return "greedy"
        parts = [f"beam {self.config.beam.size}"]
        if self.model is not None:
            words = len(self.model.vocabulary)
            parts.append(f"{self.model.order}-gram of {words} words or characters")
            parts.append(f"weight {self.config.language.weight:g}")
        if self.config.language.word_bonus:
            parts.append(f"bonus {self.config.language.word_bonus:g}")
        if self.neural is not None:
            cell, weight = self.neural.model.config.cell, self.config.rescore.weight
            use = "at every step" if self.config.rescore.every_step else "to rank anew"
            parts.append(f"language model of {cell} cells {use}, weight {weight:g}")
        if self.lexicon is not None:
            parts.append(f"lexicon of {len(self.lexicon)} words")
        if self.config.hot_words:
            parts.append(f"{len(self.config.hot_words)} hot words")
        return ", ".join(parts)


def text_scores(neural: NeuralLm, found: Iterable[Sequence[Scored]]) -> dict[str, float]:
    """What a recurrent language model says of each text, in nats."""
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


def load_decoder(
    folder: Path,
    tokens: Tokens,
    kind: Literal["greedy", "beam"] | None = None,
    *,
    lm: Path | None = None,
    rescore: Path | None = None,
    lexicon: Path | None = None,
    hot_words: Mapping[str, float] | None = None,
    overrides: Sequence[str] = (),
    normalise: Callable[[str], str] = str,
) -> Decoder:
    """The decoder of a model's folder, changed by what is given.

    What only a beam can use asks for one, unless `kind` says greedy. `normalise` is that of the
    bundle, and spells hot words and lexicon as the model writes them.

    Raises CheckpointError, LanguageModelError or ConfigError naming the file or the setting.
    """
    stored = folder / "decoder.json"
    config = _stored(stored) if stored.is_file() else GREEDY
    changes: dict[str, object] = {"hot_words": config.hot_words | dict(hot_words or {})}
    if kind is not None or lm or lexicon or hot_words or overrides or rescore:
        changes["kind"] = kind or "beam"
    values = with_overrides(config.model_dump() | changes, overrides)
    config = parse(DecoderConfig, values, "decoder settings")
    hot = {normalise(word): boost for word, boost in config.hot_words.items()}
    config = config.model_copy(update={"hot_words": hot})
    if config.kind == "greedy":
        if lm or lexicon or hot_words or rescore:
            raise ConfigError(
                "expected a beam for a language model, lexicon or hot words, got a greedy decoder, "
                "which uses none: leave out one or the other"
            )
        return Decoder(tokens, config)
    given = {"lm": lm, "lstm": rescore, "lexicon.txt": lexicon}
    for part in config.parts:
        if given[part] is None and not (folder / part).exists():
            raise CheckpointError(
                f"expected {folder / part}, got no such file: copy the model's folder whole"
            )
    if not config.rescore.every_step:
        lm = lm or _there(folder / "lm")
        lexicon = lexicon or _there(folder / "lexicon.txt")
    rescore = rescore or _used(folder / "lstm", config.rescore)
    _check_kinds(lm, rescore)
    alphabet = {c for unit in tokens.units[1:] for c in unit}

    def spell(word: str) -> str:
        spelled = normalise(word)
        check_word(spelled, alphabet)
        return spelled

    return Decoder(
        tokens,
        config,
        None if lm is None else load_ngram(lm),
        None if lexicon is None else read_lexicon(lexicon, spell),
        None if rescore is None else load_neural(rescore),
    )


def _check_kinds(lm: Path | None, rescore: Path | None) -> None:
    if lm is not None and is_neural(lm):
        raise LanguageModelError(
            f"expected an n-gram model, got {lm}, which is recurrent: give it as --rescore"
        )
    if rescore is not None and is_ngram(rescore):
        raise LanguageModelError(
            f"expected a recurrent language model, got {rescore}, which holds n-grams: "
            "give it as --lm"
        )


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def _used(neural: Path, config: RescoreConfig) -> Path | None:
    changes = config.every_step or config.weight > 0 or config.word_bonus != 0
    return _there(neural) if changes else None


def save_decoder(folder: Path, decoder: Decoder) -> None:
    """Put a decoder into a model's folder, in place of the one it has. A recurrent language model
    that is there and that the decoder does not use stays, since it took hours to train."""
    parts = []
    if decoder.model is not None:
        save_ngram(folder / "lm", decoder.model)
        parts.append("lm")
    if decoder.neural is not None:
        save_neural(folder / "lstm", decoder.neural)
        parts.append("lstm")
    if decoder.lexicon is not None:
        with atomic_path(folder / "lexicon.txt") as temporary:
            text = "".join(f"{word}\n" for word in decoder.lexicon)
            temporary.write_text(text, encoding="utf-8")
        parts.append("lexicon.txt")
    write_json(folder / "decoder.json", decoder.config.model_dump() | {"parts": parts})
    _remove(folder, {"lm", "lexicon.txt"} - set(parts))


def remove_decoder(folder: Path) -> None:
    """Let a model decode greedily, as before it was given a decoder."""
    # First the settings: without them nothing else is read, should this be cut short.
    (folder / "decoder.json").unlink(missing_ok=True)
    _remove(folder, {"lm", "lstm", "lexicon.txt"})


def _remove(folder: Path, parts: Collection[str]) -> None:
    for part in parts:
        path = folder / part
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _stored(path: Path) -> DecoderConfig:
    try:
        return parse(DecoderConfig, read_json(path), "wrong ones")
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{path}: expected settings of a decoder, got {reason(error)}; tune the model again"
        ) from None
