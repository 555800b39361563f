"""Checkpoints of a run: all state that determines its continuation, written atomically.

A checkpoint is a folder: `model`, `best`, `optimizer` and `random` as safetensors, `state.json` and
`digests.json` with the SHA-256 of each file. The previous checkpoint is kept beside it, and used if
the newest is damaged. `best` holds the weights of the best epoch, or their moving average. Batches
are not saved: they are a function of the recipe and of `Progress`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr.errors import CheckpointError, reason
from asr.io.files import atomic_path, digest, read_json, write_json
from asr.io.tensors import read_tensors, write_tensors
from asr.models.bundle import Bundle, save_bundle
from asr.models.weights import load_weights, save_weights
from asr.training.health import Health

DIGESTS = "digests.json"
TENSORS = ("model", "best", "optimizer", "random")
REQUIRED = {"state.json", *(f"{name}.safetensors" for name in TENSORS)}


@dataclass
class Progress:
    """The position of a run: `batch` batches of `epoch` are done; the sums are of those."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_units: int = 0
    seconds: float = 0.0
    """Time spent in this epoch, over all its sessions."""
    total_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch: loss, dev error rate, learning rate, seconds."""
    health: Health = field(default_factory=Health)
    identity: dict[str, Any] = field(default_factory=dict)
    """Settings and data of the run's start; it resumes only with the same ones."""
    precision: str = ""
    """Precision of the last session: no (float32), bf16 or fp16."""
    entropy_weight: float = 0.0
    """Present weight of the entropy of alignments (train.entropy_target)."""
    word_starts: str = ""
    """Name and SHA-256 of the file of word starts for this epoch, or empty."""
    batch_seconds: float = 0.0
    """Size of the batches at the start of this epoch; 0 before it is known."""
    halved_at: list[int] = field(default_factory=list)
    """The batches of this epoch from which on the size was halved, for lack of memory."""
    initial_errors: int | None = None
    """Errors on dev of the initial model, with init.preserve."""

    @property
    def mean_loss(self) -> float:
        return self.loss_sum / max(1, self.loss_units)


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scale: dict[str, Any],
    progress: Progress,
    kept: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint; the one in `folder` is kept as the previous one.

    `scale` is the state of fp16 loss scaling, or empty; `kept` are further weights, of the best
    epoch or a moving average.
    """
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    with atomic_path(folder, before=before(folder)) as temporary:
        temporary.mkdir()
        save_weights(temporary / "model.safetensors", model)
        write_tensors(kept or {}, temporary / "best.safetensors")
        write_tensors(random, temporary / "random.safetensors")
        write_tensors(_flatten(optimizer), temporary / "optimizer.safetensors")
        state = {"progress": dataclasses.asdict(progress), "scale": scale}
        write_json(temporary / "state.json", state)
        files = sorted(temporary.iterdir())
        write_json(temporary / DIGESTS, {path.name: digest(path) for path in files})


def before(folder: Path) -> Path:
    """The folder of the previous checkpoint."""
    return folder.with_name(f"{folder.name}-before")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has reached a checkpoint."""
    return folder.is_dir() or before(folder).is_dir()


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: Mapping[str, Any],
    say: Callable[[str], None],
) -> tuple[Progress, dict[str, Any], dict[str, Tensor]]:
    """Restore weights, optimizer and random state in place; return progress, loss-scaling state and
    the further weights.

    If the newest checkpoint is damaged, the previous one is used: this is reported with `say`, and
    the damaged one is moved aside.

    Raises CheckpointError if both are damaged, or if the run began with another `identity` or
    model.
    """
    try:
        verify_checkpoint(folder)
    except CheckpointError as damage:
        try:
            verify_checkpoint(before(folder))
        except CheckpointError:
            raise CheckpointError(
                f"{damage}, and the previous one is not usable: remove {folder} to train "
                "from the start"
            ) from None
        _set_aside(folder)
        progress, _ = _read_state(folder / "state.json")
        say(f"{damage}: resumed from the previous checkpoint, of step {progress.step}")
    return _load(folder, model, optimizer, identity)


def verify_checkpoint(folder: Path) -> None:
    """Raise CheckpointError naming the first file that differs from its digest."""
    path = folder / DIGESTS
    digests = None
    with contextlib.suppress(OSError, ValueError):
        digests = read_json(path)
    if not isinstance(digests, dict) or not digests.keys() >= REQUIRED:
        what = "something else" if path.is_file() else "no such file"
        raise CheckpointError(f"expected the digests of a checkpoint, got {what} at {path}")
    for name, expected in digests.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"expected {file}, got no such file")
        try:
            same = digest(file) == expected
        except OSError as error:  # a bad sector, or a lost network drive
            raise CheckpointError(f"expected {file}, got {reason(error)}") from None
        if not same:
            raise CheckpointError(f"expected {file} as it was saved, got other content")


