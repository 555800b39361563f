"""The training loop of acoustic models, pretrained encoders, language models and classifiers.

An epoch is a list of batches, and a batch is a step: set the learning rate, compute the loss and
its gradient, clip it, step the optimizer. After each step, the loop shows its progress, answers a
stop request and saves if it is due; after each epoch, it validates and adds a row to the history.
The differences between kinds of training are in a `Task`: functions that the loop calls.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from asr.errors import AsrError, TrainingError, lacks_memory
from asr.training import distributed
from asr.training.checkpoint import (
    Progress,
    copied_optimizer,
    load_checkpoint,
    save_checkpoint,
)
from asr.training.deferred import DeferredValues, Update, finish_step, restore
from asr.training.device import build_accelerator, fits_or_raise, shown_precision
from asr.training.interrupt import InterruptedTraining
from asr.training.optimizer import OptimizationConfig, build_optimizer, learning_rate, set_rate
from asr.training.place import Place

B = TypeVar("B")


@dataclass(frozen=True)
class Loss:
    """The objective of a step, and `items`: losses summed over the `units` beside them, which are
    target tokens, masked frames or sequences.

    Shape: objective [], items [N] in nats, infinite if a target does not fit, units [N].
    """

    objective: Tensor
    items: Tensor
    units: Tensor


@dataclass
class Loop:
    """The state of a training of any kind."""

    model: nn.Module
    config: OptimizationConfig
    accelerator: Accelerator
    optimizer: Any
    progress: Progress
    place: Place
    save_seconds: float = 60.0
    audio_seconds: float = 0.0
    """Seconds of audio in an epoch, for the pace; 0 without audio."""
    saved: float = field(default_factory=time.monotonic)
    """Time of the last checkpoint, or of the start of training."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Further weights for checkpoints: of the best epoch, or the moving average."""
    deferred: DeferredValues = field(default_factory=DeferredValues)
    """Results of steps that are still on the GPU."""
    update: Update = finish_step
    """What ends a step."""

    @property
    def hours_per_hour(self) -> float:
        """Hours of audio processed in an hour, at the pace of a whole epoch."""
        return self.audio_seconds / max(self.progress.seconds, 1e-9)

    def keep_best(self, is_best: bool) -> bool:
        """Record the weights of an epoch that is better than all previous ones."""
        if is_best:
            self.kept = {name: value.clone() for name, value in self.model.state_dict().items()}
        return is_best


def save(loop: Loop) -> None:
    """Write a checkpoint into the training's folder, if it has one."""
    if loop.place.folder is not None:
        scaler, folder = loop.accelerator.scaler, loop.place.checkpoint
        scale = scaler.state_dict() if scaler is not None else {}
        optimizer = loop.optimizer.optimizer
        save_checkpoint(folder, loop.model, optimizer, scale, loop.progress, loop.kept)


def refuse_bad_step(loop: Loop, _batch: object, loss: Loss) -> None:
    """Raise TrainingError if the loss, or a gradient so far, is not finite; on a GPU some steps
    later, but before anything is saved."""

    def refuse(objective: Tensor) -> None:
        value = objective.item()
        # Under fp16, the scaler skips overflowing steps and adapts.
        skipped = loop.accelerator.scaler is None and loop.progress.health.skipped_steps
        if skipped or not math.isfinite(value):
            raise TrainingError(
                f"expected a finite loss and gradient, got a loss of {value} in epoch "
                f"{loop.progress.epoch + 1}: lower the learning rate (learning_rate), or look for "
                "broken inputs"
            )

    loop.deferred.add(refuse, loss.objective)


