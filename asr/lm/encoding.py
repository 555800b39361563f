"""What recurrent language models of torch and exported ones have in common, without torch."""

from __future__ import annotations

from pathlib import Path

from asr.errors import LanguageModelError
from asr.text.tokens import Tokens

BOUNDARY = 0  # the blank of CTC stands before and after a sentence
UNITS_AT_ONCE = 1 << 14  # in padded sentences that are scored together


def encode_sentence(tokens: Tokens, sentence: str) -> list[int]:
    """Token ids between two boundaries. Raises LanguageModelError for characters without a token.

    >>> encode_sentence(Tokens(("<blank>", "▁", "a", "b")), "ab a")
    [0, 1, 2, 3, 1, 2, 0]
    """
    if unknown := tokens.missing(sentence):
        raise LanguageModelError(
            f"expected characters of the language model, got {''.join(sorted(unknown))!r} in "
            f"{sentence!r}: spell it otherwise or leave it out"
        )
    return [BOUNDARY, *tokens.encode(sentence), BOUNDARY]


def is_neural(path: Path) -> bool:
    """Whether this is the folder of a recurrent model, and not of an n-gram model."""
    return (path / "lstm.json").is_file()
