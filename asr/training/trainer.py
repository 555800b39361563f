"""Train an acoustic model with CTC: prepare, run the loop, average the best epochs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from asr.augment.noise import load_sounds
from asr.dataset.prefetch import prefetch
from asr.dataset.remote import batches_on_disk
from asr.dataset.sampler import fill_share, plan_all, plan_in_order
from asr.dataset.speech_dataset import Batch
from asr.decoding.decoder import Decoder
from asr.errors import TrainingError
from asr.evaluation.error_rate import ErrorCounts, score
from asr.evaluation.scoring import Scoring
from asr.inference.decode import batch_seconds, decode_dataset
from asr.io.files import restore_folders, write_json
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, load_bundle
from asr.shares import sharing
from asr.training import batch_size, distributed, graphed, loop, moving_average, pretrained_features
from asr.training.averaging import finish
from asr.training.checkpoint import best_epochs, save_epoch
from asr.training.device import shown_precision
from asr.training.entropy_weight import EntropyWeight
from asr.training.finetune import (
    freeze,
    initialise_from,
    layers_taken,
    rate_factors,
    refuse_blend_with_encoder,
)
from asr.training.gradients import SummedGradients
from asr.training.graphed_update import GraphedUpdate
from asr.training.interrupt import InterruptedTraining
from asr.training.place import Place, working_in
from asr.training.prepare import (
    alike,
    datasets,
    dev_share,
    identity,
    precision,
    remote_training_shards,
    training_corpus,
    without_infeasible,
)
from asr.training.realign import update_word_starts
from asr.training.recipe import Recipe, as_json
from asr.training.run import Run, needed_files, save
from asr.training.step import SEED_STRIDE

HINT = "; asr train with --finish makes a model of the epochs so far"


def train(
    recipe: Recipe,
    console: Console | None = None,
    finish_now: bool = False,
    hook: loop.Hook = lambda task: task,
) -> Path:
    """Train by the recipe, or resume an earlier run of it.

    With `finish_now`, the model is made from the epochs so far, without further training. `hook`
    may replace functions of the training's `Task`.

    Processes that a launcher has started train together, and the first one makes the model.

    Returns the folder of the final model. Raises AsrError for bad data or configuration, for
    another training in the same folder and for a full disk, InterruptedTraining after Ctrl-C,
    SIGTERM or SIGHUP, or if the reader of stderr has closed it.
    """
    epochs, patience = recipe.train.epochs, recipe.train.patience
    with (
        distributed.joined(),
        working_in(recipe.out, epochs, console, lasting=True, hint=HINT) as place,
    ):
        run = prepare(recipe, place)
        _measure_initial_model(run)
        task = hook(_task(run))
        if finish_now and not run.progress.history:
            raise TrainingError(
                f"expected an epoch that has ended in {recipe.out}, got none: train without "
                "--finish first"
            )
        if not finish_now:
            loop.run_epochs(run.loop, task)
            if run.progress.epoch < epochs:
                place.display.say(
                    f"stopped early: no improvement on dev for {patience} epochs (train.patience)"
                )
        distributed.leave()
        if not distributed.is_first():
            return recipe.out / "model"
        moving_average.finish(run)
        return finish(run, lambda: int(task.validate()[0]["dev_errors"]))


def prepare(recipe: Recipe, place: Place) -> Run:
    """Load the data and the model, or the checkpoint of an earlier run."""
    if distributed.is_first():
        restore_folders(recipe.out / "epochs")
    config, init, say = recipe.train, recipe.init, place.display.say
    refuse_blend_with_encoder(init)
    computed = precision(config.precision, say)
    recipe, network_folder = pretrained_features.with_network(recipe)
    torch.manual_seed(config.seed)
    tokens, text, train_set, dev_set = datasets(recipe, say)
    model = AcousticModel(recipe.features, recipe.model, len(tokens))
    pretrained_features.load(model, recipe, network_folder)
    bundle = Bundle(model, tokens, text)
    train_set = without_infeasible(recipe, bundle, train_set, say)
    shards = remote_training_shards(recipe, train_set, dev_set)
    corpus = training_corpus(recipe, model, train_set, shards)
    fixed = identity(recipe, tokens, train_set, dev_set)
    distributed.require_same(fixed | alike(recipe, computed))
    begun = place.is_begun
    if init.model is not None and not begun:
        say(initialise_from(model, tokens, init.model, layers_taken(model, init)))
    frozen = freeze(model, init.freeze_layers)
    factors = rate_factors(init, recipe.features)
    state = loop.begin(model, config, place, fixed, computed, factors)
    state.save_seconds, state.audio_seconds = config.save_seconds, sum(train_set.durations)
    device = state.accelerator.device
    sounds = load_sounds(recipe.augment, train_set.sample_rate).to(device)
    run = Run(
        recipe, bundle, train_set, dev_set, corpus, shards, sounds, frozen, state,
        dev_share(dev_set, text),
    )  # fmt: skip
    processes = ""
    if distributed.is_joined():
        run.gradients = SummedGradients(model)
        processes = f", {distributed.world_size()} processes"
    say(
        f"{len(train_set)} utterances, {state.audio_seconds / 3600:.2f} hours; "
        f"{len(tokens)} tokens; {model.parameter_count() / 1e6:.1f} M parameters; "
        f"{device.type}, {shown_precision(computed)}{processes}"
    )
    done = state.progress.epoch / config.epochs
    pretrained_features.begin_epoch(model, recipe.features, done, say)
    _set_up_steps(run)
    if run.replay is not None:
        state.update = GraphedUpdate(device, say)
    batch_size.choose(run)
    pretrained_features.use_cache(model, recipe, state.audio_seconds + sum(dev_set.durations), say)
    if begun:
        moving_average.broadcast(run)
        run.needed = needed_files(run)
    elif recipe.features.of_training_set and init.model is None:
        plan = distributed.own(plan_all(corpus, state.progress.batch_seconds))
        for batch in batches_on_disk(plan, shards, say):
            model.features.observe(train_set.batch(batch).waves.to(device))
        if model.features.normalisation is not None:
            distributed.all_reduce(model.features.normalisation.buffers())
    if distributed.is_first():
        write_json(recipe.out / "recipe.json", as_json(recipe))
    return run


def _set_up_steps(run: Run) -> None:
    """What steps need besides the network and the data."""
    config, device, say = run.recipe.train, run.loop.accelerator.device, run.display.say
    if config.entropy_target:
        weight = torch.tensor(run.progress.entropy_weight, device=device)
        run.entropy = EntropyWeight(config.entropy_target, weight)
    if config.cuda_graphs and run.entropy is not None:
        say("train.cuda_graphs is ignored: train.entropy_target is set")
    elif config.cuda_graphs:
        run.replay = graphed.replay(run.model, device, say)


def _task(run: Run) -> loop.Task[Batch]:
    return loop.Task(
        batches=partial(_batches, run),
        loss=partial(_loss, run),
        validate=partial(_validate, run),
        keep=partial(_keep, run),
        save=lambda state: save(run),
        size=partial(batch_size.advice, run),
        stepped=partial(_stepped, run),
        ends_early=partial(_is_out_of_patience, run),
        finish=run.gradients.finish if run.gradients else lambda: None,
        fits=partial(batch_size.fits, run),
    )


def _is_out_of_patience(run: Run) -> bool:
    if not run.progress.history:
        return False
    # The first of the best: an equal one is not better.
    best = min(run.progress.history, key=lambda row: row["dev_errors"])["epoch"]
    return bool(run.progress.epoch - best >= run.recipe.train.patience)


def _batches(run: Run) -> tuple[int, AbstractContextManager[Any]]:
    config, progress, device = run.recipe.train, run.progress, run.loop.accelerator.device
    done = progress.epoch / config.epochs
    pretrained_features.begin_epoch(run.model, run.recipe.features, done, run.display.say)
    update_word_starts(run)
    plan = batch_size.plan(run)
    run.fill_share = fill_share(plan, run.corpus.durations)
    for module in run.frozen:
        module.eval()
    batch_size.rehearse(run)
    left = batches_on_disk(plan[progress.batch :], run.shards, run.display.say)
    if not distributed.is_joined():
        return len(plan), prefetch(lambda items: run.train.batch(items).to(device), left)
    rank, size = distributed.rank(), distributed.world_size()
    return len(plan), prefetch(lambda items: run.train.share(items, rank, size).to(device), left)


def _loss(run: Run, batch: Batch) -> loop.Loss:
    torch.manual_seed(run.recipe.train.seed * SEED_STRIDE + run.progress.step)
    if run.gradients is not None:
        run.gradients.begin()
    with sharing(batch.share):
        return batch_size.loss_of(run, batch, run.replay)


def _stepped(run: Run, state: loop.Loop, batch: Batch, loss: loop.Loss) -> None:
    if run.recipe.train.ema:
        decay = moving_average.decay_after(state.progress.step, run.recipe.train.ema)
        moving_average.update(state.kept, run.model, decay)
    if run.entropy is not None:
        run.entropy.adapt()
    count = partial(state.progress.health.count_losses, batch.all_ids or batch.ids)
    state.deferred.add(count, loss.items)


def _validate(run: Run) -> tuple[dict[str, Any], str]:
    """Errors on dev, in words, or in characters if the dev set has no spaces between words."""
    with moving_average.applied(run.loop.kept, run.model):
        hypotheses = _hypotheses(run, run.bundle)
    if advice := run.progress.health.observe_hypotheses(hypotheses):
        run.display.say(advice)
    scoring, counts = _scored(run, hypotheses)
    values = {
        "dev_wer": counts.rate,
        "dev_errors": counts.errors,
        "dev_words": counts.reference_length,
        "dev_units": scoring.units,
        "hours_per_hour": run.loop.hours_per_hour,
        "fill_share": run.fill_share,
    }
    if run.entropy is not None:
        values["entropy_weight"] = float(run.entropy.weight)
    return values, _dev_text(scoring, counts)


def _measure_initial_model(run: Run) -> None:
    """Count the errors on dev of the model that init.preserve keeps, before any training."""
    init, progress = run.recipe.init, run.progress
    if init.model is None or not init.preserve or progress.initial_errors is not None:
        return
    given = load_bundle(init.model)
    given.model.to(run.loop.accelerator.device)
    try:
        scoring, counts = _scored(run, _hypotheses(run, given))
    except InterruptedTraining:
        save(run)
        distributed.barrier()  # as in run_epochs
        raise
    progress.initial_errors = counts.errors
    run.display.say(f"before training, {init.model}: {_dev_text(scoring, counts)}")


def _scored(run: Run, hypotheses: Mapping[str, str]) -> tuple[Scoring, ErrorCounts]:
    """The errors of hypotheses of dev, by id, and what was scored."""
    scoring = Scoring().with_units(run.dev.references)
    ids = (utterance.id for utterance in run.dev.utterances)
    references = dict(zip(ids, run.dev.references, strict=True))
    return scoring, score(scoring.apply_all(references), scoring.apply_all(hypotheses)).words


def _dev_text(scoring: Scoring, counts: ErrorCounts) -> str:
    rate = f"{'CER' if scoring.units == 'characters' else 'WER'} {100 * counts.rate:6.2f} %"
    return f"dev {rate} ({counts.errors}/{counts.reference_length})"


def _hypotheses(run: Run, bundle: Bundle) -> dict[str, str]:
    """Of dev, by id: each process recognises a share."""
    decoder, answer_stop = Decoder(bundle.tokens), run.loop.place.answer_stop
    if not distributed.is_joined():
        return decode_dataset(bundle.model, run.dev, decoder, progress=answer_stop)
    share = run.dev_share
    # All must answer a stop request together, but some have more batches than others.
    batches = len(plan_in_order(share.durations, batch_seconds(bundle.model)))
    common = iter(range(distributed.all_reduce_min(batches)))

    def answer(*_: object) -> None:
        if next(common, None) is not None:
            answer_stop()

    parts = distributed.all_gather(decode_dataset(bundle.model, share, decoder, progress=answer))
    found = {id_: text for part in parts for id_, text in part.items()}
    return {utterance.id: found[utterance.id] for utterance in run.dev.utterances}


def _keep(run: Run, row: dict[str, Any]) -> None:
    if not distributed.is_first():
        return
    progress = run.progress
    if row["epoch"] in best_epochs(progress.history, run.recipe.train.average):
        with moving_average.applied(run.loop.kept, run.model):
            row["weights_sha256"] = save_epoch(run.epochs, row["epoch"], run.bundle)
    write_json(run.recipe.out / "history.json", progress.history)
