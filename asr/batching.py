"""Batches of utterances of similar length, limited by their total seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Durations are shaken by up to this share before sorting, so that batches differ every epoch.
JITTER = 0.02


@dataclass(frozen=True)
class Item:
    """One utterance of a batch: its place in the dataset, its speed, and what is joined to it."""

    index: int
    speed: float = 1.0
    then: tuple[int, ...] = ()

    @property
    def indices(self) -> tuple[int, ...]:
        """Utterances of the dataset that are played one after another."""
        return (self.index, *self.then)

    def seconds(self, durations: Sequence[float]) -> float:
        """How long it plays."""
        return sum(durations[index] for index in self.indices) / self.speed


def plan_epoch(
    durations: Sequence[float],
    batch_seconds: float,
    speeds: Sequence[float],
    seed: int,
    epoch: int,
    speakers: Sequence[str] = (),
    join: float = 0.0,
) -> list[list[Item]]:
    """The batches of a training epoch; a pure function, so that a resumed run sees the same ones.

    Utterances are sorted by length and cut where the padded batch would pass `batch_seconds`.
    Batches come in random order, except in epoch 0: the largest first, so that running out of
    memory shows at once, then from short to long (SortaGrad, Amodei et al. 2016).

    With `join` (0 to 1: how readily) two utterances of one of `speakers` are played as one, as long
    as the two together are no longer than the longest utterance alone.
    """
    random = np.random.default_rng([seed, epoch])
    groups = _joined(durations, speakers, join, random)
    items = [Item(g[0], float(random.choice(speeds)), g[1:]) for g in groups]
    lengths = np.array([item.seconds(durations) for item in items])
    shaken = lengths * random.uniform(1 - JITTER, 1 + JITTER, len(items))
    order = [int(i) for i in np.argsort(shaken, kind="stable")]
    batches = _cut([items[i] for i in order], lengths[order], batch_seconds)
    if epoch == 0:
        sizes = [_padded_seconds(batch, durations) for batch in batches]
        batches.insert(0, batches.pop(int(np.argmax(sizes))))
        return batches
    return [batches[int(i)] for i in random.permutation(len(batches))]


def _joined(
    durations: Sequence[float], speakers: Sequence[str], join: float, random: np.random.Generator
) -> list[tuple[int, ...]]:
    """Every utterance once, some of them in pairs of one speaker."""
    if not join or not speakers:
        return [(i,) for i in range(len(durations))]
    groups: list[tuple[int, ...]] = []
    waiting: dict[str, int] = {}
    longest = max(durations)
    for i in (int(i) for i in random.permutation(len(durations))):
        mate = waiting.pop(speakers[i], None)
        if mate is not None and durations[mate] + durations[i] <= longest:
            groups.append((mate, i))
        else:
            groups += [] if mate is None else [(mate,)]
            # Both utterances of a pair count towards the share, hence the draw by the first alone.
            if speakers[i] and random.random() < join:
                waiting[speakers[i]] = i
            else:
                groups.append((i,))
    return groups + [(i,) for i in waiting.values()]


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
