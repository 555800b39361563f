"""The facts of a model folder, read without loading its weights or running anything."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from asr.config import parse_saved
from asr.errors import CheckpointError, reason
from asr.io import model_files
from asr.io.paths import files_below
from asr.io.printable import printable_name
from asr.models.about import AboutConfig
from asr.models.files import is_model, is_model_file, refuse_encoder
from asr.sharing.evaluations import FILE as EVALUATIONS
from asr.sharing.evaluations import Evaluation, evaluations_of
from asr.text.tokens import Tokens, read_tokens

# Buffers of the network, which are not parameters (`asr/models/batch_norm.py`,
# `asr/features/transforms.py`).
_BUFFERS = ("running_mean", "running_variance", "frames", "sums", "squares")
# Start of the names of parameters that count separately, as in `AcousticModel.parameter_count`.
_AID = "attention_decoder."
# Folders of a training run with the weights of single epochs.
_NOT_MODELS = {"epochs"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


P = TypeVar("P", bound=_Part)


class Pretrained(_Part):
    """The pretrained network of features, as far as a card shows it."""

    kind: str = Field(max_length=40)
    name: str = Field("", max_length=300)
    layers: int
    size: int
    conv_strides: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(max_length=32)


class Features(_Part):
    """The settings of the features that a card shows."""

    kind: str
    sample_rate: int = Field(ge=1)
    bands: int = 0
    coefficients: int = 0
    shift_ms: float = 0.0
    cmvn: str
    network: Pretrained | None = None

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.network is None and not (self.bands and self.shift_ms):
            raise ValueError("expected bands and shift_ms, or a network")
        return self


class Network(_Part):
    """The settings of the network that a card shows."""

    cell: str
    bidirectional: bool
    layers: int
    hidden: int
    strides: tuple[int, ...]
    directions: str = "both"
    pyramid: int = 0
    conv_lstm: int = 0
    attention_heads: int = 0
    attention_decoder: int = 0
    hierarchical_ctc_layer: int = 0
    chunk: int | tuple[int, int] = 0
    lookahead: int = 0


class _Text(_Part):
    case: str = ""
    phones: Any = None


class _Config(_Part):
    format: Literal[1]
    text: _Text
    features: Features
    model: Network


class TrainingData(_Part):
    manifest: str = Field("", max_length=1000)
    hours: float | None = None
    utterances: int | None = None
    speakers: int | None = None
    initial_model: str | None = None


class Export(_Part):
    """What `asr export` states."""

    int8: bool = False
    input: str = Field("", max_length=40)
    difference: float | None = None
    check: str = Field("", max_length=1000)


class Info(_Part):
    """The part of info.json that a card shows; every fact may be missing."""

    date: str = Field("", max_length=40)
    parameters: int | None = None
    training_data: TrainingData = TrainingData()
    training_seconds: float | None = None
    epochs: int | None = None
    dev_errors: int | None = None
    dev_words: int | None = None
    dev_units: str = "words"
    export: Export | None = None


class _Beam(_Part):
    size: int = 0


class _Weight(_Part):
    weight: float = 0.0


class _Decoder(_Part):
    kind: str = "greedy"
    beam: _Beam = _Beam()
    language: _Weight = _Weight()
    rescore: _Weight = _Weight()
    attention_weight: float = 0.0
    parts: tuple[str, ...] = ()
    tuned: str = Field("", max_length=1000)


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model folder."""

    folder: Path
    about: AboutConfig
    info: Info
    features: Features
    network: Network
    tokens: str
    """The tokens in a few words."""
    token_kind: str
    """characters, words, bpe, unigram or phones."""
    decoder: str
    """The decoder in a few words."""
    parameters: int | None
    precision: str
    """The type of the weights."""
    bytes: int
    """Size of the model's files, without its card and its evaluations."""
    evaluations: tuple[Evaluation, ...]

    @property
    def name(self) -> str:
        """A name for the model: that of its folder, or of the run around a folder `model`."""
        real = self.folder.resolve()
        return printable_name((real.parent.name if real.name == "model" else "") or real.name)

    @property
    def main(self) -> Evaluation | None:
        """The newest evaluation, of a test set if there is one."""
        tests = [one for one in self.evaluations if "test" in Path(one.manifest).name]
        return next(iter([*tests, *self.evaluations]), None)


