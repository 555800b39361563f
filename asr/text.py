"""One spelling for transcripts, applied alike before training and before scoring."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Literal

from asr.config import Config
from asr.phones import Phones, collect_phones, to_phones
from asr.tokens import TokenConfig


class TextConfig(Config):
    """How transcripts are normalised."""

    case: Literal["keep", "lower", "upper"] = "lower"
    """Letter case of every transcript, and so of what the model writes."""
    phones: Phones | None = None
    """Of words, where the model writes phones. Training fills it in as tokens.lexicon and
    tokens.espeak say."""


def normalise(text: str, config: TextConfig) -> str:
    """Canonical Unicode (NFC), one case, single spaces between words, and phones for them where
    the model writes phones. Raises AsrError for words that have none.

    >>> normalise("  Turn  ON ", TextConfig())
    'turn on'
    """
    # Composed before the change of case, which may undo it, and again after.
    text = unicodedata.normalize("NFC", text)
    cased = {"keep": text, "lower": text.lower(), "upper": text.upper()}[config.case]
    words = " ".join(unicodedata.normalize("NFC", cased).split())
    return words if config.phones is None else to_phones(words, config.phones)


def as_units(text: TextConfig, tokens: TokenConfig, transcripts: Iterable[str]) -> TextConfig:
    """How transcripts are normalised for these units: with phones where those are asked for.

    Raises AsrError naming words of the `transcripts` that have no phones.
    """
    if tokens.kind != "phones":
        return text
    words = {word for transcript in transcripts for word in normalise(transcript, text).split()}
    phones = collect_phones(
        words, tokens.lexicon, tokens.espeak, lambda word: normalise(word, text)
    )
    return text.model_copy(update={"phones": phones})
