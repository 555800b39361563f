"""The training run of an acoustic model: shared state, and its files on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from asr.augment.noise import Sounds
from asr.dataset.cuts import Corpus
from asr.dataset.remote import RemoteShards
from asr.dataset.speech_dataset import SpeechDataset
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.shares import Exchange
from asr.training import distributed, loop
from asr.training.checkpoint import Progress, best_epochs, epoch_path
from asr.training.display import Display
from asr.training.entropy_weight import EntropyWeight
from asr.training.gradients import SummedGradients
from asr.training.loop import Loop
from asr.training.recipe import Recipe
from asr.training.step import Replay


@dataclass
class Run:
    """Shared state of the steps of one training run."""

    recipe: Recipe
    bundle: Bundle
    train: SpeechDataset
    dev: SpeechDataset
    corpus: Corpus
    """Plan data of the training set; word starts are set when splicing begins."""
    shards: RemoteShards | None
    sounds: Sounds
    frozen: list[nn.Module]
    loop: Loop
    dev_share: SpeechDataset
    """The part of dev that this process recognises."""
    gradients: SummedGradients | None = None
    """Those of several processes."""
    exchanges: list[Exchange] = field(default_factory=list)
    """Of a step, with train.batch_seconds auto in several processes."""
    entropy: EntropyWeight | None = None
    """The adapted weight of entropy, with train.entropy_target."""
    replay: Replay | None = None
    """How steps are replayed on a GPU, with train.cuda_graphs."""
    needed: set[Path] = field(default_factory=set)
    """Files and folders to which the newest checkpoint on disk refers."""
    fill_share: float = 0.0
    """Share of the batches of the current epoch that is not padding."""

    @property
    def model(self) -> AcousticModel:
        return self.bundle.model

    @property
    def progress(self) -> Progress:
        return self.loop.progress

    @property
    def display(self) -> Display:
        return self.loop.place.display

    @property
    def epochs(self) -> Path:
        """Folder of the weights of the best epochs."""
        return self.recipe.out / "epochs"


def save(run: Run) -> None:
    """Write a checkpoint, and remove files that neither it nor the previous one needs."""
    if not distributed.is_first():
        return
    if run.entropy is not None:
        run.progress.entropy_weight = float(run.entropy.weight)
    loop.save(run.loop)
    needed = needed_files(run)
    _remove_all_but(run, needed | run.needed)
    run.needed = needed


def needed_files(run: Run) -> set[Path]:
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