@dataclass(frozen=True)
class Task(Generic[B]):
    """The functions of one kind of training for the loop. A test observes or disturbs a training by
    replacing some of them (`hook` of each kind's `train` function)."""

    batches: Callable[[], tuple[int, AbstractContextManager[Iterable[B]]]]
    """Number of batches in the current epoch, and the remaining ones, in training mode."""
    loss: Callable[[B], Loss]
    validate: Callable[[], tuple[dict[str, Any], str]]
    """Values for the row of the epoch, and the text to display."""
    keep: Callable[[dict[str, Any]], object]
    """Called with the row of an ended epoch: keeps its weights if it is among the best."""
    size: Callable[[B], str]
    """The size of a batch in words, and the setting that makes it smaller."""
    save: Callable[[Loop], None] = save
    """Write a checkpoint."""
    stepped: Callable[[Loop, B, Loss], None] = refuse_bad_step
    """Called after each step."""
    ends_early: Callable[[], bool] = lambda: False
    """Whether training ends before its last epoch."""
    finish: Callable[[], None] = lambda: None
    """Called after the gradient has been computed."""
    fits: Callable[[B, str], bool] = fits_or_raise
    """Whether the step had enough memory. The text describes what ran out of memory, or is empty.
    If False, later batches are smaller."""


Hook = Callable[[Task[Any]], Task[Any]]


def begin(
    model: nn.Module,
    config: OptimizationConfig,
    place: Place,
    identity: dict[str, Any],
    precision: str = "no",
    factors: Mapping[str, float] | None = None,
) -> Loop:
    """A new training, or one that continues an earlier one with the same `identity`; `factors` as
    in `build_optimizer`."""
    accelerator = build_accelerator(precision, place.display.say)
    model.to(accelerator.device)
    optimizer = accelerator.prepare(build_optimizer(model, config, factors))
    progress = Progress(identity=identity, precision=accelerator.mixed_precision)
    loop = Loop(model, config, accelerator, optimizer, progress, place)
    if place.is_begun:
        _resume(loop)
    return loop


def _resume(loop: Loop) -> None:
    before, scaler, say = loop.progress, loop.accelerator.scaler, loop.place.display.say
    scale: dict[str, Any] = {}
    if distributed.is_first():
        loop.progress, scale, loop.kept = load_checkpoint(
            loop.place.checkpoint, loop.model, loop.optimizer, before.identity, say
        )
    loop.progress, scale = distributed.broadcast((loop.progress, scale))
    if distributed.is_joined():
        copied_optimizer(loop.optimizer, distributed.broadcast)
    if scaler is not None and scale:
        scaler.load_state_dict(scale)
    if loop.progress.precision != before.precision:
        say(
            f"resumed in {shown_precision(before.precision)}, which was "
            f"{shown_precision(loop.progress.precision)} before: the result differs from that of "
            "one machine"
        )
        loop.progress.precision = before.precision


def run_epochs(loop: Loop, task: Task[B]) -> None:
    """Run the remaining epochs. Raises InterruptedTraining, after saving, on a stop signal."""
    display, progress = loop.place.display, loop.progress
    if progress.step and _is_finished(loop, task):
        display.say(f"already trained for {progress.epoch} epochs in {loop.place.folder}")
    elif progress.step:
        display.say(f"resumed at epoch {progress.epoch + 1}, step {progress.step}")
    while not _is_finished(loop, task):
        try:
            if _run_epoch(loop, task):
                _finish_epoch(loop, task)
        except InterruptedTraining:
            _save(loop, task)
            distributed.barrier()  # a launcher may end all when the first process has ended
            raise
        except (AsrError, MemoryError, RuntimeError) as error:
            # Batches that cannot be read or fetched, or another process that is lost.
            unread = isinstance(error, AsrError) and not isinstance(error, TrainingError)
            if unread or distributed.is_lost(error):
                _save(loop, task)
            # Not in a forward or backward pass, which may be halved, or has its own message.
            if not isinstance(error, AsrError) and lacks_memory(error):
                raise TrainingError(
                    f"expected room in memory for batches, the optimizer and dev, got none left "
                    f"({error}): make batches smaller; the last checkpoint is kept"
                ) from None
            raise
        # On a GPU, an epoch can be shorter than writing a checkpoint.
        _save_if(loop, task, _is_finished(loop, task))
    display.complete()


