"""What loading and padding cost beside a training step of the AN4 recipe."""

from __future__ import annotations

import contextlib
import time
from statistics import median

import torch

from asr.batching import fill_share
from asr.composition import Item
from asr.features.augment import perturb_speed
from asr.features.surroundings import Sounds
from asr.training.optimizer import build_optimizer
from asr.training.step import batch_loss
from tests.bench.corpus import Corpus, load, spread
from tests.bench.timing import print_table, threads, verdict

BATCHES = 6
EPOCHS = range(1, 11)


def run() -> None:
    """Print the table, or why there is none."""
    print("\nloading: seconds beside a training step, and padding, on AN4")
    corpus = load()
    if corpus is None:
        return
    with threads(2):
        rows = [measure(corpus, items) for items in spread(corpus.plan(1), BATCHES)]
    names = list(rows[0])
    step = sum(row["training step"] for row in rows)
    totals = {name: sum(row[name] for row in rows) for name in names}
    print_table(
        f"  {BATCHES} batches of {corpus.recipe.train.batch_seconds:g} s, two threads",
        ["", "ms a batch", "% of the step"],
        [
            [name, f"{1000 * total / len(rows):.1f}", f"{100 * total / step:.1f}"]
            for name, total in totals.items()
        ],
    )
    # Decoding happens once: afterwards the waveforms are kept in memory.
    share = 100 * totals["load, later epochs"] / step
    verdict("loading, % of a step", share, "<= 5", share <= 5)
    fills = [fill_share(corpus.plan(epoch), corpus.data.durations) for epoch in EPOCHS]
    padding = 100 * (1 - median(fills))
    verdict(f"padding, % of the frames of {len(fills)} epochs", padding, "<= 5", padding <= 5)


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
    perturb_speed(batch.waves, batch.speeds)  # builds its filters once
    started = time.perf_counter()
    perturb_speed(batch.waves, batch.speeds)
    seconds["speed perturbation (in the step)"] = time.perf_counter() - started
    corpus.model.train()
    for _ in range(2):  # the first one warms up
        torch.manual_seed(0)
        started = time.perf_counter()
        recipe = corpus.recipe
        loss = batch_loss(
            corpus.model,
            batch,
            recipe.augment,
            recipe.train.consistency,
            contextlib.nullcontext,
            Sounds(corpus.data.sample_rate, torch.zeros(0)),
        )
        loss.objective.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds["training step"] = time.perf_counter() - started
    return seconds
