"""The files of a model folder, by name. Nothing here imports torch."""

from __future__ import annotations

import re
from pathlib import Path

from asr.io.files import digest

WEIGHTS = ("model.safetensors", "model.onnx")  # of `asr train`, and of `asr export --to onnx`
NEEDED = ("config.json", "tokens.json", "info.json")
OTHER_FILES = (*NEEDED, "decoder.json", "lexicon.txt", "evaluations.json", "README.md")
PARTS = ("lm", "lstm")  # folders
_FILES = {*WEIGHTS, *OTHER_FILES}
# Language models: n-grams (`asr/lm/storage.py`) and recurrent ones (`asr/lm/neural.py`).
_BELOW = re.compile(r"lm/[a-z_]+\.(json|bin|txt)|lstm/[a-z_]+\.(json|safetensors|onnx)")


def is_model(folder: Path) -> bool:
    """Whether a folder looks like a model for recognition."""
    return all((folder / name).is_file() for name in NEEDED) and any(
        (folder / name).is_file() for name in WEIGHTS
    )


def is_model_file(name: str) -> bool:
    """Whether a file of this name, relative to a model folder, is part of the model.

    >>> [is_model_file(name) for name in ("lm/words.bin", "lm/../x.json", "weights.pkl")]
    [True, False, False]
    """
    return name in _FILES or _BELOW.fullmatch(name) is not None


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights of a model folder; "" without any."""
    return next((digest(folder / name) for name in WEIGHTS if (folder / name).is_file()), "")