def _is_finished(loop: Loop, task: Task[B]) -> bool:
    return loop.progress.epoch >= loop.config.epochs or task.ends_early()


def _save_if(loop: Loop, task: Task[B], due: bool = False) -> None:
    if due or time.monotonic() - loop.saved >= loop.save_seconds:
        _save(loop, task)
        loop.saved = time.monotonic()


def _save(loop: Loop, task: Task[B]) -> None:
    loop.deferred.read()
    task.save(loop)


def _run_epoch(loop: Loop, task: Task[B]) -> bool:
    """Run the rest of the epoch, saving at intervals. False: up to a batch that did not fit."""
    progress, config = loop.progress, loop.config
    loop.model.train()
    count, left = task.batches()
    before = time.monotonic()
    with left as batches:
        for batch in batches:
            done = (progress.epoch + progress.batch / count) / config.epochs
            set_rate(loop.optimizer, learning_rate(done, config))
            if (loss := _step(loop, task, batch)) is None:
                return False
            progress.batch += 1
            progress.step += 1
            progress.seconds += time.monotonic() - before
            before = time.monotonic()
            share = progress.batch / count
            pace = share * loop.hours_per_hour
            loop.place.display.step(progress.epoch + share, progress.mean_loss, pace)
            task.stepped(loop, batch, loss)
            loop.place.answer_stop()
            if progress.batch < count:
                _save_if(loop, task)
                before = max(before, loop.saved)
            if loop.deferred.due:
                loop.deferred.read()
    loop.deferred.read()
    progress.seconds += time.monotonic() - before
    return True


def _step(loop: Loop, task: Task[B], batch: B) -> Loss | None:
    accelerator = loop.accelerator
    statistics = [buffer.clone() for buffer in loop.model.buffers()]
    loss, lack = None, ""
    try:
        loss = task.loss(batch)
        accelerator.backward(loss.objective)
        task.finish()
    except (MemoryError, RuntimeError) as error:
        if lost := distributed.is_lost(error):
            restore(loop.model, statistics, torch.tensor(True))
        if lost or not lacks_memory(error):
            raise
        loss, lack = None, f"{task.size(batch)} ({error})"
        loop.optimizer.zero_grad()
    if not task.fits(batch, lack) or loss is None:
        restore(loop.model, statistics, torch.tensor(True))
        loop.optimizer.zero_grad()
        return None
    clip_norm = loop.config.clip_norm
    norm = loop.update(loop.model, loop.optimizer, accelerator, clip_norm, statistics)
    loop.deferred.add(partial(_count, loop), norm, loss.items, loss.units)
    return loss


def _count(loop: Loop, norm: Tensor, items: Tensor, units: Tensor) -> None:
    """Add a step's losses to the progress."""
    progress = loop.progress
    if not bool(torch.isfinite(norm)):
        progress.health.skipped_steps += 1
    finite = torch.isfinite(items)
    progress.loss_sum += float(items[finite].sum())
    progress.loss_units += int(units[finite].sum())


def _finish_epoch(loop: Loop, task: Task[B]) -> None:
    """Validate, add the epoch's row to the history, and keep its weights if required."""
    progress, config = loop.progress, loop.config
    started = time.monotonic()
    values, shown = task.validate()
    progress.total_seconds += progress.seconds + time.monotonic() - started
    row = {
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "loss": progress.mean_loss,
        **values,
        "learning_rate": learning_rate((progress.epoch + 1) / config.epochs, config),
        "seconds": progress.seconds,
    }
    progress.history.append(row)
    loop.place.display.epoch(row, shown)
    task.keep(row)
    progress.epoch += 1
    progress.batch, progress.loss_sum, progress.loss_units, progress.seconds = 0, 0.0, 0, 0.0
