"""One spelling for transcripts, applied alike before training and before scoring."""

from __future__ import annotations

import unicodedata
from typing import Literal

from asr.config import Config


class TextConfig(Config):
    """How transcripts are normalised."""

    case: Literal["keep", "lower", "upper"] = "lower"


def normalise(text: str, config: TextConfig) -> str:
    """Canonical Unicode (NFC), one case, single spaces between words.

    >>> normalise("  Turn  ON ", TextConfig())
    'turn on'
    """
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if config.case == "lower":
        return text.lower()
    return text.upper() if config.case == "upper" else text
