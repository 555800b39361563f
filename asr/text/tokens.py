"""Tokens that a model emits: characters of any script, subwords, words, or phones.

A word begins with the mark `▁`. In a vocabulary of words, a frequent word is one token (`▁four`);
any other is spelled, mark first (`▁`, `m`, `a`, `y`). In a vocabulary of characters, all words are
spelled. In one of subwords (bpe, unigram), each word has one segmentation (`▁four`, `te`, `en`),
independent of its context. In one of phones, transcripts are phones separated by spaces
(`asr.text.phones`), and each is a token (`▁f`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, FiniteFloat, StrictStr, ValidationError, model_validator

from asr.config import Config
from asr.errors import AsrError, CheckpointError
from asr.io.model_files import read_json_file
from asr.text.subwords import learn_pieces, likeliest, merge

BLANK_ID = 0
BLANK = "<blank>"
WORD_START = "▁"
REMEMBERED = 1 << 16  # words whose tokens are cached


class TokenConfig(Config):
    """Which tokens to use."""

    kind: Literal["characters", "words", "bpe", "unigram", "phones"] = "characters"
    """What the model emits: characters, frequent words with the rest spelled, subwords (bpe or
    unigram), or the phones that lexicon or espeak give for words.
    """
    word_count: int = Field(5, ge=1)
    """For kind words: a word that occurs at least this often in training is one token."""
    size: int = Field(500, ge=3, le=100_000)
    """For kind bpe and unigram: the number of tokens, including the blank of CTC."""
    lexicon: Path | None = None
    """For kind phones: a file with one word and its phones per line. The first line of a word
    counts."""
    espeak: str = Field("", max_length=64)
    """For kind phones: the accent, such as en-us or de, with which espeak-ng gives the phones of
    words that the lexicon lacks, or of all words without a lexicon. Requires the extra demo."""

    @model_validator(mode="after")
    def _check_pronunciation(self) -> Self:
        given = self.lexicon is not None or bool(self.espeak)
        if given != (self.kind == "phones"):
            raise ValueError(
                "expected tokens.lexicon or tokens.espeak, or both, with tokens.kind phones"
                + (f", got kind {self.kind}" if given else ", got neither")
            )
        return self


@dataclass(frozen=True)
class Tokens:
    """A vocabulary. Token i is `units[i]`; token 0 is the blank of CTC.

    `cut` segments a word into tokens: whole or by its characters, by merging subwords in the order
    of the tokens (bpe), or with the highest sum of the subwords' `scores` (unigram).
    """

    units: tuple[str, ...]
    cut: Literal["whole", "bpe", "unigram"] = "whole"
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.units[:2] != (BLANK, WORD_START) or len(set(self.units)) != len(self.units):
            raise CheckpointError(
                f"expected distinct tokens that begin with {BLANK} and {WORD_START}, got "
                f"{', '.join(self.units[:5])}: train the model again"
            )
        if self.cut == "whole":
            return
        for unit in self.units[1:]:
            if not unit or WORD_START in unit[1:] or not self._ids.keys() >= set(unit):
                raise CheckpointError(
                    f"expected subwords whose characters are tokens too, got {unit!r}: train "
                    "the model again"
                )
        if len(self.scores) != (len(self.units) if self.cut == "unigram" else 0):
            raise CheckpointError(
                f"expected a score for each of {len(self.units)} unigram tokens, none for others, "
                f"got {len(self.scores)}: train the model again"
            )

    def __len__(self) -> int:
        return len(self.units)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {unit: i for i, unit in enumerate(self.units)}

    @cached_property
    def _spelled(self) -> tuple[tuple[int, ...], ...]:
        """The characters of every token; a phone stays as it is."""
        return tuple(
            tuple(self._ids[c] for c in unit) if self._ids.keys() >= set(unit) else (i,)
            for i, unit in enumerate(self.units)
        )

    @cached_property
    def _word(self) -> Callable[[str], tuple[int, ...]]:
        """The tokens of a word, as far as they exist; those of recent words are cached."""
        pieces = {unit: i for unit, i in self._ids.items() if i != BLANK_ID}
        scores = dict(zip(self.units[1:], self.scores[1:], strict=False))

        def cut(word: str) -> tuple[int, ...]:
            if self.cut == "bpe":
                return tuple(merge(WORD_START + word, pieces))
            if self.cut == "unigram":
                return tuple(likeliest(WORD_START + word, pieces, scores))
            whole = pieces.get(WORD_START + word)
            return tuple(pieces[c] for c in WORD_START + word) if whole is None else (whole,)

        return lru_cache(REMEMBERED)(cut)

    def missing(self, text: str) -> set[str]:
        """Characters of `text` that the vocabulary cannot write."""
        spelled = (word for word in text.split() if WORD_START + word not in self._ids)
        return {c for word in spelled for c in word if c == WORD_START or c not in self._ids}

    def encode(self, text: str) -> list[int]:
        """Token ids of a normalised transcript. Raises AsrError naming characters without a token.

        >>> tokens = build_tokens(["ten ten"], TokenConfig(kind="words", word_count=2))
        >>> [tokens.units[i] for i in tokens.encode("ten net")]
        ['▁ten', '▁', 'n', 'e', 't']
        """
        if unknown := self.missing(text):
            raise AsrError(
                f"expected characters of the vocabulary, got {''.join(sorted(unknown))!r} in "
                f"{text!r}: normalise the text or build the tokens from it"
            )
        return [i for word in text.split() for i in self._word(word)]

    def spell(self, ids: Iterable[int]) -> list[int]:
        """The same text in characters only; phones stay as they are.

        >>> tokens = build_tokens(["ten ten"], TokenConfig(kind="words", word_count=2))
        >>> [tokens.units[i] for i in tokens.spell(tokens.encode("ten"))]
        ['▁', 't', 'e', 'n']
        """
        return [j for i in ids for j in self._spelled[i]]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids (no blanks).

        >>> build_tokens(["ten"], TokenConfig()).decode([1, 4, 2])
        'te'
        """
        text = "".join(self.units[i] for i in ids)
        return " ".join(text.replace(WORD_START, " ").split())

    def extended(self, texts: Iterable[str]) -> Tokens:
        """These tokens, and then the characters of normalised texts that they lack.

        >>> build_tokens(["ab"], TokenConfig()).extended(["bad", "cab"]).units
        ('<blank>', '▁', 'a', 'b', 'c', 'd')
        """
        new = sorted({c for text in texts for c in self.missing(text)})
        if WORD_START in new:
            raise _refused_mark()
        scores = (min(self.scores),) * len(new) if self.cut == "unigram" else ()
        return Tokens((*self.units, *new), self.cut, (*self.scores, *scores))

    def to_json(self) -> Any:
        """A list of the tokens; for subwords, with their kind and scores."""
        if self.cut == "whole":
            return list(self.units)
        scores = {"scores": list(self.scores)} if self.scores else {}
        return {"cut": self.cut, "units": list(self.units)} | scores

    @staticmethod
    def from_json(values: Any) -> Tokens:
        """Raises CheckpointError unless `values` has the form of `to_json`."""
        if isinstance(values, list) and all(isinstance(v, str) for v in values):
            return Tokens(tuple(values))
        try:
            saved = _Pieces.model_validate(values)
        except ValidationError:
            raise CheckpointError(
                "expected a list of tokens, or subwords with their kind, got something else: "
                "rebuild the model"
            ) from None
        return Tokens(saved.units, saved.cut, saved.scores)


