"""Units a model writes: characters, or whole words where they are frequent enough to learn.

A word begins with the mark `▁`. In a vocabulary of words a frequent word is one unit (`▁four`);
any other is spelled, mark first (`▁`, `m`, `a`, `y`). In a vocabulary of characters all are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from asr.config import Config
from asr.errors import AsrError, CheckpointError

BLANK_ID = 0
BLANK = "<blank>"
WORD_START = "▁"


class TokenConfig(Config):
    """Which units to use."""

    kind: Literal["characters", "words"] = "characters"
    """What the model writes: characters, or frequent words with the rest spelled."""
    word_count: int = Field(5, ge=1)
    """For kind words: a word seen at least so often in training is a unit of its own."""


@dataclass(frozen=True)
class Tokens:
    """A vocabulary. Unit i is `units[i]`; unit 0 is the blank of CTC."""

    units: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.units[:2] != (BLANK, WORD_START) or len(set(self.units)) != len(self.units):
            raise CheckpointError(
                f"expected distinct units that begin with {BLANK} and {WORD_START}, got "
                f"{', '.join(self.units[:5])}: train the model again"
            )

    def __len__(self) -> int:
        return len(self.units)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {unit: i for i, unit in enumerate(self.units)}

    def missing(self, text: str) -> set[str]:
        """Characters of `text` that the vocabulary cannot write."""
        spelled = (word for word in text.split() if WORD_START + word not in self._ids)
        return {c for word in spelled for c in word if c == WORD_START or c not in self._ids}

    def encode(self, text: str) -> list[int]:
        """Unit ids of a normalised transcript. Raises AsrError naming characters it cannot write.

        >>> tokens = build_tokens(["ten ten"], TokenConfig(kind="words", word_count=2))
        >>> [tokens.units[i] for i in tokens.encode("ten net")]
        ['▁ten', '▁', 'n', 'e', 't']
        """
        if unknown := self.missing(text):
            raise AsrError(
                f"expected characters of the vocabulary, got {''.join(sorted(unknown))!r} in "
                f"{text!r}: normalise the text or build the units from it"
            )
        ids = []
        for word in text.split():
            whole = self._ids.get(WORD_START + word)
            if whole is not None:
                ids.append(whole)
            else:
                ids.extend([self._ids[WORD_START], *(self._ids[c] for c in word)])
        return ids

    def spell(self, ids: Iterable[int]) -> list[int]:
        """The same text in characters only.

        >>> tokens = build_tokens(["ten ten"], TokenConfig(kind="words", word_count=2))
        >>> [tokens.units[i] for i in tokens.spell(tokens.encode("ten"))]
        ['▁', 't', 'e', 'n']
        """
        return [self._ids[c] for i in ids for c in self.units[i]]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of unit ids (no blanks).

        >>> build_tokens(["ten"], TokenConfig()).decode([1, 4, 2])
        'te'
        """
        text = "".join(self.units[i] for i in ids)
        return " ".join(text.replace(WORD_START, " ").split())

    def to_json(self) -> list[str]:
        return list(self.units)

    @staticmethod
    def from_json(values: Any) -> Tokens:
        """Raises CheckpointError unless `values` is a list of distinct strings."""
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise CheckpointError("expected a list of units, got something else: rebuild the model")
        return Tokens(tuple(values))


def build_tokens(texts: Sequence[str], config: TokenConfig) -> Tokens:
    """The vocabulary of normalised training transcripts.

    >>> build_tokens(["ab"], TokenConfig()).units
    ('<blank>', '▁', 'a', 'b')
    """
    words = Counter(word for text in texts for word in text.split())
    characters = sorted({c for word in words for c in word})
    if WORD_START in characters:
        raise AsrError(f"expected transcripts without {WORD_START!r}, which marks words: remove it")
    frequent: list[str] = []
    if config.kind == "words":
        frequent = sorted(w for w, count in words.items() if count >= config.word_count)
    return Tokens((BLANK, WORD_START, *characters, *(WORD_START + word for word in frequent)))
