from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.augment.config import AugmentConfig
from asr.dataset.cuts import Corpus, Item, whole
from asr.dataset.sampler import JITTER, fill_share, plan_epoch, plan_in_order

SPEEDS = [0.9, 1.0, 1.1]
durations_lists = st.lists(st.floats(0.05, 30), min_size=1, max_size=60)


def an4_like(count: int = 830) -> list[float]:
    """Durations in seconds: half a second to seven, most of them short."""
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(0.9, 0.6, count), 0.5, 7.0).tolist()


def plan(
    durations: Sequence[float],
    limit: float,
    speeds: list[float],
    seed: int,
    epoch: int,
    speakers: Sequence[str] = (),
    concatenate_prob: float = 0.0,
) -> list[list[Item]]:
    augment = AugmentConfig(speeds=speeds, concatenate_prob=concatenate_prob)
    return plan_epoch(Corpus(durations, speakers), augment, limit, seed, epoch)


def first(item: Item) -> int:
    return item.indices[0]


def padded_seconds(batch: Sequence[Item], durations: Sequence[float]) -> float:
    lasts = [sum(durations[i] for i in item.indices) / item.speed for item in batch]
    return len(batch) * max(lasts)


@settings(max_examples=100)
@given(
    durations_lists,
    st.floats(1, 100),
    st.lists(st.sampled_from(SPEEDS), min_size=1, max_size=3),
    st.integers(0, 2**32),
    st.integers(0, 3),
)
def test_every_utterance_once_within_the_limit(
    durations: list[float], limit: float, speeds: list[float], seed: int, epoch: int
) -> None:
    batches = plan(durations, limit, speeds, seed, epoch)
    indices = [first(item) for batch in batches for item in batch]
    assert sorted(indices) == list(range(len(durations)))
    assert {item.speed for batch in batches for item in batch} <= set(speeds)
    sizes = [padded_seconds(batch, durations) for batch in batches]
    for batch, size in zip(batches, sizes, strict=True):
        assert len(batch) == 1 or size <= limit * (1 + 1e-9)
    if epoch == 0:
        assert sizes[0] == max(sizes)
    assert batches == plan(list(durations), limit, list(speeds), seed, epoch)


@settings(max_examples=100)
@given(durations_lists, st.floats(1, 100))
def test_in_order_every_utterance_once_unchanged_longest_first(
    durations: list[float], limit: float
) -> None:
    batches = plan_in_order(durations, limit)
    items = [item for batch in batches for item in batch]
    assert sorted(first(item) for item in items) == list(range(len(durations)))
    assert all(item.speed == 1.0 for item in items)
    lengths = [durations[first(item)] for item in items]
    assert lengths == sorted(durations, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or padded_seconds(batch, durations) <= limit * (1 + 1e-9)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.floats(0.05, 30), st.sampled_from(["", "ann", "bob"])), min_size=1),
    st.floats(1, 100),
    st.sampled_from([0.3, 1.0]),
    st.integers(0, 2**32),
    st.integers(0, 1),
)
def test_concatenated_utterances_share_a_speaker_and_are_not_longer_than_the_longest(
    utterances: list[tuple[float, str]], limit: float, prob: float, seed: int, epoch: int
) -> None:
    durations, speakers = [d for d, _ in utterances], [speaker for _, speaker in utterances]
    batches = plan(durations, limit, SPEEDS, seed, epoch, speakers, prob)
    items = [item for batch in batches for item in batch]
    assert sorted(i for item in items for i in item.indices) == list(range(len(durations)))
    for item in items:
        assert len(item.indices) <= 2
        assert len({speakers[i] for i in item.indices}) == 1
        assert len(item.indices) == 1 or speakers[first(item)]
        assert sum(durations[i] for i in item.indices) <= max(durations)
        assert item.seconds(durations) * item.speed == pytest.approx(
            sum(durations[i] for i in item.indices)
        )
    sizes = [padded_seconds(batch, durations) for batch in batches]
    for batch, size in zip(batches, sizes, strict=True):
        assert len(batch) == 1 or size <= limit * (1 + 1e-9)
    if epoch == 0:
        assert sizes[0] == max(sizes)
    assert batches == plan(durations, limit, SPEEDS, seed, epoch, speakers, prob)


def test_joining_joins_more_the_more_it_is_asked_for() -> None:
    durations = an4_like()
    speakers = [f"s{i % 20}" for i in range(len(durations))]
    shares = []
    for prob in (0.0, 0.2, 1.0):
        batches = plan(durations, 48.0, SPEEDS, 1, 1, speakers, prob)
        joined = [item for batch in batches for item in batch if len(item.indices) == 2]
        shares.append(2 * len(joined) / len(durations))
        assert fill_share(batches, durations) >= 0.95
    assert shares[0] == 0.0
    assert 0.1 < shares[1] < 0.5
    assert shares[2] > 0.6
    # Who is joined with whom changes every epoch.
    plans = [plan(durations, 48.0, SPEEDS, 1, e, speakers, 1.0) for e in (1, 2)]
    pairs = [
        {item.indices for batch in p for item in batch if len(item.indices) == 2} for p in plans
    ]
    assert len(pairs[0] & pairs[1]) < len(pairs[0]) / 4


def test_batches_take_all_that_fits() -> None:
    assert [len(b) for b in plan_in_order([1.0] * 10, 4.0)] == [4, 4, 2]
    assert [len(b) for b in plan_in_order([9.0, 2.0, 2.0, 1.0], 4.0)] == [1, 2, 1]
    assert sorted(len(b) for b in plan([1.0] * 10, 4.0, [1.0], seed=0, epoch=1)) == [2, 4, 4]


