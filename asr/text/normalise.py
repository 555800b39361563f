"""One spelling for transcripts, applied in the same way before training and before scoring."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Literal

import regex

from asr.config import Config
from asr.text.characters import Language, canonical, lower, upper
from asr.text.phones import Phones, collect_phones, to_phones
from asr.text.tokens import TokenConfig

# regex, not re, for character classes. The lookarounds match the inside of a word.
_APOSTROPHE = regex.compile(r"(?V1)(?<=[\p{L}\p{M}\p{N}])['’＇](?=[\p{L}\p{M}\p{N}])")
_PUNCTUATION = regex.compile(
    r"(?V1)[[\p{P}\p{S}]--[']]|(?<![\p{L}\p{M}\p{N}])'|'(?![\p{L}\p{M}\p{N}])"
)


class TextConfig(Config):
    """How transcripts are normalised."""

    case: Literal["keep", "lower", "upper"] = "lower"
    """Letter case of every transcript, and therefore of the model's output."""
    language: Language = ""
    """Language of the transcripts, such as tr or az-Latn, if its letter case differs from
    Unicode's: in Turkish (tr) and Azerbaijani (az), I becomes ı and İ becomes i. tr also serves
    other languages that have both letters."""
    punctuation: Literal["keep", "remove"] = "keep"
    """remove: punctuation and symbols become spaces, which are not spoken; apostrophes
    within words stay, as '."""
    phones: Phones | None = None
    """Pronunciations of words, for a model of phones. Training fills it in from tokens.lexicon and
    tokens.espeak."""


def normalise(text: str, config: TextConfig) -> str:
    """Canonical Unicode (NFC) without invisible characters, in one case, with single spaces between
    words; without punctuation and as phones if configured. Raises AsrError for words without
    phones.

    >>> normalise("  Turn  ON ", TextConfig())
    'turn on'
    """
    # Composed before the change of case, which may undo it, and again afterwards.
    text = canonical(text)
    if config.case != "keep":
        text = (lower if config.case == "lower" else upper)(text, config.language)
    composed = unicodedata.normalize("NFC", text)
    if config.punctuation == "remove":
        composed = without_punctuation(composed)
    words = " ".join(composed.split())
    return words if config.phones is None else to_phones(words, config.phones)


def without_punctuation(text: str) -> str:
    """Replace punctuation and symbols with spaces; keep apostrophes within words, as '.

    >>> without_punctuation("“Don’t stop!”").split()
    ["Don't", 'stop']
    """
    return str(_PUNCTUATION.sub(" ", _APOSTROPHE.sub("'", text)))


def as_units(text: TextConfig, tokens: TokenConfig, transcripts: Iterable[str]) -> TextConfig:
    """How transcripts are normalised for these tokens: with phones if the tokens are phones.

    Raises AsrError naming words of the `transcripts` without phones.
    """
    if tokens.kind != "phones":
        return text
    words = {word for transcript in transcripts for word in normalise(transcript, text).split()}
    phones = collect_phones(
        words, tokens.lexicon, tokens.espeak, lambda word: normalise(word, text)
    )
    return text.model_copy(update={"phones": phones})
