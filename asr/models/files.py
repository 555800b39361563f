"""The files of a model folder, by name. Nothing here imports torch."""

from __future__ import annotations

import re
from pathlib import Path

from asr.errors import CheckpointError
from asr.io.files import digest
from asr.io.model_files import read_facts

_PACKAGE = Path(__file__).resolve().parents[1] / "inference"
INCLUDED_TRAINED = _PACKAGE / "default_model"  # as `recipes/an4` trained it; torch runs it
INCLUDED_ONNX = _PACKAGE / "default_onnx"  # the same with 8-bit weights; onnxruntime runs it
WEIGHTS = ("model.safetensors", "model.onnx")  # of `asr train`, and of `asr export --to onnx`
NEEDED = ("config.json", "tokens.json", "info.json")
OTHER_FILES = (*NEEDED, "decoder.json", "lexicon.txt", "evaluations.json", "README.md")
ENCODER = "encoder"  # kind of a pretrained encoder
PARTS = ("lm", "lstm")  # folders
_FILES = {*WEIGHTS, *OTHER_FILES}
# Language models: n-grams (`asr/lm/storage.py`) and recurrent ones (`asr/lm/neural.py`).
_BELOW = re.compile(r"lm/[a-z_]+\.(json|bin|txt)|lstm/[a-z_]+\.(json|safetensors|onnx)")


def is_model(folder: Path) -> bool:
    """Whether a folder looks like a model for recognition."""
    return all((folder / name).is_file() for name in NEEDED) and any(
        (folder / name).is_file() for name in WEIGHTS
    )


def refuse_encoder(folder: Path) -> None:
    """Raise CheckpointError for a folder of `asr pretrain`, where a recogniser is expected."""
    if is_encoder(folder):
        raise CheckpointError(
            f"expected a recogniser, got {folder}, a pretrained encoder, which has no output: "
            "train a recogniser from it, with init.model in the recipe"
        )


def refuse_exported(folder: Path) -> None:
    """Raise CheckpointError for an exported folder, where a model is needed that torch can read."""
    torch, onnx = ((folder / name).is_file() for name in WEIGHTS)
    if onnx and not torch:
        raise CheckpointError(
            f"expected a model of asr train, got {folder}, an exported one: give the folder that it"
            " was exported from"
        )


def is_encoder(folder: Path) -> bool:
    """Whether a folder says that it is a pretrained encoder (`asr/models/encoder_folder.py`)."""
    path = folder / "config.json"
    return path.is_file() and read_facts(path).get("kind") == ENCODER


def is_model_file(name: str) -> bool:
    """Whether a file of this name, relative to a model folder, is part of the model.

    >>> [is_model_file(name) for name in ("lm/words.bin", "lm/../x.json", "weights.pkl")]
    [True, False, False]
    """
    return name in _FILES or _BELOW.fullmatch(name) is not None


def weights_digest(folder: Path) -> str:
    """SHA-256 of the weights of a model folder; "" without any."""
    return next((digest(folder / name) for name in WEIGHTS if (folder / name).is_file()), "")
