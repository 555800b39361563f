"""Covers `asr/text/edit_distance.py`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import AsrError
from asr.evaluation.error_rate import (
    ErrorCounts,
    Scores,
    bootstrap_interval,
    score,
    sentence_counts,
)
from tests.bench.intervals import coverage

# Few words, so that matches happen; "aa" and "a b" differ in characters as well as in words.
texts = st.lists(st.sampled_from(["a", "b", "aa", "東京", "'"]), max_size=8).map(" ".join)
corpora = st.dictionaries(st.sampled_from("uvwxyz"), st.tuples(texts, texts), min_size=1)


def score_pairs(pairs: dict[str, tuple[str, str]]) -> Scores:
    return score({k: r for k, (r, _) in pairs.items()}, {k: h for k, (_, h) in pairs.items()})


def score_one(reference: str, hypothesis: str) -> Scores:
    return score_pairs({"u": (reference, hypothesis)})


def edit_distance(left: str | list[str], right: str | list[str]) -> int:
    """The textbook table, one row at a time."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            previous, row[j] = row[j], min(previous + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "characters"),
    [
        ("one two", "one two", (0, 0, 0, 2), (0, 0, 0, 7)),
        ("one two", "one too", (1, 0, 0, 2), (1, 0, 0, 7)),
        ("a b c d", "b c d", (0, 1, 0, 4), (0, 2, 0, 7)),
        ("b c d", "a b c d", (0, 0, 1, 3), (0, 0, 2, 5)),
        ("ab", "a b", (1, 0, 1, 1), (0, 0, 1, 2)),  # a wrong boundary is one character error
        ("a b", "", (0, 2, 0, 2), (0, 3, 0, 3)),
        ("", "a b", (0, 0, 2, 0), (0, 0, 3, 0)),
        ("", "", (0, 0, 0, 0), (0, 0, 0, 0)),
        (" a \t b\n", "a b", (0, 0, 0, 2), (0, 0, 0, 3)),  # whitespace only separates
        ("Yes", "yes", (1, 0, 0, 1), (1, 0, 0, 3)),  # nothing else is normalised
        ("東京 です", "東 です", (1, 0, 0, 2), (0, 1, 0, 5)),
    ],
)
def test_worked_by_hand(
    reference: str, hypothesis: str, words: tuple[int, ...], characters: tuple[int, ...]
) -> None:
    scores = score_one(reference, hypothesis)
    assert scores.characters == ErrorCounts(*characters)
    assert scores.words.errors == sum(words[:3])
    assert scores.words.reference_length == words[3]
    assert scores.words == ErrorCounts(*words)


def test_agrees_with_jiwer_on_a_corpus() -> None:
    chance = random.Random(0)
    vocabulary = ["one", "two", "three", "four", "oh", "a", "b", "yes"]
    references = [chance.choices(vocabulary, k=chance.randint(1, 20)) for _ in range(300)]
    hypotheses = [
        [chance.choice(vocabulary) if chance.random() < 0.2 else word for word in words]
        + chance.choices(vocabulary, k=chance.randint(0, 2))
        for words in references
    ]
    r, h = [" ".join(words) for words in references], [" ".join(words) for words in hypotheses]
    scores = score_pairs({str(i): pair for i, pair in enumerate(zip(r, h, strict=True))})
    words, characters = jiwer.process_words(r, h), jiwer.process_characters(r, h)
    for counts, theirs in ((scores.words, words), (scores.characters, characters)):
        assert counts.substitutions == theirs.substitutions
        assert counts.deletions == theirs.deletions
        assert counts.insertions == theirs.insertions
        assert counts.reference_length == theirs.hits + theirs.substitutions + theirs.deletions
    assert scores.words.rate == pytest.approx(jiwer.wer(r, h), abs=1e-12)
    assert scores.characters.rate == pytest.approx(jiwer.cer(r, h), abs=1e-12)


@given(texts, texts)
def test_errors_are_the_edit_distance(reference: str, hypothesis: str) -> None:
    scores, swapped = score_one(reference, hypothesis), score_one(hypothesis, reference)
    for ours, back, left, right in (
        (scores.words, swapped.words, reference.split(), hypothesis.split()),
        (scores.characters, swapped.characters, list(reference), list(hypothesis)),
    ):
        assert ours.errors == edit_distance(left, right) == back.errors
        assert ours.errors >= abs(len(left) - len(right))
        assert ours.deletions - ours.insertions == len(left) - len(right)
        assert ours.reference_length == len(left)


