"""One spelling for transcripts, applied alike before training and before scoring."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Literal

import regex

from asr.config import Config
from asr.text.characters import Language, canonical, lower, upper
from asr.text.phones import Phones, collect_phones, to_phones
from asr.text.tokens import TokenConfig

# regex, not re, where classes of characters are needed. The lookarounds find the inside of a word.
_APOSTROPHE = regex.compile(r"(?V1)(?<=[\p{L}\p{M}\p{N}])['’＇](?=[\p{L}\p{M}\p{N}])")
_PUNCTUATION = regex.compile(
    r"(?V1)[[\p{P}\p{S}]--[']]|(?<![\p{L}\p{M}\p{N}])'|'(?![\p{L}\p{M}\p{N}])"
)


class TextConfig(Config):
    """How transcripts are normalised."""

    case: Literal["keep", "lower", "upper"] = "lower"
    """Letter case of every transcript, and so of what the model writes."""
    language: Language = ""
    """Language of the transcripts, such as tr or az-Latn, where its letters have a case of their
    own: in Turkish (tr) and Azerbaijani (az) I becomes ı, and İ becomes i. tr also serves other
    languages that have both letters. Without it, letters have the case that Unicode gives them."""
    punctuation: Literal["keep", "remove"] = "keep"
    """remove: punctuation and symbols become spaces, which are not spoken; apostrophes
    within words stay, as '."""
    phones: Phones | None = None
    """Of words, where the model writes phones. Training fills it in as tokens.lexicon and
    tokens.espeak say."""


def normalise(text: str, config: TextConfig) -> str:
    """Canonical Unicode (NFC) without characters that are not seen, one case, without punctuation
    if so, single spaces between words, and phones for them where the model writes phones. Raises
    AsrError for words that have none.

    >>> normalise("  Turn  ON ", TextConfig())
    'turn on'
    """
    # Composed before the change of case, which may undo it, and again after.
    text = canonical(text)
    if config.case != "keep":
        text = (lower if config.case == "lower" else upper)(text, config.language)
    composed = unicodedata.normalize("NFC", text)
    if config.punctuation == "remove":
        composed = without_punctuation(composed)
    words = " ".join(composed.split())
    return words if config.phones is None else to_phones(words, config.phones)


def without_punctuation(text: str) -> str:
    """Punctuation and symbols as spaces; apostrophes within words stay, as '.

    >>> without_punctuation("“Don’t stop!”").split()
    ["Don't", 'stop']
    """
    return str(_PUNCTUATION.sub(" ", _APOSTROPHE.sub("'", text)))


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
