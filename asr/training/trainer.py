"""The training run: prepare, loop over epochs, keep the best, average them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import nn

from asr.batching import fill_share, plan_all, plan_epoch
from asr.composition import Corpus
from asr.dataset import Batch, SpeechDataset, prefetch
from asr.decoder import Decoder
from asr.errors import TrainingError
from asr.evaluation.decode import batch_seconds, decode_dataset
from asr.evaluation.error_rate import ErrorCounts, score
from asr.evaluation.scoring import Scoring, guess_units
from asr.features.surroundings import Sounds, load_sounds
from asr.fetching import Supply, at_hand
from asr.files import read_json, restore_folders, write_json
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, save_bundle
from asr.training.checkpoint import (
    Progress,
    best_epochs,
    epoch_path,
    load_checkpoint,
    save_checkpoint,
)
from asr.training.display import Display
from asr.training.final import choose_weights
from asr.training.interrupt import InterruptedTraining, StopRequest
from asr.training.optimizer import build_optimizer, learning_rate, set_rate
from asr.training.prepare import (
    datasets,
    identity,
    precision,
    shard_supply,
    training_corpus,
    without_infeasible,
)
from asr.training.recipe import Recipe, TrainConfig
from asr.training.start import freeze, start_from
from asr.training.step import batch_loss
from asr.training.word_starts import word_starts

ALIGN_EVERY = 0.1  # of the training
SEED_STRIDE = 1_000_003  # keeps the per-step seeds of two runs apart


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

    @property
    def model(self) -> AcousticModel:
        return self.bundle.model


def train(recipe: Recipe, console: Console | None = None) -> Path:
    """Train as the recipe says, or go on where an earlier run of it stopped.

    Returns the folder of the final model. Raises AsrError for bad data or configuration,
    InterruptedTraining after Ctrl-C or SIGTERM.
    """
    try:
        recipe.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"expected a folder to write to, got {recipe.out}: {error.strerror}; choose another out"
        ) from None
    config = recipe.train
    with Display(recipe.out, config.epochs, console) as display, StopRequest() as stop:
        run = _prepare(recipe, display, stop)
        progress = run.progress
        if progress.step and _is_finished(progress, config):
            display.say(f"already trained for {progress.epoch} epochs in {recipe.out}")
        elif progress.step:
            display.say(f"resumed at epoch {progress.epoch + 1}, step {progress.step}")
        while not _is_finished(progress, config):
            fill = _train_epoch(run)
            try:
                _finish_epoch(run, fill)
            except InterruptedTraining:
                _save(run)
                raise
            # On a GPU an epoch can be shorter than a checkpoint takes to write.
            if _is_save_due(run) or _is_finished(progress, config):
                _save(run)
        if progress.epoch < config.epochs:
            display.say(
                f"stopped early: no better on dev for {config.patience} epochs (train.patience)"
            )
        display.complete()
        return _finish(run)


def _prepare(recipe: Recipe, display: Display, stop: StopRequest) -> Run:
    restore_folders(recipe.out)
    restore_folders(recipe.out / "epochs")
    # The first Accelerator of a process fixes its precision; a later run may want another.
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=precision(recipe.train.precision, display.say))
    torch.manual_seed(recipe.train.seed)
    tokens, text, train_set, dev_set = datasets(recipe)
    model = AcousticModel(recipe.features, recipe.model, len(tokens))
    bundle = Bundle(model, tokens, text)
    train_set = without_infeasible(recipe, bundle, train_set, display.say)
    shards = shard_supply(recipe, train_set)
    corpus = training_corpus(recipe, model, train_set, shards)
    model.to(accelerator.device)
    if recipe.start.model is not None and not _checkpoint_folder(recipe).is_dir():
        display.say(start_from(model, tokens, recipe.start, recipe.features, recipe.model))
    frozen = freeze(model, recipe.start.frozen_layers)
    optimizer = accelerator.prepare(build_optimizer(model, recipe.train, recipe.start.lower_rate))
    progress = Progress(identity=identity(recipe, train_set))
    run = Run(
        recipe,
        bundle,
        train_set,
        dev_set,
        corpus,
        shards,
        load_sounds(recipe.augment.surroundings, train_set.sample_rate).to(accelerator.device),
        frozen,
        accelerator,
        optimizer,
        progress,
        display,
        stop,
    )
    display.say(
        f"{len(train_set)} utterances, {sum(train_set.durations) / 3600:.2f} hours; "
        f"{len(tokens)} units; {model.parameter_count() / 1e6:.1f} M parameters; "
        f"{accelerator.device.type}, {accelerator.mixed_precision}"
    )
    if (folder := _checkpoint_folder(recipe)).is_dir():
        run.progress, scale = load_checkpoint(folder, bundle, optimizer, progress.identity)
        if accelerator.scaler is not None and scale:
            accelerator.scaler.load_state_dict(scale)
    elif recipe.features.cmvn == "global" and recipe.start.model is None:
        _observe_features(run)
    write_json(recipe.out / "recipe.json", recipe.model_dump(mode="json"))
    return run


def _observe_features(run: Run) -> None:
    device = run.accelerator.device
    plan = plan_all(run.corpus, run.recipe.train.batch_seconds)
    for batch in at_hand(plan, run.shards, run.display.say):
        run.model.features.observe(run.train.batch(batch).waves.to(device))


def _is_finished(progress: Progress, config: TrainConfig) -> bool:
    if not progress.history:
        return False
    # The first of the best: as good is not better.
    best = min(progress.history, key=lambda row: row["dev_errors"])["epoch"]
    return progress.epoch >= config.epochs or progress.epoch - best >= config.patience


def _train_epoch(run: Run) -> float:
    """Run what is left of the current epoch, saving as time passes; return its fill share."""
    config, progress = run.recipe.train, run.progress
    _align_words(run)
    plan = plan_epoch(
        run.corpus, run.recipe.augment, config.batch_seconds, config.seed, progress.epoch
    )
    run.model.train()
    for module in run.frozen:
        module.eval()
    before = time.monotonic()
    left = at_hand(plan[progress.batch :], run.shards, run.display.say)
    device = run.accelerator.device
    with prefetch(lambda items: run.train.batch(items).to(device), left) as batches:
        for batch in batches:
            done = (progress.epoch + progress.batch / len(plan)) / config.epochs
            set_rate(run.optimizer, learning_rate(done, config))
            _train_step(run, batch, config)
            progress.batch += 1
            progress.step += 1
            now = time.monotonic()
            progress.seconds += now - before
            before = now
            run.display.step(
                progress.epoch + progress.batch / len(plan),
                progress.loss_sum / max(1, progress.loss_units),
                _hours_per_hour(run, progress.batch / len(plan)),
            )
            if run.stop.signal is not None:
                _save(run)
                raise InterruptedTraining(run.stop.signal, run.recipe.out)
            if _is_save_due(run) and progress.batch < len(plan):
                _save(run)
                before = run.saved
    return fill_share(plan, run.corpus.durations)


def _align_words(run: Run) -> None:
    """From the epoch in which splicing begins, know where words begin.

    Aligned anew every so often, for the model learns to tell: on AN4 one word in eleven was cut
    100 ms or more off its place by what the model knew when splicing began.
    """
    augment, path = run.recipe.augment, run.recipe.out / "word_starts.json"
    epochs, progress = run.recipe.train.epochs, run.progress
    since = progress.epoch - math.ceil(augment.splice_from * epochs)
    if not augment.splice or since < 0:
        return
    due = progress.batch == 0 and since % math.ceil(ALIGN_EVERY * epochs) == 0
    if run.corpus.word_starts and not due:
        return
    if due or not path.exists():
        run.display.say("aligning the training data, to splice new sentences from it")
        plan = at_hand(plan_all(run.corpus, batch_seconds(run.model)), run.shards, run.display.say)
        write_json(path, word_starts(run.model, run.train, run.bundle.tokens, plan))
    starts = {int(index): seconds for index, seconds in read_json(path).items()}
    run.corpus = replace(run.corpus, word_starts=starts)


def _train_step(run: Run, batch: Batch, config: TrainConfig) -> None:
    progress, health = run.progress, run.progress.health
    torch.manual_seed(config.seed * SEED_STRIDE + progress.step)
    statistics = [buffer.clone() for buffer in run.model.buffers()]
    try:
        loss = batch_loss(
            run.model,
            batch,
            run.recipe.augment,
            config.consistency,
            run.accelerator.autocast,
            run.sounds,
        )
        run.accelerator.backward(loss.objective)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise TrainingError(
            f"expected batches that fit into memory, got none left at {len(batch.ids)} utterances "
            f"of {batch.waves.values.shape[1] / run.train.sample_rate:.1f} s: lower "
            f"train.batch_seconds (now {config.batch_seconds:g}) ({error})"
        ) from None
    norm = run.accelerator.clip_grad_norm_(run.model.parameters(), config.clip_norm)
    # Under fp16 the scaler itself leaves out overflowing steps and adapts.
    if run.accelerator.scaler is not None or bool(torch.isfinite(norm)):
        run.optimizer.step()
    if not bool(torch.isfinite(norm)):
        health.skipped_steps += 1
        # The forward pass has already moved the running statistics of the normalisation.
        for buffer, before in zip(run.model.buffers(), statistics, strict=True):
            buffer.copy_(before)
    run.optimizer.zero_grad()
    health.count_losses(batch.ids, loss.utterances)
    finite = torch.isfinite(loss.utterances)
    progress.loss_sum += float(loss.utterances[finite].sum())
    progress.loss_units += int(batch.targets.lengths[finite].sum())


def _is_out_of_memory(error: Exception) -> bool:
    # A processor's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(
        error
    )


def _hours_per_hour(run: Run, share: float) -> float:
    return share * sum(run.train.durations) / max(run.progress.seconds, 1e-9)


def _finish_epoch(run: Run, fill: float) -> None:
    """Score the dev set, write the epoch's row and weights."""
    progress, config = run.progress, run.recipe.train
    started = time.monotonic()
    errors = _dev_errors(run)
    progress.total_seconds += progress.seconds + time.monotonic() - started
    row = {
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "loss": progress.loss_sum / max(1, progress.loss_units),
        "dev_wer": errors.rate,
        "dev_errors": errors.errors,
        "dev_words": errors.reference_length,
        "dev_units": guess_units(run.dev.references),
        "learning_rate": learning_rate((progress.epoch + 1) / config.epochs, config),
        "seconds": progress.seconds,
        "hours_per_hour": _hours_per_hour(run, 1.0),
        "fill_share": fill,
    }
    progress.history.append(row)
    run.display.epoch(row)
    if row["epoch"] in best_epochs(progress.history, config.average):
        save_bundle(epoch_path(run.recipe.out / "epochs", progress.epoch + 1), run.bundle)
    progress.epoch += 1
    progress.batch, progress.loss_sum, progress.loss_units, progress.seconds = 0, 0.0, 0, 0.0
    write_json(run.recipe.out / "history.json", progress.history)


