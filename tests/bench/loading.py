"""What loading and padding cost beside a training step of the AN4 recipe."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from statistics import median

import torch

from asr.augment.config import NoiseConfig, ReverbConfig
from asr.augment.noise import degrade, load_sounds
from asr.augment.waveform import change_tempo, perturb_speed
from asr.dataset.cuts import Item
from asr.dataset.sampler import fill_share
from asr.training.optimizer import build_optimizer
from asr.training.recipe import Recipe
from asr.training.step import batch_loss
from tests.bench.corpus import ROOT, Corpus, load, spread
from tests.bench.timing import print_table, threads, verdict

BATCHES = 6
EPOCHS = range(1, 11)
NOISE = ROOT.parent / "shared" / "data" / "noise"


def run() -> None:
    """Print the tables, or why there are none."""
    print("\nloading: seconds beside a training step, and padding, on AN4")
    corpus = load()
    if corpus is None:
        return
    with threads(2):
        # Decoding happens once: afterwards the waveforms are kept in memory.
        show("as the recipe has it", corpus)
        show("with every augmentation on", replace(corpus, recipe=everything(corpus.recipe)))
    fills = [fill_share(corpus.plan(epoch), corpus.data.durations) for epoch in EPOCHS]
    padding = 100 * (1 - median(fills))
    verdict(f"padding, % of the frames of {len(fills)} epochs", padding, "<= 5", padding <= 5)


def everything(recipe: Recipe) -> Recipe:
    """The recipe with all that training recordings can go through; a tenth of them by a codec."""
    changes = {
        "tempos": [0.9, 1.0, 1.1],
        "codec_prob": 0.1,
        "noise": NoiseConfig(folder=NOISE if NOISE.is_dir() else None),
        "reverb": ReverbConfig(prob=0.3),
        "telephone_prob": 0.2,
        "equaliser_db": 6.0,
        "gain_db": 6.0,
        "time_warp": 20,
    }
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update=changes)})


def show(title: str, corpus: Corpus) -> None:
    """A table of the parts of a batch's work, and whether loading is cheap."""
    rows = [measure(corpus, items) for items in spread(corpus.plan(1), BATCHES)]
    names = list(rows[0])
    step = sum(row["training step"] for row in rows)
    totals = {name: sum(row[name] for row in rows) for name in names}
    print_table(
        f"  {title}: {BATCHES} batches of {corpus.recipe.train.batch_seconds:g} s, two threads",
        ["", "ms a batch", "% of the step"],
        [
            [name, f"{1000 * total / len(rows):.1f}", f"{100 * total / step:.1f}"]
            for name, total in totals.items()
        ],
    )
    share = 100 * totals["load, later epochs"] / step
    verdict(f"loading {title}, % of a step", share, "<= 5", share <= 5)


def measure(corpus: Corpus, items: list[Item]) -> dict[str, float]:
    """Seconds of each part of one batch's work."""
    optimizer = build_optimizer(corpus.model, corpus.recipe.train)
    seconds = {}
    started = time.perf_counter()
    batch = corpus.data.batch(items)
    seconds["load, first epoch (decodes)"] = time.perf_counter() - started
    started = time.perf_counter()
    batch = corpus.data.batch(items)
    seconds["load, later epochs"] = time.perf_counter() - started
    augment = corpus.recipe.augment
    sounds = load_sounds(augment, corpus.data.sample_rate)
    for _ in range(2):  # the first one builds filters
        started = time.perf_counter()
        waves = perturb_speed(batch.waves, batch.speeds, batch.samples)
        waves = change_tempo(waves, batch.tempos, sounds.sample_rate)
        degrade(waves, augment, sounds)
        seconds["augmentation of waveforms (in the step)"] = time.perf_counter() - started
    corpus.model.train()
    for _ in range(2):  # the first one warms up
        torch.manual_seed(0)
        started = time.perf_counter()
        recipe = corpus.recipe
        loss = batch_loss(
            corpus.model,
            batch,
            recipe.augment,
            recipe.train.cr_ctc_weight,
            contextlib.nullcontext,
            sounds,
        )
        loss.objective.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds["training step"] = time.perf_counter() - started
    return seconds
