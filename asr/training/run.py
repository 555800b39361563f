"""A training run: what its steps share, and what of it is kept on disk."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from asr.augment.noise import Sounds
from asr.dataset.cuts import Corpus
from asr.dataset.remote import Supply
from asr.dataset.speech_dataset import SpeechDataset
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.training.checkpoint import (
    Progress,
    best_epochs,
    epoch_path,
    load_checkpoint,
    save_checkpoint,
)
from asr.training.display import Display
from asr.training.interrupt import PIPE, StopRequest
from asr.training.recipe import Recipe


@dataclass
class Run:
    """What the steps of one training run share."""

    recipe: Recipe
    bundle: Bundle
    train: SpeechDataset
    dev: SpeechDataset
    corpus: Corpus
    """Of the training set; its words are known once splicing has begun."""
    shards: Supply | None
    sounds: Sounds
    frozen: list[nn.Module]
    accelerator: Accelerator
    optimizer: Any
    progress: Progress
    display: Display
    stop: StopRequest
    saved: float = field(default_factory=time.monotonic)
    """When the last checkpoint was written, or the run began."""
    needed: set[Path] = field(default_factory=set)
    """Files and folders that the newest checkpoint on disk refers to."""

    @property
    def stop_signal(self) -> int | None:
        """The signal for which to save and end, if any; `PIPE` where nobody reads the output."""
        return PIPE if self.display.closed else self.stop.signal

    @property
    def model(self) -> AcousticModel:
        return self.bundle.model

    @property
    def checkpoint(self) -> Path:
        """Folder of the newest checkpoint."""
        return checkpoint_folder(self.recipe)

    @property
    def epochs(self) -> Path:
        """Folder of the weights of the best epochs."""
        return self.recipe.out / "epochs"


def checkpoint_folder(recipe: Recipe) -> Path:
    return recipe.out / "checkpoint"


def save(run: Run) -> None:
    """Write a checkpoint, and remove what neither it nor the one before refers to."""
    scaler = run.accelerator.scaler
    scale = scaler.state_dict() if scaler is not None else {}
    save_checkpoint(run.checkpoint, run.bundle, run.optimizer.optimizer, scale, run.progress)
    needed = _needed(run)
    _remove_all_but(run, needed | run.needed)
    run.needed = needed
    run.saved = time.monotonic()


def resume(run: Run) -> None:
    """Take up the weights, the optimizer and the progress of the last whole checkpoint."""
    precision = run.progress.precision
    run.progress, scale = load_checkpoint(
        run.checkpoint, run.bundle, run.optimizer, run.progress.identity, run.display.say
    )
    if run.accelerator.scaler is not None and scale:
        run.accelerator.scaler.load_state_dict(scale)
    run.needed = _needed(run)
    if run.progress.precision != precision:
        run.display.say(
            f"resumed in {precision}, which was {run.progress.precision} before (no is float32): "
            "the result differs from that of one machine"
        )
        run.progress.precision = precision


def _needed(run: Run) -> set[Path]:
    best = best_epochs(run.progress.history, run.recipe.train.average)
    needed = {epoch_path(run.epochs, epoch) for epoch in best}
    if run.progress.word_starts:
        needed.add(run.recipe.out / run.progress.word_starts.split()[0])
    return needed


def _remove_all_but(run: Run, needed: set[Path]) -> None:
    for path in run.epochs.glob("epoch-*"):
        if path not in needed:
            shutil.rmtree(path)
    for path in run.recipe.out.glob("word_starts-*.json"):
        if path not in needed:
            path.unlink()
