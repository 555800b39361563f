"""tokens.txt of a folder for sherpa-onnx, and the kinds of model (slots) that sherpa-onnx runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asr.errors import ConfigError
from asr.models.bundle import Bundle
from asr.text.tokens import WORD_START, Tokens

BLANK_SYMBOL = "<blk>"
HIGHEST_BYTE = 0xC6  # of the alphabet of byte-level BPE
REMOVED = "SIL"  # sherpa-onnx deletes the token of this name from every text
UNUSED = "�"
SPACES = re.compile("[\t\n\v\f\r ]")


def tokens_text(tokens: Tokens) -> str:
    """The content of tokens.txt: a symbol and its id per line.

    sherpa-onnx (2.0.1) guesses two properties of a vocabulary from its symbols. A symbol with an id
    that the network never emits corrects both guesses:

    - Symbols whose highest byte in UTF-8 is 0xC6, as in `ơ`, are read as byte-level BPE, and most
      characters are lost.
    - The first token named SIL is deleted from every text.

    Raises ConfigError for tokens that it cannot read.
    """
    symbols = [BLANK_SYMBOL, *tokens.units[1:]]
    for i, symbol in enumerate(symbols):
        if SPACES.search(symbol) or not symbol:
            raise ConfigError(
                f"expected tokens without spaces, got {symbol!r}: train with another normalisation"
            )
        if symbol == BLANK_SYMBOL and i:
            raise ConfigError(
                f"expected the token {BLANK_SYMBOL} to be the blank, got another: train with "
                "another normalisation"
            )
        if symbol == f"<0x{i - 3:02X}>":
            raise ConfigError(
                f"expected tokens that are text, got {symbol}, which sherpa-onnx reads as a byte: "
                "train with another normalisation"
            )
    lines = [f"{symbol} {i}\n" for i, symbol in enumerate(symbols)]
    if REMOVED in symbols:  # the first line of a symbol counts
        lines.insert(0, f"{REMOVED} {len(lines)}\n")
    if is_byte_bpe(symbols):
        lines.append(f"{UNUSED} {len(lines)}\n")
    return "".join(lines)


def is_byte_bpe(symbols: list[str]) -> bool:
    """Whether sherpa-onnx takes these symbols for byte-level BPE."""
    return max(max(s.lstrip(WORD_START).encode(), default=0) for s in symbols) == HIGHEST_BYTE


@dataclass(frozen=True)
class Slot:
    """A kind of model that sherpa-onnx runs, and how its interfaces name it."""

    recognizer: str
    """The class in Python."""
    factory: str
    """The method that makes a recogniser."""
    program: str
    option: str
    """The program of the command line, and its option for the model."""
    graph_option: str
    """The option for a decoding graph."""
    field: str
    """The field of the model's configuration in C, Kotlin, Swift and others."""


SAMPLES = Slot(
    "OfflineRecognizer",
    "from_omnilingual_asr_ctc",
    "sherpa-onnx-offline",
    "--omnilingual-asr-model",
    "--ctc.graph",
    "omnilingual.model",
)
KALDI = Slot(
    "OfflineRecognizer",
    "from_fire_red_asr_ctc",
    "sherpa-onnx-offline",
    "--fire-red-asr-ctc",
    "--ctc.graph",
    "fire_red_asr_ctc.model",
)
NEMO = Slot(
    "OfflineRecognizer",
    "from_nemo_ctc",
    "sherpa-onnx-offline",
    "--nemo-ctc-model",
    "--ctc.graph",
    "nemo_ctc.model",
)
STREAM = Slot(
    "OnlineRecognizer",
    "from_nemo_ctc",
    "sherpa-onnx",
    "--nemo-ctc-model",
    "--ctc-graph",
    "nemo_ctc.model",
)


def slot_options(bundle: Bundle, slot: Slot) -> dict[str, int]:
    """Arguments of the slot's method in Python that depend on the model."""
    if slot not in (NEMO, STREAM):
        return {}
    features = bundle.model.features.config
    return {"sample_rate": features.sample_rate, "feature_dim": features.bands}