def find_models(folders: Sequence[Path]) -> Iterator[Path]:
    """Model folders at and below these, sorted, each once; links are followed. Models of single
    epochs of a training are left out."""
    seen = set()
    for root in folders:
        for place, below, _ in os.walk(root, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:  # also a link to a folder around it
                below.clear()
                continue
            seen.add(real)
            below[:] = sorted(name for name in below if not _is_left_out(name))
            if is_model(Path(place)):
                below.clear()
                yield Path(place)


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in _NOT_MODELS


def read_facts(folder: str | Path) -> ModelFacts:
    """Raises CheckpointError naming the missing or damaged file."""
    folder = Path(folder)
    refuse_encoder(folder)
    if not is_model(folder):
        raise CheckpointError(f"expected a model folder, got {folder}: check the path")
    config = _parsed(_Config, folder / "config.json")
    values = model_files.read_facts(folder / "info.json")
    info = _parsed(Info, folder / "info.json")
    about = parse_saved(AboutConfig, values.get("about") or {}, f"{folder / 'info.json'}: about")
    tokens = read_tokens(folder)
    parameters, precision = _weights(folder, info)
    phones = config.text.phones is not None
    return ModelFacts(
        folder,
        about,
        info,
        config.features,
        config.model,
        tokens_text(tokens, phones),
        token_kind(tokens, phones),
        _decoder_text(folder),
        parameters,
        precision,
        _size(folder),
        evaluations_of(folder, info.date),
    )


def _size(folder: Path) -> int:
    inside = ((path.relative_to(folder).as_posix(), path) for path in _files(folder))
    return sum(
        path.stat().st_size
        for name, path in inside
        if is_model_file(name) and name not in ("README.md", EVALUATIONS) and path.is_file()
    )


def _files(folder: Path) -> list[Path]:
    """All that can be listed."""
    return files_below(folder, lambda _: None)


def tokens_text(tokens: Tokens, phones: bool = False) -> str:
    """The tokens in a few words, without the blank and the mark of words.

    >>> tokens_text(Tokens(("<blank>", "▁", "a", "b", "▁ab")))
    '1 word, 2 characters'
    """
    spelled = tokens.units[2:]
    if phones:
        return _count(len(spelled), "phone")
    if tokens.cut != "whole":
        return _count(len(spelled), "subword") + f" ({tokens.cut})"
    words = sum(unit.startswith("▁") for unit in spelled)
    parts = [_count(words, "word")] if words else []
    return ", ".join([*parts, _count(len(spelled) - words, "character")])


def token_kind(tokens: Tokens, phones: bool = False) -> str:
    """The kind of the tokens, as in the setting `tokens.kind`."""
    if phones or tokens.cut != "whole":
        return "phones" if phones else tokens.cut
    return "words" if any(unit.startswith("▁") for unit in tokens.units[2:]) else "characters"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _weights(folder: Path, info: Info) -> tuple[int | None, str]:
    """The number of parameters of recognition by CTC, if known, and the type of most of them."""
    path = folder / "model.safetensors"
    if not path.is_file():
        return info.parameters, "int8" if info.export and info.export.int8 else "float32"
    names = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
    sizes: dict[str, int] = {}
    total = 0
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                tensor = file.get_slice(name)
                size = math.prod(tensor.get_shape())
                sizes[tensor.get_dtype()] = sizes.get(tensor.get_dtype(), 0) + size
                apart = name.rpartition(".")[2] in _BUFFERS or name.startswith(_AID)
                total += 0 if apart else size
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"expected weights in safetensors, got {path}: {reason(error)}; copy it again"
        ) from None
    kind = max(sizes, key=lambda key: sizes[key], default="F32")
    return total, names.get(kind, kind)


def _decoder_text(folder: Path) -> str:
    path = folder / "decoder.json"
    decoder = _parsed(_Decoder, path) if path.is_file() else _Decoder()
    if decoder.kind == "greedy":
        return "greedy"
    parts = [f"beam {decoder.beam.size}"]
    if "lm" in decoder.parts:
        parts.append(f"n-gram model, weight {decoder.language.weight:g}")
    if "lstm" in decoder.parts:
        parts.append(f"recurrent language model, weight {decoder.rescore.weight:g}")
    if decoder.attention_weight:
        parts.append(f"attention decoder, weight {decoder.attention_weight:g}")
    if "lexicon.txt" in decoder.parts:
        parts.append("lexicon")
    return ", ".join(parts) + (f" (tuned on {decoder.tuned})" if decoder.tuned else "")


def _parsed(kind: type[P], path: Path) -> P:
    try:
        return kind.model_validate(model_files.read_facts(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(
            f"{path}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}; copy it again"
        ) from None