def _set_aside(folder: Path) -> None:
    """Put the previous checkpoint in place of a damaged one, which is kept for inspection."""
    damaged = folder.with_name(f"{folder.name}-damaged")
    if folder.exists():
        if damaged.exists():
            shutil.rmtree(damaged)
        folder.rename(damaged)
    before(folder).rename(folder)


def _load(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: Mapping[str, Any]
) -> tuple[Progress, dict[str, Any], dict[str, Tensor]]:
    progress, scale = _read_state(folder / "state.json")
    _check_identity(progress.identity, identity, folder)
    # Copies, since a file that is still mapped cannot be removed on some network drives.
    weights, kept, moments, random = (
        {name: tensor.clone() for name, tensor in read_tensors(path).items()}
        for path in (folder / f"{name}.safetensors" for name in TENSORS)
    )
    load_weights(model, weights, folder)
    _unflatten(optimizer, moments, folder)
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])
    return progress, scale, kept


def _read_state(path: Path) -> tuple[Progress, dict[str, Any]]:
    try:
        state = read_json(path)
        values = dict(state["progress"])
        values["health"] = Health(**values["health"])
        return Progress(**values), state["scale"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"expected a checkpoint, got {path}: {error!r}; remove the folder"
        ) from None


# Digests in an identity, and what they are of.
DATA_KEYS = {
    "data": "data",
    "data.train": "training data (data.train, data.labels, data.label_weight)",
    "data.dev": "dev set (data.dev)",
    "tokens.units": "tokens",
    "init.weights": "weights of the initial model (init.model)",
}


def _check_identity(began: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Settings come first, since another setting may be why the data differ."""
    keys = sorted(began.keys() | now.keys(), key=lambda key: (key in DATA_KEYS, key))
    key = next((key for key in keys if not _equal(key, began.get(key), now.get(key))), None)
    if key is None:
        return
    value = f"{key}={began[key]}" if key in began else f"no {key}"
    got = now.get(key, "none")
    if key in DATA_KEYS:
        value, got = f"the {DATA_KEYS[key]}", "others"
    raise CheckpointError(
        f"expected {value}, with which the run in {folder.parent} began, got {got}: choose another "
        "out, or remove that folder"
    )


def _equal(key: str, one: Any, other: Any) -> bool:
    """Whether two values of a setting are equal; a path may be written in different ways."""
    if key == "init.weights" and None in (one, other):  # gone, or of an earlier version
        return True
    if key == "init.model" and None not in (one, other):
        return os.path.realpath(one) == os.path.realpath(other)
    return bool(one == other)


def copied_optimizer(
    optimizer: torch.optim.Optimizer,
    copy: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> None:
    """Replace the state of an optimizer by what `copy` makes of it."""
    _unflatten(optimizer, copy(_flatten(optimizer)), Path())


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, entry in state.items()
        for name, value in entry.items()
    }


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], folder: Path) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    try:
        for key, value in tensors.items():
            index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        expected = {i: p.shape for i, p in enumerate(_parameters(optimizer))}
        found = {i: entry["exp_avg"].shape for i, entry in state.items()}
        # A pretrained network has no moments before its fine-tuning begins.
        if not found.items() <= expected.items():
            raise ValueError(f"{len(expected)} parameters, got {len(found)} or other shapes")
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"expected this model's optimizer in {folder}, got another: {error}"
        ) from None


def epoch_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:04d}"


def best_epochs(history: Sequence[dict[str, Any]], count: int) -> list[int]:
    """The `count` epochs with the fewest dev errors; the later one wins a tie."""
    ranked = sorted(history, key=lambda row: (row["dev_errors"], -row["epoch"]))
    return [row["epoch"] for row in ranked[:count]]


def save_epoch(folder: Path, epoch: int, bundle: Bundle) -> str:
    """Save the weights of an epoch; return their SHA-256."""
    path = epoch_path(folder, epoch)
    save_bundle(path, bundle)
    return digest(path / "model.safetensors")


def is_intact(folder: Path, row: Mapping[str, Any]) -> bool:
    """Whether the saved weights of an epoch, by its row of the history, are intact."""
    try:
        found = digest(epoch_path(folder, row["epoch"]) / "model.safetensors")
    except OSError:
        return False
    return found == row.get("weights_sha256")


def average_weights(folders: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the models in `folders`; counters are those of the first."""
    loaded = [read_tensors(folder / "model.safetensors") for folder in folders]
    mean = dict(loaded[0])
    for name, first in loaded[0].items():
        if first.is_floating_point():
            total = torch.stack([weights[name].double() for weights in loaded]).mean(dim=0)
            mean[name] = total.to(first.dtype)
    return mean