@given(texts, texts)
def test_alignment_spells_both_sides_and_carries_the_counts(
    reference: str, hypothesis: str
) -> None:
    (utterance,) = score_one(reference, hypothesis).utterances
    columns = utterance.alignment
    assert [c.reference for c in columns if c.reference is not None] == reference.split()
    assert [c.hypothesis for c in columns if c.hypothesis is not None] == hypothesis.split()
    for operation, left, right in columns:
        expected = "D" if right is None else "I" if left is None else "C" if left == right else "S"
        assert operation == expected
    operations = [column.operation for column in columns]
    words = utterance.words
    assert operations.count("S") == words.substitutions
    assert operations.count("D") == words.deletions
    assert operations.count("I") == words.insertions


@given(corpora, st.randoms(use_true_random=False))
def test_order_of_utterances_changes_no_figure(
    pairs: dict[str, tuple[str, str]], chance: random.Random
) -> None:
    shuffled = dict(chance.sample(sorted(pairs.items()), len(pairs)))
    one, other = score_pairs(pairs), score_pairs(shuffled)
    assert {u.id: u for u in one.utterances} == {u.id: u for u in other.utterances}
    assert list(shuffled) == [u.id for u in other.utterances]
    assert (one.words, one.characters, one.sentences) == (
        other.words,
        other.characters,
        other.sentences,
    )
    intervals = [
        bootstrap_interval([u.words for u in scores.utterances], draws=50)
        for scores in (one, other)
    ]
    assert intervals[0] == intervals[1]


@given(corpora)
def test_totals_are_sums_and_alone_equals_together(pairs: dict[str, tuple[str, str]]) -> None:
    scores = score_pairs(pairs)
    alone = [score_one(*pair).utterances[0] for pair in pairs.values()]
    assert [u.words for u in alone] == [u.words for u in scores.utterances]
    assert scores.words == sum((u.words for u in alone), ErrorCounts())
    assert scores.characters == sum((u.characters for u in alone), ErrorCounts())
    wrong = sum(reference.split() != hypothesis.split() for reference, hypothesis in pairs.values())
    assert scores.sentences == ErrorCounts(substitutions=wrong, reference_length=len(pairs))


def test_missing_is_deletions_and_unexpected_is_left_out() -> None:
    scores = score({"a": "one two", "b": "three"}, {"z": "noise", "b": "three", "y": ""})
    assert scores.words == ErrorCounts(deletions=2, reference_length=3)
    assert scores.characters == ErrorCounts(deletions=7, reference_length=12)
    assert scores.missing == ("a",)
    assert scores.unexpected == ("z", "y")
    assert [u.id for u in scores.utterances] == ["a", "b"]
    assert scores.utterances[0].hypothesis == ""
    # An empty hypothesis costs the same, but it was given.
    assert score({"a": "one two"}, {"a": ""}).missing == ()


def test_no_hypothesis_at_all_and_no_reference_at_all() -> None:
    assert score({"a": "one two"}, {}).words == ErrorCounts(deletions=2, reference_length=2)
    with pytest.raises(AsrError, match="at least one reference"):
        score({}, {"a": "one"})


def test_rate_without_reference_words() -> None:
    assert ErrorCounts().rate == 0.0
    assert ErrorCounts(insertions=1).rate == math.inf
    assert str(ErrorCounts(insertions=1)) == "n/a (1/0: 0 S, 0 D, 1 I)"
    # The insertion still counts once other utterances bring words.
    assert (ErrorCounts(insertions=1) + ErrorCounts(reference_length=4)).rate == 0.25


def test_the_rate_of_a_sum_is_not_the_mean_of_rates() -> None:
    long, short = ErrorCounts(0, 0, 0, 9), ErrorCounts(1, 0, 0, 1)
    assert sum([long, short], ErrorCounts()).rate == 0.1
    assert str(ErrorCounts(30, 8, 8, 773)) == "5.95 % (46/773: 30 S, 8 D, 8 I)"


@pytest.mark.parametrize("counts", [(-1, 0, 0, 5), (0, 0, -1, 5), (2, 2, 0, 3)])
def test_impossible_counts_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ErrorCounts(*counts)


def test_sentence_counts_is_one_unit() -> None:
    right, wrong = score({"a": "x y", "b": "x y"}, {"a": "x y", "b": ""}).utterances
    assert sentence_counts(right) == ErrorCounts(reference_length=1)
    assert sentence_counts(wrong) == ErrorCounts(substitutions=1, reference_length=1)


