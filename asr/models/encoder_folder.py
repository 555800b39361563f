"""The folder of a pretrained encoder, for `init.model`; loading it runs no code.

model.safetensors   weights and statistics of features and encoder
config.json         format version, kind, feature and model configuration
info.json           origin (free facts: hours, date, dev measures)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from asr.config import Config, parse_saved
from asr.features.extractor import FeatureConfig
from asr.io.files import atomic_path, write_json
from asr.io.model_files import read_facts
from asr.models.config import ModelConfig
from asr.models.files import ENCODER
from asr.models.masked_prediction import SpeechEncoder
from asr.models.weights import load_model, save_weights

FORMAT = 1


class _SavedConfig(Config):
    format: Literal[1]
    kind: Literal["encoder"]
    features: FeatureConfig
    model: ModelConfig


def save_encoder(folder: Path, encoder: SpeechEncoder, info: Mapping[str, Any]) -> None:
    """Write the folder atomically, with weights as float16."""
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_weights(temporary / "model.safetensors", encoder, half=True)
        config = {
            "format": FORMAT,
            "kind": ENCODER,
            "features": encoder.features.config.model_dump(),
            "model": encoder.config.model_dump(),
        }
        write_json(temporary / "config.json", config)
        write_json(temporary / "info.json", dict(info))


def load_encoder(folder: Path) -> tuple[SpeechEncoder, dict[str, Any]]:
    """The encoder, and the facts about it. Raises CheckpointError naming the missing or damaged
    file."""
    path = folder / "config.json"
    config, info = read_facts(path), read_facts(folder / "info.json")
    saved = parse_saved(_SavedConfig, config, str(path))
    encoder = load_model(
        lambda: SpeechEncoder(saved.features, saved.model), folder / "model.safetensors"
    )
    return encoder, info