def _dev_errors(run: Run) -> ErrorCounts:
    """In words, or in characters where the dev set does not part words."""

    def answer_stop(_done: int, _total: int) -> None:
        if run.stop.signal is not None:
            raise InterruptedTraining(run.stop.signal, run.recipe.out)

    hypotheses = decode_dataset(
        run.model, run.dev, Decoder(run.bundle.tokens), progress=answer_stop
    )
    if advice := run.progress.health.observe_hypotheses(hypotheses):
        run.display.say(advice)
    scoring = Scoring().settled(run.dev.references)
    ids = (utterance.id for utterance in run.dev.utterances)
    references = dict(zip(ids, run.dev.references, strict=True))
    return score(scoring.apply_all(references), scoring.apply_all(hypotheses)).words


def _remove_others(run: Run) -> None:
    """Keep the weights of the best epochs only. Not before the checkpoint knows of the epochs that
    took their places: a run that goes on from an earlier one may do without those."""
    folder = run.recipe.out / "epochs"
    best = best_epochs(run.progress.history, run.recipe.train.average)
    for path in folder.glob("epoch-*"):
        if path.name not in {epoch_path(folder, epoch).name for epoch in best}:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()


def _checkpoint_folder(recipe: Recipe) -> Path:
    return recipe.out / "checkpoint"


