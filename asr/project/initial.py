"""What `asr new --from` takes from a model or encoder, and the recipe of training it further."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asr.config import Config
from asr.dataset.manifest import Utterance
from asr.dataset.splits import total_seconds
from asr.errors import ConfigError
from asr.features.extractor import FeatureConfig
from asr.inference.transcribe import trained_model
from asr.io.printable import printable_json
from asr.models.bundle import load_bundle
from asr.models.config import ModelConfig
from asr.models.encoder_folder import load_encoder
from asr.models.files import is_encoder
from asr.project.defaults import TEXT, Proposal, Texts, propose, recipe_text, tokens_text
from asr.text.normalise import TextConfig
from asr.training.finetune import InitConfig, lower_half
from asr.training.recipe import refuse_obstacles

TOKENS = "# The tokens are those of the model, and the characters of train.jsonl that it lacks.\n"
KEPT = " If no epoch has fewer errors on dev, the result is the model itself."
EPOCHS = ((1, 12), (10, 8))  # below so many hours of training from a recogniser
INCLUDED = "default"  # names the model of the package


@dataclass(frozen=True)
class Initial:
    """A model to start from. An encoder of asr pretrain writes nothing: `text` is None."""

    folder: Path
    features: FeatureConfig
    model: ModelConfig
    text: TextConfig | None = None
    characters: frozenset[str] = frozenset()
    """What it can write."""


def read_initial(name: str) -> Initial:
    """The model or encoder in the folder `name`, or that of the package for `default`.

    Raises CheckpointError for a bad folder, and ConfigError for a model that cannot be trained
    further by settings alone.
    """
    folder = (trained_model() if name == INCLUDED else Path(name)).resolve()
    if is_encoder(folder):
        encoder, _ = load_encoder(folder)
        found = Initial(folder, encoder.features.config, encoder.config)
    else:
        bundle = load_bundle(folder)
        if bundle.text.phones is not None:
            raise ConfigError(
                f"expected a model that writes words, got {folder}, which writes phones: start "
                "without --from"
            )
        characters = frozenset("".join(bundle.tokens.units[1:]))
        config = bundle.model.features.config
        found = Initial(folder, config, bundle.model.config, bundle.text, characters)
    try:
        refuse_obstacles(found.features, found.model)
    except ValueError as error:
        raise ConfigError(f"{folder}: {error}: pretrain with other settings") from None
    if found.features.kind == "pretrained":
        raise ConfigError(
            f"expected a model with a filterbank, got {folder}, whose features are those of a "
            "pretrained network: train from it with init.model in a recipe (docs/pretrained.md)"
        )
    return found


def proposed_recipe(
    source: str, train: Sequence[Utterance], texts: Texts, initial: Initial | None
) -> tuple[str, Proposal]:
    """The recipe for a training set, from random weights or from an initial model."""
    hours = total_seconds(train) / 3600
    proposal = propose(train, texts)
    if initial is None:
        return recipe_text(source, hours, proposal), proposal
    proposal, init = propose_from(proposal, hours, initial)
    network = network_section(proposal, initial, init)
    return recipe_text(source, hours, proposal, text_section(initial), network), proposal


def propose_from(proposal: Proposal, hours: float, initial: Initial) -> tuple[Proposal, InitConfig]:
    """The proposal for training from random weights, changed for `hours` of training from a model,
    and how much of the model is trained. An encoder is trained as long as random weights.

    On FSDD, of which the model of the package knows no recording, fixed layers made more errors on
    dev at every rate (docs/your-own-data.md). What holds for more than an hour is not measured.
    """
    network = initial.model
    same = replace(proposal, hidden=network.hidden, layers=network.layers)
    if initial.text is None:
        return same, InitConfig(model=initial.folder)
    epochs = next((count for limit, count in EPOCHS if hours < limit), proposal.epochs // 5)
    rate = proposal.learning_rate / 2
    dropout = min(proposal.dropout, 0.2)
    shorter = replace(same, epochs=epochs, learning_rate=rate, cr_ctc_weight=0.0, dropout=dropout)
    return shorter, InitConfig(model=initial.folder, preserve=True)


def text_section(initial: Initial) -> str:
    """The text settings of the recipe, which are those of the model."""
    if initial.text is None:
        return TEXT
    config = initial.text.model_dump(exclude={"phones"})
    return f"text:                       # as the model writes\n{_lines(config)}\n"


def network_section(proposal: Proposal, initial: Initial, init: InitConfig) -> str:
    """Features, network and initial weights of the recipe; for an encoder also the tokens."""
    features = _changed(initial.features, FeatureConfig())
    model = _changed(initial.model, ModelConfig()) | {"dropout": proposal.dropout}
    own = f"features:\n{_lines(features)}\n\n" if features else ""
    half = lower_half(initial.model.layers)
    taken = (
        f"  layers: {half:<18}# number of the lowest layers that are taken; the others are new\n"
    )
    return f"""\
{tokens_text(proposal) if initial.text is None else TOKENS}
# Features and network are those of the model.
{own}model:
{_lines(model)}

# Training starts from this model.{KEPT if init.preserve else ""}
init:
  model: {printable_json(str(init.model))}
  preserve: {json.dumps(init.preserve)}
{taken if initial.text is None else ""}\
  freeze_layers: {init.freeze_layers:<11}# number of the lowest layers that stay fixed
  lower_lr_factor: {init.lower_lr_factor:<9}# factor on the learning rate below the output
"""


def _changed(config: Config, default: Config) -> dict[str, Any]:
    """The settings that differ from the default."""
    usual = default.model_dump(mode="json")
    values = config.model_dump(mode="json", exclude_none=True)
    return {key: value for key, value in values.items() if value != usual[key]}


def _lines(values: Mapping[str, Any]) -> str:
    return "\n".join(f"  {key}: {printable_json(value)}" for key, value in values.items())
