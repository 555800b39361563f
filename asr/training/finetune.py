"""Training that starts from another model: its layers, and what it knows of shared units."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from asr.config import Config
from asr.errors import ConfigError
from asr.models.acoustic import AcousticModel
from asr.models.bundle import load_bundle
from asr.text.tokens import Tokens

# Differences that leave every weight its meaning.
FREE = {
    "dropout",
    "weight_dropout",
    "zoneout",
    "hierarchical_ctc_layer",
    "lookahead",
    "attention_window",
}


class InitConfig(Config):
    """Initial weights: those of a model, or random ones."""

    model: Path | None = None
    """Folder of a model with the same features and layers; its units may be others."""
    freeze_layers: int = Field(0, ge=0, le=32)
    """How many of the lowest recurrent layers, with all below them, stay as they are."""
    lower_lr_factor: float = Field(1.0, gt=0, le=1)
    """Factor on the learning rate of everything below the output."""
    interpolation: float = Field(0.0, ge=0, lt=1)
    """Share of that model's weights in those of the final one, unless dev has more errors with it
    (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", eq. 1)."""


def initialise_from(model: AcousticModel, tokens: Tokens, folder: Path) -> str:
    """Copy the weights of the model in `folder` into `model`, and say in words what came of it.

    Layers are copied as they are, a lookahead as far as both go, and so are the statistics of
    cmvn=global: what the layers have learnt is of that scale, and frozen ones cannot learn
    another. Of the output layers come the rows of units that both write; the others keep their
    random weights.

    Raises CheckpointError for a bad folder, and ConfigError naming every setting that differs.
    """
    other = load_bundle(folder)
    own_settings = _settings(model)
    differing = [
        f"{key}={value} as in {folder}"
        for key, value in _settings(other.model).items()
        if own_settings[key] != value
    ]
    if differing:
        raise ConfigError(f"expected {', '.join(differing)}, got others: set them")
    own, weights = model.state_dict(), other.model.state_dict()
    copied = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and not name.startswith(("output.", "spelling.", "encoder.lookahead."))
    }
    model.load_state_dict(copied, strict=False)
    _copy_lookahead(model, other.model)
    ids = {unit: i for i, unit in enumerate(other.tokens.units)}
    here = [i for i, unit in enumerate(tokens.units) if unit in ids]
    there = [ids[tokens.units[i]] for i in here]
    for mine, theirs in (
        (model.output, other.model.output),
        (model.spelling, other.model.spelling),
    ):
        if mine is not None and theirs is not None:
            with torch.no_grad():
                mine.weight[here] = theirs.weight[there].to(mine.weight.device)
                mine.bias[here] = theirs.bias[there].to(mine.bias.device)
    return f"started from {folder}: {len(here)} of {len(tokens)} units are its own"


def _settings(model: AcousticModel) -> dict[str, object]:
    """By key, those that give the weights their meaning."""
    sections = {"features": model.features.config, "model": model.config}
    return {
        f"{section}.{key}": value
        for section, config in sections.items()
        for key, value in config.model_dump(mode="json").items()
        if key not in FREE
    }


def interpolate(model: AcousticModel, tokens: Tokens, folder: Path, share: float) -> None:
    """Move all weights by `share` of the way back to those of the model in `folder`; those of units
    that it does not write stay. Raises as `initialise_from` does."""
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    initialise_from(model, tokens, folder)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.lerp(trained[name], tensor, share))
        else:
            tensor.copy_(trained[name])


def _copy_lookahead(model: AcousticModel, other: AcousticModel) -> None:
    """The weights of the coming frames that both look at; those further ahead begin at nothing."""
    mine, theirs = model.encoder.lookahead, other.encoder.lookahead
    if mine is not None and theirs is not None:
        rows = min(len(mine.weight), len(theirs.weight))
        with torch.no_grad():
            mine.weight[:rows] = theirs.weight[:rows].to(mine.weight.device)


def freeze(model: AcousticModel, layers: int) -> list[nn.Module]:
    """Keep the lowest recurrent layers, and all below them, from learning; returns the modules,
    which must stay in evaluation mode for their statistics to stay, too.

    Raises ConfigError where there are not so many layers.
    """
    if not layers:
        return []
    encoder = model.encoder
    if layers > len(encoder.layers):
        raise ConfigError(
            f"expected init.freeze_layers of at most {len(encoder.layers)}, got {layers}: lower it"
        )
    below = [encoder.front_end, encoder.conv_lstm, encoder.dense]
    frozen: list[nn.Module] = [module for module in below if module is not None]
    frozen += [*encoder.norms[:layers], *encoder.layers[:layers]]
    for module in frozen:
        module.requires_grad_(False)
    return frozen