def interval(
    counts: Sequence[ErrorCounts], confidence: float = 0.95, draws: int = 10000, seed: int = 0
) -> tuple[float, float]:
    found = bootstrap_interval(counts, confidence, draws, seed)
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("utterances", [5, 10, 20])
def test_interval_of_a_small_set_covers_the_true_rate(utterances: int, rate: float) -> None:
    found = coverage(utterances, rate, experiments=400)
    # The plain percentile bootstrap covers 59 to 85 % at five utterances. Above 95 % is no harm.
    assert found > 0.89


def test_interval_covers_the_true_rate_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    experiments, covered = 1000, 0
    for experiment in range(experiments):
        lengths = generator.integers(2, 12, size=130)
        # A speaker-like spread: half of the utterances are three times as hard.
        hard = generator.random(130) < 0.5
        errors = generator.binomial(lengths, np.where(hard, 0.3, 0.1))
        counts = [
            ErrorCounts(int(e), 0, 0, int(length))
            for e, length in zip(errors, lengths, strict=True)
        ]
        low, high = interval(counts, draws=400, seed=experiment)
        covered += low <= 0.2 <= high
    assert 0.93 <= covered / experiments <= 0.97


def test_interval_agrees_with_the_normal_approximation() -> None:
    # Equal lengths: the rate is a mean, so its standard error is known.
    errors = np.random.default_rng(1).binomial(10, 0.2, size=400)
    low, high = interval([ErrorCounts(int(e), 0, 0, 10) for e in errors])
    half = 1.96 * errors.std() / 10 / math.sqrt(400)
    assert low == pytest.approx(errors.mean() / 10 - half, abs=0.05 * half)
    assert high == pytest.approx(errors.mean() / 10 + half, abs=0.05 * half)


def test_interval_repeats_widens_with_confidence_and_holds_the_rate() -> None:
    counts = [ErrorCounts(i % 4, 0, 0, 5 + i % 7) for i in range(50)]
    narrow, wide = interval(counts, 0.5), interval(counts, 0.99)
    rate = sum(counts, ErrorCounts()).rate
    assert wide[0] < narrow[0] < rate < narrow[1] < wide[1]
    assert bootstrap_interval(counts) == bootstrap_interval(counts[::-1])
    assert bootstrap_interval(counts, seed=1) != bootstrap_interval(counts, seed=2)


def test_interval_at_the_edges() -> None:
    # Too few utterances, or spread so evenly that their differences say nothing.
    assert bootstrap_interval([ErrorCounts(1, 0, 0, 4)]) is None
    assert bootstrap_interval([ErrorCounts(k, 0, 0, 9) for k in range(4)]) is None
    assert bootstrap_interval([ErrorCounts(2, 0, 0, 9)] * 6) is None
    # 27 words without an error: at a rate of 12.8 % one would see none in 2.5 % of such tests.
    assert bootstrap_interval([ErrorCounts(reference_length=3)] * 9) == (
        0.0,
        pytest.approx(0.1277, abs=1e-4),
    )
    # The same the other way round.
    assert bootstrap_interval([ErrorCounts(3, reference_length=3)] * 9) == (
        pytest.approx(1 - 0.1277, abs=1e-4),
        1.0,
    )
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([ErrorCounts()] * 9) is None
    assert bootstrap_interval([ErrorCounts(insertions=1)] * 9) is None
    # Most utterances have no words: some draws have none at all, and no NaN comes of it.
    assert bootstrap_interval([ErrorCounts(insertions=1)] * 5 + [ErrorCounts(0, 0, 0, 1)]) == (
        0.5,
        math.inf,
    )
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval([ErrorCounts()], confidence=95)


def test_an_interval_of_few_errors_is_as_wide_as_the_binomial_one() -> None:
    # One error in 100 words: Clopper and Pearson (1934) give 0.0253 to 5.4459 %.
    low, high = interval([ErrorCounts(int(i == 0), 0, 0, 10) for i in range(10)])
    assert low == 0.0
    assert high >= 0.054459


def test_interval_of_more_utterances_than_one_chunk_of_draws_holds() -> None:
    counts = [ErrorCounts(1, 0, 0, 2), ErrorCounts(0, 0, 0, 2)] * 200_000
    low, high = interval(counts, draws=40)
    assert 0.24 < low < 0.25 < high < 0.26