class _Pieces(Config):
    cut: Literal["bpe", "unigram"]
    units: tuple[StrictStr, ...]
    scores: tuple[FiniteFloat, ...] = ()


def read_tokens(folder: Path) -> Tokens:
    """The tokens of a model folder. Raises CheckpointError naming the file."""
    path = folder / "tokens.json"
    units = read_json_file(path)
    try:
        return Tokens.from_json(units)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def build_tokens(texts: Sequence[str], config: TokenConfig) -> Tokens:
    """The vocabulary of normalised training transcripts.

    >>> build_tokens(["ab"], TokenConfig()).units
    ('<blank>', '▁', 'a', 'b')
    """
    words = Counter(word for text in texts for word in text.split())
    characters = sorted({c for word in words for c in word})
    if WORD_START in characters:
        raise _refused_mark()
    if config.kind in ("bpe", "unigram"):
        return _in_pieces(texts, config.kind, config.size)
    frequent: list[str] = []
    if config.kind == "words":
        frequent = sorted(w for w, count in words.items() if count >= config.word_count)
    if config.kind == "phones":
        characters, frequent = [], sorted(words)
    return Tokens((BLANK, WORD_START, *characters, *(WORD_START + word for word in frequent)))


def _refused_mark() -> AsrError:
    return AsrError(f"expected transcripts without {WORD_START!r}, which marks words: remove it")


def _in_pieces(texts: Sequence[str], kind: Literal["bpe", "unigram"], size: int) -> Tokens:
    pieces = {piece: round(score, 6) for piece, score in learn_pieces(texts, kind, size)}
    mark = pieces.pop(WORD_START)
    units = (BLANK, WORD_START, *pieces)
    return Tokens(units, kind, (0.0, mark, *pieces.values()) if kind == "unigram" else ())