def test_the_limit_counts_seconds_after_speed_perturbation() -> None:
    assert len(plan([1.0] * 4, 4.0, [1.0], seed=0, epoch=0)) == 1
    assert len(plan([1.0] * 4, 4.0, [0.5], seed=0, epoch=0)) == 2
    assert len(plan([1.0] * 4, 4.0, [2.0], seed=0, epoch=0)) == 1


def test_no_utterance_is_played_faster_than_its_transcript_fits() -> None:
    corpus = Corpus([1.0, 1.0, 1.0], ["ann"] * 3, fastest=[1.0, 0.9, 1.1])
    drawn: dict[int, set[float]] = {0: set(), 1: set(), 2: set()}
    for epoch in range(60):
        for item in plan_epoch(corpus, AugmentConfig(speeds=SPEEDS), 9.0, 1, epoch)[0]:
            drawn[first(item)].add(item.speed)
    assert drawn == {0: {0.9, 1.0}, 1: {0.9}, 2: {0.9, 1.0, 1.1}}


def test_tempos_above_one_are_played() -> None:
    corpus = Corpus([1.0] * 3, ["ann"] * 3, fastest=[1.1, 0.99, 1.21])
    augment = AugmentConfig(speeds=[0.9, 1.0, 1.1], tempos=[1.0, 1.1], concatenate_prob=0)
    drawn: dict[int, set[tuple[float, float]]] = {0: set(), 1: set(), 2: set()}
    for epoch in range(80):
        for item in plan_epoch(corpus, augment, 9.0, 1, epoch)[0]:
            drawn[first(item)].add((item.speed, round(item.tempo, 3)))
    assert (1.1, 1.1) in drawn[2]
    assert {speed for speed, _ in drawn[1]} == {0.9}  # a speed of the recipe, not 0.99
    assert max(speed * tempo for speed, tempo in drawn[0]) <= 1.1001


def test_new_words_are_not_played_faster_than_they_fit() -> None:
    corpus = Corpus([1.0, 1.0], ["ann"] * 2, fastest=[1.1, 0.9], word_starts={1: [0.0, 0.5]})
    augment = AugmentConfig(speeds=[0.9, 1.1], splice_prob=1.0, concatenate_prob=0)
    items = [i for epoch in range(9) for b in plan_epoch(corpus, augment, 9.0, 1, epoch) for i in b]
    assert {index for item in items for index in item.indices} == {1}
    assert {item.speed for item in items} == {0.9}


def test_nothing_to_plan_in_order() -> None:
    assert plan_in_order([], 10.0) == []


def test_epochs_and_seeds_differ() -> None:
    durations = an4_like()
    plans = [plan(durations, 48.0, SPEEDS, seed, epoch) for seed in (1, 2) for epoch in (1, 2)]
    assert all(a != b for i, a in enumerate(plans) for b in plans[:i])
    # Not only the order: which utterances share a batch changes, and so do their speeds.
    together = [{frozenset(first(item) for item in batch) for batch in p} for p in plans[:2]]
    assert len(together[0] & together[1]) < len(plans[0]) / 2
    speeds = [{first(item): item.speed for batch in p for item in batch} for p in plans[:2]]
    assert speeds[0] != speeds[1]
    assert set(speeds[0].values()) == set(SPEEDS)


def test_batches_differ_even_at_one_speed() -> None:
    durations = an4_like()
    plans = [plan(durations, 48.0, [1.0], seed=1, epoch=epoch) for epoch in (1, 2)]
    together = [{frozenset(first(item) for item in batch) for batch in p} for p in plans]
    assert len(together[0] & together[1]) < len(plans[0]) / 2


def test_the_first_epoch_goes_from_short_to_long_after_the_largest() -> None:
    durations = an4_like()
    largest, *rest = plan(durations, 48.0, SPEEDS, seed=1, epoch=0)
    assert padded_seconds(largest, durations) >= max(padded_seconds(b, durations) for b in rest)
    means = [float(np.mean([durations[first(i)] / i.speed for i in batch])) for batch in rest]
    assert all(a <= b * (1 + JITTER) / (1 - JITTER) for a, b in itertools.pairwise(means))
    assert means[-1] > 2 * means[0]


def test_later_epochs_mix_short_and_long_batches() -> None:
    durations = an4_like()
    batches = plan(durations, 48.0, SPEEDS, seed=1, epoch=1)
    longest = [max(durations[first(item)] for item in batch) for batch in batches]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("epoch", [0, 1, 7])
@pytest.mark.parametrize("seed", [1, 2])
def test_batches_of_a_small_corpus_are_full(seed: int, epoch: int) -> None:
    durations = an4_like()
    batches = plan(durations, 48.0, SPEEDS, seed, epoch)
    assert fill_share(batches, durations) >= 0.95
    assert fill_share(plan_in_order(durations, 60.0), durations) >= 0.95


def test_fill_share_by_hand() -> None:
    batches = [[whole(0), whole(1)], [whole(2, speed=0.5)]]
    assert fill_share(batches, [4.0, 2.0, 1.0]) == pytest.approx((4 + 2 + 2) / (8 + 2))
    assert fill_share([[whole(2, 1), whole(0)]], [4.0, 2.0, 1.0]) == pytest.approx(7 / 8)
    assert fill_share([], []) == 1.0
