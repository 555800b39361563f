"""One spelling for transcripts, applied alike before training and before scoring."""

from __future__ import annotations

import unicodedata
from typing import Literal

from asr.config import Config


class TextConfig(Config):
    """How transcripts are normalised."""

    case: Literal["keep", "lower", "upper"] = "lower"
    """Letter case of every transcript, and so of what the model writes."""


def normalise(text: str, config: TextConfig) -> str:
    """Canonical Unicode (NFC), one case, single spaces between words.

    >>> normalise("  Turn  ON ", TextConfig())
    'turn on'
    """
    # Composed before the change of case, which may undo it, and again after.
    text = unicodedata.normalize("NFC", text)
    cased = {"keep": text, "lower": text.lower(), "upper": text.upper()}[config.case]
    return " ".join(unicodedata.normalize("NFC", cased).split())
