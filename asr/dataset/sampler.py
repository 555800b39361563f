"""Batches of utterances of similar length, limited by their total seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asr.augment.config import AugmentConfig
from asr.dataset.cuts import Corpus, Item, concatenated, spliced, whole, windows

# Durations vary by up to this share before sorting, so that batches differ in every epoch.
JITTER = 0.02
TRIM_DB = (15.0, 35.0)  # from cut into weak consonants to nothing but silence


def plan_epoch(
    corpus: Corpus, augment: AugmentConfig, batch_seconds: float, seed: int, epoch: int
) -> list[list[Item]]:
    """The batches of a training epoch; a pure function, so that a resumed run gets the same ones.

    Utterances are sorted by length and split into batches whose padded length is at most
    `batch_seconds`; a longer one has a batch of its own. Batches come in random order, except in
    epoch 0: the largest first, so that a lack of memory appears at once, then from short to long
    (SortaGrad, Amodei et al. 2016).

    `augment` sets the speeds, which utterances of one speaker are concatenated (never longer than
    the longest single utterance), and, with known word times, which are replaced by sentences of
    words that are drawn from those of the same speaker. If shards are fetched, this is done within
    groups of shards.
    """
    random = np.random.default_rng([seed, epoch])
    return [
        batch
        for places in windows(corpus, random)
        for batch in _plan(corpus, augment, batch_seconds, random, epoch, places)
    ]


def _plan(
    corpus: Corpus,
    augment: AugmentConfig,
    batch_seconds: float,
    random: np.random.Generator,
    epoch: int,
    places: np.ndarray,
) -> list[list[Item]]:
    groups = concatenated(corpus, augment.concatenate_prob, random, places)
    items = [whole(*group, speed=_speed(group, corpus, augment, random)) for group in groups]
    if corpus.word_starts:
        items = spliced(items, corpus, augment.splice_prob, random, places, augment.short_prob)
        # The new words may have to be played slower than those that they replace.
        items = [
            replace(item, speed=_within(item.speed, item.indices, corpus, augment))
            for item in items
        ]
    items = [_varied(item, corpus, augment, random) for item in items]
    durations = corpus.durations
    lengths = np.array([item.seconds(durations) for item in items])
    shaken = lengths * random.uniform(1 - JITTER, 1 + JITTER, len(items))
    order = [int(i) for i in np.argsort(shaken, kind="stable")]
    batches = _cut([items[i] for i in order], lengths[order], batch_seconds)
    if epoch == 0:
        sizes = [_padded_seconds(batch, durations) for batch in batches]
        batches.insert(0, batches.pop(int(np.argmax(sizes))))
        return batches
    return [batches[int(i)] for i in random.permutation(len(batches))]


def _speed(
    group: Sequence[int], corpus: Corpus, augment: AugmentConfig, random: np.random.Generator
) -> float:
    return _within(float(random.choice(augment.speeds)), group, corpus, augment)


def _within(speed: float, indices: Sequence[int], corpus: Corpus, augment: AugmentConfig) -> float:
    """The speed, or the highest of the recipe's at which the targets of all these fit."""
    bound = min((corpus.fastest[i] for i in indices if corpus.fastest), default=speed)
    if speed <= bound:
        return speed
    return max((s for s in augment.speeds if s <= bound), default=min(augment.speeds))


def _varied(
    item: Item, corpus: Corpus, augment: AugmentConfig, random: np.random.Generator
) -> Item:
    """The same with another tempo, codec and ends; for a change that is off, no random number is
    drawn."""
    if augment.tempos != [1.0]:
        fastest = min([2.0, *(corpus.fastest[index] for index in item.indices if corpus.fastest)])
        tempo = min(float(random.choice(augment.tempos)), fastest / item.speed)
        item = replace(item, tempo=tempo)
    if augment.codec_prob and random.random() < augment.codec_prob:
        item = replace(item, codec=augment.codecs[int(random.integers(len(augment.codecs)))])
    if augment.trim_prob and random.random() < augment.trim_prob:
        item = replace(item, trim_db=float(random.uniform(*TRIM_DB)))
    return item


def plan_in_order(
    durations: Sequence[float], batch_seconds: float, places: Sequence[int] | None = None
) -> list[list[Item]]:
    """Batches of similar length for evaluation: every utterance, or those of `places`, once,
    unchanged, longest first."""
    chosen = range(len(durations)) if places is None else places
    order = sorted(chosen, key=lambda i: -durations[i])
    return _cut([whole(i) for i in order], [durations[i] for i in order], batch_seconds)


def plan_all(corpus: Corpus, batch_seconds: float) -> list[list[Item]]:
    """Every training utterance once, unchanged; if shards are fetched, group by group."""
    parts = windows(corpus, np.random.default_rng(0))
    durations = corpus.durations
    return [b for part in parts for b in plan_in_order(durations, batch_seconds, part.tolist())]


def smaller(
    batches: Sequence[Sequence[Item]], durations: Sequence[float], batch_seconds: float
) -> list[list[Item]]:
    """The same items in the same order, with every batch cut into parts of at most
    `batch_seconds`."""
    return [
        part
        for batch in batches
        for part in _cut(batch, [item.seconds(durations) for item in batch], batch_seconds)
    ]


def fill_share(batches: Sequence[Sequence[Item]], durations: Sequence[float]) -> float:
    """Fraction of the padded batches' seconds that is speech rather than padding."""
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
