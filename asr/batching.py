"""Batches of utterances of similar length, limited by their total seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from asr.composition import Item, joined, spliced

# Durations are shaken by up to this share before sorting, so that batches differ every epoch.
JITTER = 0.02


def plan_epoch(
    durations: Sequence[float],
    batch_seconds: float,
    speeds: Sequence[float],
    seed: int,
    epoch: int,
    speakers: Sequence[str] = (),
    join: float = 0.0,
    word_starts: Mapping[int, Sequence[float]] | None = None,
    splice: float = 0.0,
) -> list[list[Item]]:
    """The batches of a training epoch; a pure function, so that a resumed run sees the same ones.

    Utterances are sorted by length and cut where the padded batch would pass `batch_seconds`.
    Batches come in random order, except in epoch 0: the largest first, so that running out of
    memory shows at once, then from short to long (SortaGrad, Amodei et al. 2016).

    With `join` (0 to 1: how readily) two utterances of one of `speakers` are played as one, as long
    as the two together are no longer than the longest utterance alone. Given `word_starts`
    (seconds, by utterance), a share `splice` is replaced by words of the same speaker in new order.
    """
    random = np.random.default_rng([seed, epoch])
    groups = joined(durations, speakers, join, random)
    items = [Item(g[0], float(random.choice(speeds)), g[1:]) for g in groups]
    if word_starts:
        items = spliced(items, durations, speakers, word_starts, splice, random)
    lengths = np.array([item.seconds(durations) for item in items])
    shaken = lengths * random.uniform(1 - JITTER, 1 + JITTER, len(items))
    order = [int(i) for i in np.argsort(shaken, kind="stable")]
    batches = _cut([items[i] for i in order], lengths[order], batch_seconds)
    if epoch == 0:
        sizes = [_padded_seconds(batch, durations) for batch in batches]
        batches.insert(0, batches.pop(int(np.argmax(sizes))))
        return batches
    return [batches[int(i)] for i in random.permutation(len(batches))]


def plan_in_order(durations: Sequence[float], batch_seconds: float) -> list[list[Item]]:
    """Batches of similar length for evaluation: every utterance once, unchanged, longest first."""
    order = sorted(range(len(durations)), key=lambda i: -durations[i])
    return _cut([Item(i) for i in order], [durations[i] for i in order], batch_seconds)


def fill_share(batches: Sequence[Sequence[Item]], durations: Sequence[float]) -> float:
    """Share of the padded batches' seconds that is speech rather than padding, 0 to 1."""
    real = sum(item.seconds(durations) for batch in batches for item in batch)
    padded = math.fsum(_padded_seconds(batch, durations) for batch in batches)
    return real / padded if padded else 1.0


def _padded_seconds(batch: Sequence[Item], durations: Sequence[float]) -> float:
    return len(batch) * max(item.seconds(durations) for item in batch)


def _cut(
    items: Sequence[Item], lengths: Sequence[float] | np.ndarray, batch_seconds: float
) -> list[list[Item]]:
    batches: list[list[Item]] = []
    longest = 0.0
    for item, length in zip(items, lengths, strict=True):
        longest = max(longest, float(length))
        if batches and longest * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(item)
        else:
            batches.append([item])
            longest = float(length)
    return batches
