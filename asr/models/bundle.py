"""A model folder: all that is needed to use a model; loading it runs no code.

model.safetensors   weights and statistics
config.json         format version, text (with phones of words), feature and model configuration
tokens.json         the tokens, blank first
info.json           origin (free facts: training data, date, errors on dev, `about` of the recipe)
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asr.config import Config, parse_saved
from asr.errors import CheckpointError
from asr.features.extractor import FeatureConfig
from asr.features.pretrained_config import KINDS
from asr.io.files import atomic_path, read_json, write_json
from asr.io.foreign import kind_of, which_is
from asr.io.model_files import read_facts
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.models.files import INCLUDED_TRAINED, refuse_encoder, refuse_exported
from asr.models.weights import load_model, save_weights
from asr.padded import Padded, pad_on
from asr.text.normalise import TextConfig, normalise
from asr.text.tokens import Tokens, read_tokens

FORMAT = 1
FILES = ("model.safetensors", "config.json", "tokens.json", "info.json")


class _SavedConfig(Config):
    format: int
    text: TextConfig
    features: FeatureConfig
    model: ModelConfig


@dataclass(frozen=True)
class Bundle:
    """A model with the configuration of its input and output."""

    model: AcousticModel
    tokens: Tokens
    text: TextConfig
    info: dict[str, Any] = field(default_factory=dict)
    chunk: int | None = None
    """Frames per chunk of streams, if `model.chunk` is a range; None is the smallest."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the input waveforms in Hz."""
        return self.model.features.config.sample_rate

    def on_device(self) -> AcousticModel:
        """The model, moved to the GPU if there is one."""
        return self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def normalise(self, text: str) -> str:
        """A transcript with the normalisation of training."""
        return normalise(text, self.text)

    @torch.inference_mode()
    def score(self, waves: Sequence[NDArray[np.float32]]) -> tuple[Padded, Padded | None]:
        """Log-probabilities [B, T, V] of recordings by the last and by the hierarchical CTC layer,
        on the GPU if there is one, whose network then computes in float16. The model is moved there
        and set to evaluation mode.

        Shape: B waveforms [S] in [-1, 1] at the model's rate -> [B, T', V] and [B, T'', V] in
        float32.
        """
        model = self.on_device().eval()
        device = next(model.parameters()).device
        features = model.features(pad_on([torch.from_numpy(wave) for wave in waves], device))
        if device.type == "cpu":
            return model.forward_and_spell(features)
        return in_half(model, features)

    def output_frames(self, seconds: float) -> int:
        """Frames of log-probabilities for audio of this duration."""
        return int(self.model.output_lengths(torch.tensor(int(seconds * self.sample_rate))))


def in_half(
    model: AcousticModel, features: Padded, kind: torch.dtype = torch.float16
) -> tuple[Padded, Padded | None]:
    """The model's `forward_and_spell` in half precision, or in float32 if a number gets too large
    for that. Shape: [B, T, F] -> float32 [B, T', V]."""
    try:
        with torch.autocast(features.values.device.type, kind):
            return model.forward_and_spell(features)
    except CheckpointError:  # its scores are not finite
        return model.forward_and_spell(features)


def save_bundle(
    folder: str | Path, bundle: Bundle, half: bool = False, keep_others: bool = False
) -> None:
    """Write the folder atomically. `half` stores weights as float16, half the size.

    With `keep_others`, the decoder that `asr tune` stored in an earlier folder stays.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for path in others_files(folder) if keep_others else []:
            if path.is_dir():
                shutil.copytree(path, temporary / path.name)
            else:
                shutil.copy2(path, temporary)
        save_weights(temporary / "model.safetensors", bundle.model, half)
        write_json(temporary / "config.json", saved_config(bundle))
        write_json(temporary / "tokens.json", bundle.tokens.to_json())
        write_json(temporary / "info.json", bundle.info)


def saved_config(bundle: Bundle) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "format": FORMAT,
        "text": bundle.text.model_dump(exclude_none=True),
        "features": bundle.model.features.config.as_saved(),
        "model": bundle.model.config.model_dump(),
    }


def others_files(folder: str | Path) -> list[Path]:
    """Other files of a model folder: its decoder and language models."""
    if not Path(folder).is_dir():
        return []
    inside = sorted(Path(folder).iterdir())
    return [path for path in inside if path.name not in FILES and not path.name.startswith(".")]


def _advice(folder: Path) -> str:
    if str(folder) != "default":
        return "check the path"
    return f"only asr new --from takes this name; the included model is in {INCLUDED_TRAINED}"


def _as_features(folder: Path) -> str:
    """What a network of transformers is good for here; "" for any other folder."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return ""
    if not isinstance(config, dict) or config.get("model_type") not in KINDS:
        return ""
    return ": train on its hidden states, with features.kind pretrained (docs/pretrained.md)"


def load_bundle(folder: str | Path) -> Bundle:
    """Read a model folder. Raises CheckpointError naming the missing or damaged file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"expected a model folder, got {folder}{which_is(folder)}: {_advice(folder)}"
        )
    if kind := kind_of(folder):
        raise CheckpointError(
            f"expected a model folder, got {folder}, which is {kind}{_as_features(folder)}"
        )
    refuse_encoder(folder)
    refuse_exported(folder)
    config = read_facts(folder / "config.json")
    if config.get("format") != FORMAT:
        other = ", a model of Hugging Face's transformers" if "model_type" in config else ""
        advice = _as_features(folder) or ": train it again"
        raise CheckpointError(
            f"expected a model of format {FORMAT}, got {folder / 'config.json'}{other}{advice}"
        )
    saved = parse_saved(_SavedConfig, config, str(folder / "config.json"))
    info = read_facts(folder / "info.json")
    tokens = read_tokens(folder)
    model = load_model(
        lambda: AcousticModel(saved.features, saved.model, len(tokens)),
        folder / "model.safetensors",
    )
    return Bundle(model, tokens, saved.text, info)
