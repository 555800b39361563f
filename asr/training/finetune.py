"""Training from an initial model: its layers, and its output weights of shared tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from asr.config import Config
from asr.errors import ConfigError
from asr.features.extractor import FeatureConfig
from asr.models.acoustic import AcousticModel
from asr.models.bundle import load_bundle
from asr.models.encoder_folder import load_encoder
from asr.models.files import is_encoder, is_model
from asr.models.masked_prediction import SpeechEncoder
from asr.text.tokens import Tokens

# Settings that may differ, since every weight keeps its meaning.
FREE = {
    "dropout",
    "weight_dropout",
    "zoneout",
    "hierarchical_ctc_layer",
    "lookahead",
    "attention_window",
    "attention_decoder",
    "intermediate_ctc",
    "self_conditioning",  # starts at zero
    "pretrained",
    "finetune_from",
    "finetune_lr_factor",
    "cache_gb",
}


NETWORK = "features.network"  # the structure of a pretrained network

# Starts of the names of weights above the encoder, and of those copied in part.
NOT_BELOW = ("output.", "spelling.", "attention_decoder.", "conditioning.", "encoder.lookahead.")


class InitConfig(Config):
    """Initial weights: those of a model, or random ones."""

    model: Path | None = None
    """Folder of a model with the same features and layers; its tokens may differ. Or an encoder of
    asr pretrain."""
    preserve: bool = False
    """Lose nothing that the model can do: keep all of its tokens and add the characters that it
    lacks; measure it on dev before training, and return it unchanged unless training makes fewer
    errors there. The settings of tokens are not used then."""
    layers: int | None = Field(None, ge=1, le=32)
    """Number of the lowest recurrent layers that are taken from an encoder of asr pretrain, with
    all below them; the others are random. null: half of them, since the upper ones are made to
    predict the labels of pretraining."""
    freeze_layers: int = Field(0, ge=0, le=32)
    """Number of the lowest recurrent layers that stay fixed, with all layers below them."""
    lower_lr_factor: float = Field(1.0, gt=0, le=1)
    """Factor on the learning rate of all layers below the output."""
    interpolation: float = Field(0.0, ge=0, lt=1)
    """Weight of that model in the interpolation with the final one, unless it adds errors on dev
    (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", eq. 1)."""


def lower_half(layers: int) -> int:
    """The number of an encoder's recurrent layers that are taken by default."""
    return (layers + 1) // 2


def layers_taken(model: AcousticModel, init: InitConfig) -> int:
    """The number of recurrent layers whose weights come from `init.model`: of a recogniser all.

    Raises ConfigError if there are fewer, or if some of the others are to be fixed.
    """
    assert init.model is not None
    every = len(model.encoder.layers)
    if not is_encoder(init.model):
        if init.layers is not None and is_model(init.model):
            raise ConfigError(
                f"expected an encoder of asr pretrain with init.layers, got {init.model}, a "
                "recogniser, of which all layers are taken: leave init.layers out"
            )
        return every
    taken = init.layers or lower_half(every)
    for name, value, most in (
        ("layers", taken, every),
        ("freeze_layers", init.freeze_layers, taken),
    ):
        if value > most:
            raise ConfigError(f"expected init.{name} of at most {most}, got {value}: lower it")
    return taken


def initialise_from(
    model: AcousticModel, tokens: Tokens, folder: Path, layers: int | None = None
) -> str:
    """Copy the weights of the model in `folder` into `model`, and return a summary.

    Layers are copied unchanged, a lookahead convolution as far as both reach. The statistics of
    cmvn global and level are copied too, since the layers were trained on that scale and frozen
    ones cannot adapt. Of the output layers, the rows of shared tokens are copied; the others keep
    their random weights.

    A folder of `asr pretrain` has no output layers. Of its recurrent layers, the lowest `layers`
    are copied, or all.

    Raises CheckpointError for a bad folder, and ConfigError naming every setting that differs.
    """
    if is_encoder(folder):
        encoder, info = load_encoder(folder)
        every = len(model.encoder.layers)
        layers = layers or every
        _copy_below_output(model, encoder, folder, above(layers, every) if layers < every else ())
        return (
            f"started from {folder}: front end and {layers} of {every} recurrent layers, "
            f"pretrained on {info.get('hours', 'unknown')} hours without transcripts; "
            f"{'all above' if layers < every else 'the output layer'} is new"
        )
    other = load_bundle(folder)
    _copy_below_output(model, other.model, folder)
    ids = {unit: i for i, unit in enumerate(other.tokens.units)}
    here = [i for i, unit in enumerate(tokens.units) if unit in ids]
    there = [ids[tokens.units[i]] for i in here]
    for mine, theirs in (
        (model.output, other.model.output),
        (model.spelling, other.model.spelling),
        (model.attention_decoder, other.model.attention_decoder),
    ):
        if mine is not None and theirs is not None:
            _copy_rows(mine, theirs, here, there)
    if model.conditioning is not None and other.model.conditioning is not None:
        with torch.no_grad():
            weight = model.conditioning.weight
            weight[:, here] = other.model.conditioning.weight[:, there].to(weight.device)
    return f"started from {folder}: {len(here)} of {len(tokens)} tokens are its own"


def refuse_blend_with_encoder(init: InitConfig) -> None:
    """Raise ConfigError for an interpolation with an encoder, which never learnt to recognise."""
    if init.interpolation and init.model is not None and is_encoder(init.model):
        raise ConfigError(
            f"expected a recogniser with init.interpolation, got {init.model}, an encoder: set "
            "init.interpolation to 0"
        )


def preserved_tokens(folder: Path, texts: Iterable[str]) -> Tokens:
    """The tokens of the model in `folder`, and the characters of normalised transcripts that it
    lacks. Raises ConfigError for an encoder and for a model of phones."""
    if is_encoder(folder):
        raise ConfigError(
            f"expected a recogniser with init.preserve, got {folder}, an encoder, which writes "
            "nothing: set init.preserve to false"
        )
    given = load_bundle(folder)
    if given.text.phones is not None:
        raise ConfigError(
            f"expected a model that writes words with init.preserve, got {folder}, which writes "
            "phones: set init.preserve to false"
        )
    return given.tokens.extended(texts)


@torch.no_grad()
def _copy_rows(mine: nn.Module, theirs: nn.Module, here: list[int], there: list[int]) -> None:
    """Copy the weights of tokens, and of an attention decoder of the same size all others."""
    weights = theirs.state_dict()
    for name, own in mine.state_dict().items():
        given = weights[name].to(own.device)
        if name.startswith(("weight", "bias", "output.", "embedding.")):
            if own.shape[1:] == given.shape[1:]:
                own[here] = given[there]
        elif own.shape == given.shape:
            own.copy_(given)


def above(layers: int, every: int) -> tuple[str, ...]:
    """Starts of the names of weights above so many of `every` recurrent layer, and below the
    output.

    >>> above(1, 2)
    ('encoder.layers.1.', 'encoder.norms.1.', 'encoder.attention.', 'encoder.lookahead.')
    """
    parts = ("layers", "norms")
    later = (f"encoder.{part}.{i}." for part in parts for i in range(layers, every))
    return (*later, "encoder.attention.", "encoder.lookahead.")


def _copy_below_output(
    model: AcousticModel,
    other: AcousticModel | SpeechEncoder,
    folder: Path,
    but: tuple[str, ...] = (),
) -> None:
    """Copy all below the output, but not weights whose names begin with one of `but`. Raises
    ConfigError naming every setting that differs."""
    own_settings = _settings(model)
    differing = {
        _wanted(key, value): _shown(key, own_settings[key])
        for key, value in _settings(other).items()
        if own_settings[key] != value and (key != NETWORK or value)
    }
    if (layers := _conditioned(other)) and layers != _conditioned(model):
        wanted = f"model.self_conditioning=true and model.intermediate_ctc={list(layers)}"
        differing[wanted] = "others"
    if differing:
        raise ConfigError(
            f"expected {', '.join(differing)} as in {folder}, got {', '.join(differing.values())}: "
            "set what differs"
        )
    own, weights = model.state_dict(), other.state_dict()
    copied = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and not name.startswith(NOT_BELOW + but)
    }
    model.load_state_dict(copied, strict=False)
    if not but:
        _copy_lookahead(model, other)