def _is_save_due(run: Run) -> bool:
    return time.monotonic() - run.saved >= run.recipe.train.save_seconds


def _save(run: Run) -> None:
    scaler = run.accelerator.scaler
    scale = scaler.state_dict() if scaler is not None else {}
    folder = _checkpoint_folder(run.recipe)
    save_checkpoint(folder, run.bundle, run.optimizer.optimizer, scale, run.progress)
    _remove_others(run)
    run.saved = time.monotonic()


def _finish(run: Run) -> Path:
    """Save the final model, with the weights that do best on dev."""
    progress = run.progress
    chosen, dev_errors = choose_weights(
        run.model,
        run.bundle.tokens,
        run.recipe,
        progress.history,
        lambda: _dev_errors(run).errors,
    )
    dev_words = progress.history[-1]["dev_words"]
    run.display.say(f"final model: {chosen}, dev {dev_errors}/{dev_words}")
    info = {
        "weights": chosen,
        "dev_errors": dev_errors,
        "dev_words": dev_words,
        "dev_units": guess_units(run.dev.references),
        "epochs": progress.epoch,
        "seed": run.recipe.train.seed,
        "training_seconds": round(progress.total_seconds, 1),
        "skipped_steps": progress.health.skipped_steps,
        "infinite_losses": progress.health.infinite_losses,
    }
    final = run.recipe.out / "model"
    # Half precision: half the size, and what is evaluated is what is shipped.
    save_bundle(final, Bundle(run.model, run.bundle.tokens, run.bundle.text, info), half=True)
    return final
