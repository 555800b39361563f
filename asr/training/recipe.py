"""A recipe: all settings of a training run, in one typed file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from asr.augment.config import AugmentConfig
from asr.config import Config, parse, read_yaml, with_overrides
from asr.features.extractor import FeatureConfig
from asr.inference.streaming import obstacles
from asr.models.about import AboutConfig
from asr.models.config import ModelConfig
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig
from asr.training import distributed
from asr.training.finetune import InitConfig
from asr.training.optimizer import Epochs, OptimizationConfig


class DataConfig(Config):
    """Manifests, relative to the recipe file."""

    train: Path
    """Manifest of the training set."""
    dev: Path
    """Manifest of speakers that are not in train: selects the epochs that are kept."""
    labels: Path | None = None
    """Manifest of asr label, with a confidence for each utterance: trained on in addition to
    train."""
    label_weight: float = Field(0.5, gt=0, le=1)
    """Weight of an utterance of labels against one of train, times its confidence."""
    origin: str = ""
    """Address of the folder with the shards of a packed corpus, such as https://host/corpus or
    s3://bucket/corpus; training fetches them into out/shards as needed. Empty: recordings are at
    the paths of the manifests."""
    keep_gb: float = Field(10.0, gt=0)
    """Gigabytes of fetched shards of the training set on disk at a time."""


class TrainConfig(OptimizationConfig):
    """The optimisation of an acoustic model."""

    epochs: Epochs = 60
    batch_seconds: float | Literal["auto"] = 48.0
    """Seconds of audio in a batch, including padding. auto: on a GPU as many as fit its memory, on
    a CPU 48, and at most a hundredth of an epoch; halved if memory runs out, in all processes."""
    cr_ctc_weight: float = Field(0.2, ge=0)
    """Weight of the agreement between two masked views of each utterance (CR-CTC); 0 is off and
    halves the time of a step."""
    attention_weight: float = Field(0.3, gt=0, lt=1)
    """Weight of the loss of model.attention_decoder; that of CTC is the rest. Without an attention
    decoder it is not used."""
    intermediate_ctc_weight: float = Field(0.3, gt=0, lt=1)
    """Weight of the losses of model.intermediate_ctc; that of the last layer is the rest. Without
    such layers it is not used."""
    entropy_target: float = Field(0.0, ge=0)
    """Entropy of CTC's alignments, in nats per token, that training aims at by a weight that it
    adapts, against peaky outputs (AdaMER-CTC); 0 is off."""
    patience: int = Field(20, ge=1)
    """Epochs without a better dev error rate after which training stops."""
    average: int = Field(5, ge=1)
    """Number of the best epochs that are averaged into the final model."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay per step of an exponential moving average of the weights, which is evaluated on dev and
    kept in their place, for example 0.99; 0 is none."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: fp16 on a GPU, bf16 on a CPU that supports it for LSTMs, else fp32."""
    cuda_graphs: bool = False
    """Replay network, loss, gradient and optimizer as CUDA graphs, for batches padded to a few
    shapes; random draws are others than without. Not measured on a GPU yet. Ignored on a CPU."""
    save_seconds: float = Field(60.0, ge=0)
    """Longest time between two checkpoints, which limits the loss from a crash."""

    @field_validator("batch_seconds", mode="before")
    @classmethod
    def _is_auto_or_positive(cls, value: object) -> object:
        if value == "auto":
            return value
        with suppress(TypeError, ValueError):
            if not isinstance(value, bool) and float(value) > 0:  # type: ignore[arg-type]
                return value
        raise ValueError("expected seconds above 0 or auto")


