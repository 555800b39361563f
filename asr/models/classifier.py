"""Classification of sequences: features, encoder, pooling over time, linear layer.

On disk a classifier is a folder; loading it runs no code:

model.safetensors   weights and statistics
config.json         format version, feature and model configuration, names of the classes
info.json           origin (free facts: corpus, date, accuracy)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, FiniteFloat
from torch import Tensor, nn

from asr.config import Config, parse_saved
from asr.errors import CheckpointError, ConfigError
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.features.filterbank import Distortion
from asr.io.files import atomic_path, write_json
from asr.io.model_files import read_facts
from asr.models.attention import AttentionPooling
from asr.models.config import ModelConfig
from asr.models.encoder import Encoder
from asr.models.weights import load_model, save_weights
from asr.padded import Padded

FORMAT = 2
# Root mean square of a recording's samples, in dB re full scale. The filterbank's floor is then
# slightly below speech and above the noise of any room.
LEVEL_DB = -50.0
MOST_INPUTS = 65536

Inputs = FeatureConfig | int
"""The input of a classifier: waveforms with these features, or features of this size."""


class Classifier(nn.Module):
    """Sequences to scores of classes, including the feature extractor for waveforms.

    These are two calls, so that training can augment in between: input -> `extract` -> [B, T, F] ->
    `forward` -> scores [B, V]. `config.dropout` also acts on the pooled vector. Waveforms are
    scaled to `level_db` first (see `normalise_level`).
    """

    def __init__(
        self, inputs: Inputs, config: ModelConfig, classes: int, level_db: float = LEVEL_DB
    ) -> None:
        super().__init__()
        self.inputs, self.config, self.level_db = inputs, config, level_db
        self.extractor: FeatureExtractor | None = None
        if isinstance(inputs, int):
            size = inputs
        else:
            self.extractor = FeatureExtractor(inputs)
            size = self.extractor.size
        self.encoder = Encoder(size, config)
        self.pooling = AttentionPooling(self.encoder.output_size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.encoder.output_size, classes)

    def extract(self, x: Padded, distortion: Distortion | None = None) -> Padded:
        """Features of the input; features are returned unchanged.

        Shape: waveforms [B, S] or features [B, T, F] -> [B, T, F].
        """
        if self.extractor is None:
            return x
        features: Padded = self.extractor(normalise_level(x, self.level_db), distortion)
        return features

    def forward(self, features: Padded) -> Tensor:
        """Unnormalised log-probabilities. Shape: [B, T, F] -> [B, V] in float32."""
        pooled = self.pooling(self.encoder(features))
        return self.output(self.dropout(pooled)).float()

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def normalise_level(waves: Padded, level_db: float) -> Padded:
    """Scale every recording to the same root mean square, in dB re full scale, so that the
    filterbank's floor removes the same share of each. Otherwise it would remove speech from quiet
    recordings, and keep the background of loud ones.

    Shape: [B, S] -> [B, S]; padding is zero, and so is a recording of silence.
    """
    waves = waves.zeroed()
    power = waves.values.square().sum(dim=1) / waves.lengths.clamp(min=1)
    gain = 10 ** (level_db / 20) / power.sqrt().clamp(min=1e-15)
    return Padded(waves.values * gain[:, None], waves.lengths)


class _SavedConfig(Config):
    format: int
    inputs: FeatureConfig | Annotated[int, Field(ge=1, le=MOST_INPUTS)]
    model: ModelConfig
    classes: tuple[str, ...]
    level_db: FiniteFloat


@dataclass(frozen=True)
class ClassifierBundle:
    """A classifier with the names of its classes."""

    model: Classifier
    classes: tuple[str, ...]
    info: dict[str, Any] = field(default_factory=dict)

    @torch.no_grad()
    def log_probs(self, x: Padded) -> Tensor:
        """Log-probability of each class, in evaluation mode; the model's mode is restored.

        Shape: waveforms [B, S] or features [B, T, F] -> [B, V].
        """
        training = self.model.training
        self.model.eval()
        scores = self.model(self.model.extract(x.to(next(self.model.parameters()).device)))
        self.model.train(training)
        return torch.log_softmax(scores, dim=1)

    def classify(self, x: Padded) -> list[str]:
        """The most probable class of each sequence. Shape: [B, S] or [B, T, F] -> B names."""
        return [self.classes[i] for i in self.log_probs(x).argmax(dim=1).tolist()]


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Raises ConfigError unless there are at least two different names."""
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise ConfigError(
            f"expected at least two classes of different names, got {list(classes)}: rename them"
        )
    return tuple(classes)


def save_classifier(folder: str | Path, bundle: ClassifierBundle) -> None:
    """Write the folder, atomically."""
    inputs = bundle.model.inputs
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        save_weights(temporary / "model.safetensors", bundle.model)
        config = {
            "format": FORMAT,
            "inputs": inputs if isinstance(inputs, int) else inputs.as_saved(),
            "model": bundle.model.config.model_dump(),
            "classes": list(bundle.classes),
            "level_db": bundle.model.level_db,
        }
        write_json(temporary / "config.json", config)
        write_json(temporary / "info.json", bundle.info)


def load_classifier(folder: str | Path) -> ClassifierBundle:
    """Read a classifier's folder. Raises CheckpointError naming the missing or damaged file."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"expected a classifier's folder, got {folder}: check the path")
    path = folder / "config.json"
    config, info = read_facts(path), read_facts(folder / "info.json")
    if config.get("format") != FORMAT or "classes" not in config:
        raise CheckpointError(f"expected a classifier of format {FORMAT}, got {path}: train it")
    saved = parse_saved(_SavedConfig, config, str(path))
    try:
        classes = checked_classes(saved.classes)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model = load_model(
        lambda: Classifier(saved.inputs, saved.model, len(classes), saved.level_db),
        folder / "model.safetensors",
    )
    return ClassifierBundle(model, classes, info)