def _wanted(key: str, value: Any) -> str:
    """The setting that is needed; the structure of a pretrained network is none."""
    if key == NETWORK:
        return f"features.pretrained with a network of {value['kind']}"
    return f"{key}={_shown(key, value)}"


def _shown(key: str, value: Any) -> str:
    if key == NETWORK:
        return "another network" if value else "no network"
    return json.dumps(value)


def _conditioned(model: AcousticModel | SpeechEncoder) -> tuple[int, ...]:
    """The layers whose output depends on weights of self-conditioning; an encoder has none."""
    conditions = isinstance(model, AcousticModel) and model.config.self_conditioning
    return model.config.intermediate_ctc if conditions else ()


def _settings(model: AcousticModel | SpeechEncoder) -> dict[str, object]:
    """By key, the settings that determine the meaning of the weights. Of a pretrained network that
    is its structure."""
    sections = {"features": model.features.config, "model": model.config}
    origin = {"features": {"network": {"name", "sha256"}}, "model": {}}
    return {
        f"{section}.{key}": value
        for section, config in sections.items()
        for key, value in config.model_dump(mode="json", exclude=origin[section]).items()
        if key not in FREE
    }


def interpolate(model: AcousticModel, tokens: Tokens, folder: Path, share: float) -> None:
    """Move all weights by `share` of the way back to those of the model in `folder`; those of
    tokens that it lacks stay. Raises like `initialise_from`."""
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    initialise_from(model, tokens, folder)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.lerp(trained[name], tensor, share))
        else:
            tensor.copy_(trained[name])