class Recipe(Config):
    """The settings of `asr train`."""

    data: DataConfig
    out: Path
    """Folder of the run: checkpoints, curves and the final model."""
    text: TextConfig = TextConfig()
    tokens: TokenConfig = TokenConfig()
    features: FeatureConfig = FeatureConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    init: InitConfig = InitConfig()
    train: TrainConfig = TrainConfig()
    about: AboutConfig = AboutConfig()

    @model_validator(mode="after")
    def _check_phones(self) -> Self:
        if self.text.phones is not None:
            raise ValueError("expected tokens.lexicon or tokens.espeak, got text.phones: set those")
        if self.tokens.kind == "phones" and self.model.hierarchical_ctc_layer:
            raise ValueError(
                "expected model.hierarchical_ctc_layer 0 with tokens.kind phones, which are not "
                "spelled"
            )
        return self

    @model_validator(mode="after")
    def _check_preserve(self) -> Self:
        if self.init.preserve and self.init.model is None:
            raise ValueError("expected init.model with init.preserve, got none: set it")
        if self.init.preserve and self.tokens.kind == "phones":
            raise ValueError(
                "expected init.preserve false with tokens.kind phones, got true: set it"
            )
        return self

    @model_validator(mode="after")
    def _check_streaming(self) -> Self:
        refuse_obstacles(self.features, self.model)
        return self

    @model_validator(mode="after")
    def _check_pretrained(self) -> Self:
        features, model = self.features, self.model
        if features.network is not None:
            raise ValueError("expected no features.network, which is read from features.pretrained")
        if features.kind == "pretrained" and (model.channels or model.conv_lstm):
            raise ValueError(
                "expected model.channels [], model.strides [] and model.conv_lstm 0 with "
                "features.kind pretrained, whose features have no neighbours, got others: set them"
            )
        if features.finetune_from is not None and self.init.freeze_layers:
            raise ValueError(
                "expected init.freeze_layers 0 with features.finetune_from, which trains what is "
                "below all layers"
            )
        return self

    @property
    def shards(self) -> Path | None:
        """Folder of the fetched shards, for each process its own; None if none are fetched."""
        if not self.data.origin:
            return None
        own = f"-{distributed.rank()}" if distributed.is_launched() else ""
        return self.out / f"shards{own}"

    @model_validator(mode="after")
    def _check_init(self) -> Self:
        """Random layers that are frozen would never learn. Those above a pretrained network may
        have a rate of their own."""
        free = {"model", "preserve"}
        free |= {"lower_lr_factor"} if self.features.kind == "pretrained" else set()
        if self.init.model is None:
            for key, value in InitConfig():
                if key not in free and getattr(self.init, key) != value:
                    raise ValueError(
                        f"expected init.model with init.{key}, got none: set it, or leave out "
                        f"init.{key}"
                    )
        return self


def as_json(recipe: Recipe) -> Any:
    """A recipe as plain values for recipe.json, with absolute paths: it may be read in another
    working folder. What is read from files is left out."""
    return _plain(recipe.model_dump(exclude={"features": {"network"}}))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value.absolute()) if isinstance(value, Path) else value


def refuse_obstacles(features: FeatureConfig, model: ModelConfig) -> None:
    """Raise ValueError for a network for streaming with settings that do not stream."""
    if (model.chunk or model.lookahead) and (missing := obstacles(features, model)):
        raise ValueError(
            f"expected {'; '.join(missing)} with model.chunk or model.lookahead, which "
            "are for streaming"
        )


_NAMES = (str, int, date)  # a folder may be named 2025-02-03
_PATHS = {
    "": ("out",),
    "data": ("train", "dev", "labels"),
    "init": ("model",),
    "tokens": ("lexicon",),
}


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `key.sub=value` overrides.

    Paths in the file are relative to it; paths in overrides to the working folder.

    Raises ConfigError: one line naming the file and the key.
    """
    path = Path(path)
    values = read_yaml(path)
    base = path.resolve().parent
    _rebase_all(values, base)
    values = with_overrides(values, overrides)
    _rebase_all(values, Path())
    return parse(Recipe, values, str(path))


def _rebase_all(values: dict[str, Any], base: Path) -> None:
    """Make the paths of a recipe relative to `base`."""
    for section, keys in _PATHS.items():
        _rebase(values.get(section) if section else values, base, keys)
    _rebase_folder(values.get("features"), base, "pretrained")
    _rebase_folder(values.get("data"), base, "origin")
    augment = values.get("augment")
    if isinstance(augment, dict):
        for section in ("noise", "reverb"):
            _rebase(augment.get(section), base, ("folder",))


def _rebase(section: object, base: Path, keys: Sequence[str]) -> None:
    """Make the paths under these keys relative to `base`; values that are not sections or paths are
    left for `parse` to refuse."""
    if isinstance(section, dict):
        for key in keys:
            if type(section.get(key)) in _NAMES:
                section[key] = str(base / str(section[key]))


def _rebase_folder(section: object, base: Path, key: str) -> None:
    """Of a network or an origin of shards: a folder relative to `base` or, if there is none, a name
    on the hub or an address."""
    if isinstance(section, dict) and type(section.get(key)) in _NAMES:
        given = section[key] = str(section[key])
        with suppress(OSError, ValueError):  # a name that no file can have
            if given and (base / given).is_dir():
                section[key] = str(base / given)
