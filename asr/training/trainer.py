"""The training run: prepare, loop over epochs, keep the best, average them."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from asr.augment.noise import load_sounds
from asr.dataset.prefetch import prefetch
from asr.dataset.remote import at_hand
from asr.dataset.sampler import fill_share, plan_all, plan_epoch
from asr.dataset.speech_dataset import Batch
from asr.decoding.decoder import Decoder
from asr.errors import TrainingError
from asr.evaluation.error_rate import ErrorCounts, score
from asr.evaluation.scoring import Scoring, guess_units
from asr.inference.decode import decode_dataset
from asr.io.files import locked, restore_folders, write_json
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.training.averaging import finish
from asr.training.checkpoint import Progress, best_epochs, has_checkpoint, save_epoch
from asr.training.device import build_accelerator, refuse_many_processes
from asr.training.display import Display
from asr.training.finetune import freeze, initialise_from
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
from asr.training.realign import know_word_starts
from asr.training.recipe import Recipe, TrainConfig
from asr.training.run import Run, checkpoint_folder, resume, save
from asr.training.step import batch_loss

SEED_STRIDE = 1_000_003  # keeps the per-step seeds of two runs apart


def train(recipe: Recipe, console: Console | None = None, finish_now: bool = False) -> Path:
    """Train as the recipe says, or resume an earlier run of it.

    With `finish_now` nothing more is trained: the model is made of the epochs so far.

    Returns the folder of the final model. Raises AsrError for bad data or configuration, for
    another training in the same folder and for a full disk, InterruptedTraining after Ctrl-C,
    SIGTERM or SIGHUP, or where the reader of stderr has gone.
    """
    refuse_many_processes()
    try:
        recipe.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"expected a folder to write to, got {recipe.out}: {error.strerror}; choose another out"
        ) from None
    try:
        # Until all is closed, no signal may take the place of the report that the run is saved.
        with (
            StopRequest() as stop,
            locked(recipe.out / ".lock", "training") as held,
            Display(recipe.out, recipe.train.epochs, console) as display,
        ):
            if not held:
                display.say(
                    f"no locks on the file system of {recipe.out}: nothing keeps a second "
                    "training out of this folder"
                )
            return _train(_prepare(recipe, display, stop), finish_now)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(
            f"expected space to write {recipe.out}, got a full disk: make room, and the same "
            "command resumes the training"
        ) from None


def _train(run: Run, finish_now: bool) -> Path:
    progress, config, display = run.progress, run.recipe.train, run.display
    if progress.step and _is_finished(progress, config):
        display.say(f"already trained for {progress.epoch} epochs in {run.recipe.out}")
    elif progress.step:
        display.say(f"resumed at epoch {progress.epoch + 1}, step {progress.step}")
    if finish_now and not progress.history:
        raise TrainingError(
            f"expected an epoch that has ended in {run.recipe.out}, got none: train without "
            "--finish first"
        )
    while not (finish_now or _is_finished(progress, config)):
        fill = _train_epoch(run)
        try:
            _finish_epoch(run, fill)
        except InterruptedTraining:
            save(run)
            raise
        # On a GPU an epoch can be shorter than a checkpoint takes to write.
        if _is_save_due(run) or _is_finished(progress, config):
            save(run)
    if progress.epoch < config.epochs and not finish_now:
        display.say(
            f"stopped early: no better on dev for {config.patience} epochs (train.patience)"
        )
    display.complete()
    return finish(run, lambda: _dev_errors(run).errors)


def _prepare(recipe: Recipe, display: Display, stop: StopRequest) -> Run:
    restore_folders(recipe.out)
    restore_folders(recipe.out / "epochs")
    accelerator = build_accelerator(precision(recipe.train.precision, display.say), display.say)
    torch.manual_seed(recipe.train.seed)
    tokens, text, train_set, dev_set = datasets(recipe)
    model = AcousticModel(recipe.features, recipe.model, len(tokens))
    bundle = Bundle(model, tokens, text)
    train_set = without_infeasible(recipe, bundle, train_set, display.say)
    shards = shard_supply(recipe, train_set)
    corpus = training_corpus(recipe, model, train_set, shards)
    model.to(accelerator.device)
    begun = has_checkpoint(checkpoint_folder(recipe))
    if recipe.init.model is not None and not begun:
        display.say(initialise_from(model, tokens, recipe.init, recipe.features, recipe.model))
    frozen = freeze(model, recipe.init.freeze_layers)
    optimizer = accelerator.prepare(
        build_optimizer(model, recipe.train, recipe.init.lower_lr_factor)
    )
    progress = Progress(
        identity=identity(recipe, train_set, dev_set), precision=accelerator.mixed_precision
    )
    run = Run(
        recipe,
        bundle,
        train_set,
        dev_set,
        corpus,
        shards,
        load_sounds(recipe.augment, train_set.sample_rate).to(accelerator.device),
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
    if begun:
        resume(run)
    elif recipe.features.cmvn == "global" and recipe.init.model is None:
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
    know_word_starts(run)
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
            if (number := run.stop_signal) is not None:
                save(run)
                raise InterruptedTraining(number, run.recipe.out)
            if _is_save_due(run) and progress.batch < len(plan):
                save(run)
                before = run.saved
    return fill_share(plan, run.corpus.durations)


def _train_step(run: Run, batch: Batch, config: TrainConfig) -> None:
    progress, health = run.progress, run.progress.health
    torch.manual_seed(config.seed * SEED_STRIDE + progress.step)
    statistics = [buffer.clone() for buffer in run.model.buffers()]
    try:
        loss = batch_loss(
            run.model,
            batch,
            run.recipe.augment,
            config.cr_ctc_weight,
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
    row: dict[str, Any] = {
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
        row["weights_sha256"] = save_epoch(run.epochs, progress.epoch + 1, run.bundle)
    progress.epoch += 1
    progress.batch, progress.loss_sum, progress.loss_units, progress.seconds = 0, 0.0, 0, 0.0
    write_json(run.recipe.out / "history.json", progress.history)


def _dev_errors(run: Run) -> ErrorCounts:
    """In words, or in characters where the dev set does not part words."""

    def answer_stop(_done: int, _total: int) -> None:
        if (number := run.stop_signal) is not None:
            raise InterruptedTraining(number, run.recipe.out)

    hypotheses = decode_dataset(
        run.model, run.dev, Decoder(run.bundle.tokens), progress=answer_stop
    )
    if advice := run.progress.health.observe_hypotheses(hypotheses):
        run.display.say(advice)
    scoring = Scoring().settled(run.dev.references)
    ids = (utterance.id for utterance in run.dev.utterances)
    references = dict(zip(ids, run.dev.references, strict=True))
    return score(scoring.apply_all(references), scoring.apply_all(hypotheses)).words


def _is_save_due(run: Run) -> bool:
    return time.monotonic() - run.saved >= run.recipe.train.save_seconds