def _copy_lookahead(model: AcousticModel, other: AcousticModel | SpeechEncoder) -> None:
    """Copy the weights of future frames that both use; those further ahead start at zero."""
    mine, theirs = model.encoder.lookahead, other.encoder.lookahead
    if mine is not None and theirs is not None:
        rows = min(len(mine.weight), len(theirs.weight))
        with torch.no_grad():
            mine.weight[:rows] = theirs.weight[:rows].to(mine.weight.device)


def rate_factors(init: InitConfig, features: FeatureConfig) -> dict[str, float]:
    """Factors on the learning rate by the start of a parameter's name."""
    network = init.lower_lr_factor * features.finetune_lr_factor
    return {
        "": init.lower_lr_factor,
        "output.": 1.0,
        "spelling.": 1.0,
        "attention_decoder.": 1.0,
        "conditioning.": 1.0,
        "features.pretrained.network.": network,
    }


def freeze(model: AcousticModel, layers: int) -> list[nn.Module]:
    """Fix the lowest recurrent layers, and all below them; returns the modules, which must stay in
    evaluation mode to keep their statistics.

    Raises ConfigError if there are fewer layers.
    """
    if not layers:
        return []
    encoder, pretrained = model.encoder, model.features.pretrained
    if layers > len(encoder.layers):
        raise ConfigError(
            f"expected init.freeze_layers of at most {len(encoder.layers)}, got {layers}: lower it"
        )
    below = [pretrained, encoder.front_end, encoder.conv_lstm, encoder.dense]
    frozen: list[nn.Module] = [module for module in below if module is not None]
    frozen += [*encoder.norms[:layers], *encoder.layers[:layers]]
    for module in frozen:
        module.requires_grad_(False)
    return frozen
