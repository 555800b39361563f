"""Pretrained networks in training: found, loaded, kept fixed or fine-tuned, and their states
cached."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asr.errors import AsrError, ConfigError, TrainingError
from asr.features.extractor import FeatureConfig
from asr.features.pretrained_files import load_network, read_network
from asr.features.state_cache import StateCache, weights_digest
from asr.io.caches import private_folder
from asr.models.acoustic import AcousticModel
from asr.sharing.hub import is_repository, pull_pretrained
from asr.training import distributed
from asr.training.recipe import Recipe

FLOAT_BYTES = 4


def with_network(recipe: Recipe) -> tuple[Recipe, Path | None]:
    """The recipe with the structure of its pretrained network, and the folder of the network; it is
    fetched if necessary. A recipe without one is returned as it is.

    Raises AsrError for a network that is not there or not supported, and for one of another rate.
    """
    features = recipe.features
    if features.kind != "pretrained":
        return recipe, None
    if distributed.is_joined():
        raise TrainingError(
            "expected one process with features.kind pretrained, got several: start one"
        )
    given = features.pretrained
    folder = Path(given)
    name = given
    if folder.is_dir():
        name = folder.resolve().name  # of paths only the end, since models are published
    elif is_repository(given.partition("@")[0]):
        try:
            folder = pull_pretrained(given)
        except AsrError as error:
            raise AsrError(f"no folder {given[:200]} is here, and {error}") from None
    else:
        raise ConfigError(
            "expected a folder or NAME/MODEL of the hub in features.pretrained, got "
            f"{given[:200]}, which is neither: check the path"
        )
    network = read_network(folder, name)
    if network.sample_rate != features.sample_rate:
        raise ConfigError(
            f"expected features.sample_rate {network.sample_rate}, the rate of {given[:200]}, got "
            f"{features.sample_rate}: set it; recordings of other rates are resampled"
        )
    known = features.model_copy(update={"network": network})
    return recipe.model_copy(update={"features": known}), folder


def load(model: AcousticModel, recipe: Recipe, folder: Path | None) -> None:
    """Load the network of `folder` into a new model, and fix what is not to be trained. Checkpoints
    hold the network only if it is trained, or init.model brings another.

    Raises CheckpointError for weights that do not fit.
    """
    pretrained = model.features.pretrained
    if pretrained is not None and folder is not None:
        load_network(pretrained.network, folder)
        fine_tuned = recipe.features.finetune_from is not None
        pretrained.freeze(fine_tuned)
        pretrained.stored_elsewhere = not fine_tuned and recipe.init.model is None


def complete(model: AcousticModel) -> None:
    """Save the model with its network from now on."""
    if model.features.pretrained is not None:
        model.features.pretrained.stored_elsewhere = False


def begin_epoch(
    model: AcousticModel, features: FeatureConfig, done: float, say: Callable[[str], None]
) -> None:
    """Begin or continue fine-tuning when a share `done` of the training is over."""
    pretrained = model.features.pretrained
    if pretrained is None or features.finetune_from is None:
        return
    begins = done >= features.finetune_from
    if begins and not pretrained.fine_tunes:
        say(f"fine-tuning the network of {features.pretrained} from here on")
    pretrained.fine_tunes = begins
    if begins:
        pretrained.cache = None


def use_cache(
    model: AcousticModel, recipe: Recipe, seconds: float, say: Callable[[str], None]
) -> None:
    """Keep the hidden states of a fixed network on disk: those of dev, and those of the training
    set (`seconds` long in all, with dev) if its recordings stay as they are."""
    pretrained, features = model.features.pretrained, recipe.features
    if pretrained is None or pretrained.fine_tunes or not features.cache_gb:
        return
    folder = private_folder()
    if folder is None:
        say("no cache of hidden states: no folder of this user is writable")
        return
    place = folder / "hidden-states"
    network = pretrained.description
    # The weights, not their file: those of init.model or a checkpoint may differ from it.
    weights = weights_digest(pretrained.network)
    key = f"{weights} {network.model_dump_json(exclude={'name', 'sha256'})}"
    pretrained.cache = StateCache(place, key, round(features.cache_gb * 1e9))
    level = features.follows_level
    pretrained.cache_in_training = not recipe.augment.changes_waveforms(level)
    if pretrained.cache_in_training:
        frames = seconds * network.sample_rate / network.shift
        size = frames * (network.layers + 1) * network.size * FLOAT_BYTES / 1e9
        say(
            f"hidden states of {seconds / 3600:.2f} hours take {size:.1f} GB; at most "
            f"{features.cache_gb:g} GB (features.cache_gb) are kept in {place}"
        )
    else:
        say(
            "hidden states of the training set are computed in every epoch, because augment "
            "changes its recordings (docs/pretrained.md)"
        )
