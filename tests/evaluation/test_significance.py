from __future__ import annotations

import math

import numpy as np
import pytest

from asr.evaluation.error_rate import ErrorCounts
from asr.evaluation.significance import (
    matched_pairs,
    paired_bootstrap,
    randomisation,
    segment_errors,
)
from asr.text.edit_distance import align_words


def counts(errors: list[int], length: int = 8) -> dict[str, ErrorCounts]:
    return {f"u{i}": ErrorCounts(e, 0, 0, length) for i, e in enumerate(errors)}


def test_a_system_against_itself() -> None:
    same = paired_bootstrap(counts([0, 3, 1]), counts([0, 3, 1]))
    assert (same.difference, same.interval, same.not_better) == (0.0, None, 1.0)


def test_a_system_that_is_better_everywhere() -> None:
    better = paired_bootstrap(counts([0, 1, 2, 0]), counts([1, 2, 3, 1]))
    assert better.difference == -1 / 8
    assert better.not_better == 0.0
    # All differ alike: that says nothing of how far chance may move the difference.
    assert better.interval is None


def test_pairing_sees_what_two_intervals_cannot() -> None:
    random = np.random.default_rng(0)
    hard = random.integers(0, 7, 200)  # some utterances are hard for both
    gain = random.random(200) < 0.3
    result = paired_bootstrap(counts((hard - gain * (hard > 0)).tolist()), counts(hard.tolist()))
    assert result.interval is not None
    low, high = result.interval
    assert low < result.difference < high < 0
    assert high - low < 0.03
    assert result.not_better == 0.0


def test_chance_is_called_chance() -> None:
    random = np.random.default_rng(1)
    one, other = (counts(random.integers(0, 4, 300).tolist()) for _ in range(2))
    result = paired_bootstrap(one, other)
    assert result.interval is not None
    assert result.interval[0] < 0 < result.interval[1]
    assert 0.02 < result.not_better < 0.98


def test_the_same_seed_gives_the_same_whatever_the_order() -> None:
    one, other = counts([0, 2, 5, 1]), counts([1, 1, 5, 3])
    turned = dict(reversed(one.items()))
    assert paired_bootstrap(one, other) == paired_bootstrap(turned, other)
    assert paired_bootstrap(one, other, seed=1) != paired_bootstrap(one, other, seed=2)


def test_what_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="same utterances"):
        paired_bootstrap(counts([1, 2]), counts([1]))
    with pytest.raises(ValueError, match="same utterances"):
        paired_bootstrap({}, {})
    with pytest.raises(ValueError, match="same references"):
        paired_bootstrap(counts([1]), counts([1], length=9))


def test_p_value_is_large_for_equals_and_never_zero() -> None:
    assert paired_bootstrap(counts([0, 3, 1] * 2), counts([0, 3, 1] * 2)).p_value == 1.0
    better = paired_bootstrap(counts([0] * 40), counts([1] * 40))
    assert better.p_value == pytest.approx(2 / 10001)


def test_few_utterances_prove_nothing() -> None:
    one = paired_bootstrap(counts([0]), counts([1]))
    assert (one.difference, one.interval, one.p_value) == (-1 / 8, None, None)
    # Of k utterances that differ, all one way, two in 2^k assignments of signs are as extreme.
    for differing in range(1, 12):
        errors = [1] * differing + [0] * (200 - differing)
        found = paired_bootstrap(counts([0] * 200), counts(errors)).p_value
        assert found is not None
        assert found >= 2.0 ** (1 - differing)


def test_p_falls_as_evidence_grows() -> None:
    found = []
    for count in range(5, 200):
        right = align_words(["a b c"] * count, ["a b c"] * count)
        wrong = align_words(["a b c"] * count, ["a b x"] * count)
        found.append(matched_pairs(right, wrong).p_value)
    assert found == [2.0 ** (1 - count) for count in range(5, 200)]


def test_segments_with_as_many_errors_in_both_are_no_evidence() -> None:
    said, other = "a b c", "a b x"
    found = set()
    for ties in (0, 20, 60, 300):  # the fifty are of segments that differ
        better = [said] * 6 + [other] * ties
        worse = [other] * (6 + ties)
        rows = [align_words([said] * len(worse), texts) for texts in (better, worse)]
        found.add(matched_pairs(*rows).p_value)
    assert found == {2.0**-5}


def test_p_values_of_equal_systems_are_spread_evenly() -> None:
    random = np.random.default_rng(5)
    found = []
    for experiment in range(300):
        one, other = random.binomial(8, 0.2, (2, 130))
        result = paired_bootstrap(
            counts(one.tolist()), counts(other.tolist()), draws=500, seed=experiment
        )
        assert result.p_value is not None
        found.append(result.p_value)
    # One test in twenty is called significant at 5 %, one in two at 50 %.
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09
    assert 0.40 <= np.mean(np.array(found) < 0.5) <= 0.60


def test_segments_end_where_two_words_are_right_in_both() -> None:
    said = "a b c d e f g h"
    one, other = align_words([said, said], ["a x c d e f y h", "a b z c d e f g h"])
    # Between the errors at b and g, c stands alone in the second system after its z: that is one
    # segment; d e f part it from the next, which only the first system has.
    assert list(segment_errors(one, other)) == [(1, 1), (1, 0)]
    same = align_words([said], [said])[0]
    assert list(segment_errors(same, same)) == []


def test_one_right_word_does_not_end_a_segment() -> None:
    one, other = align_words(["a b c d"] * 2, ["x b y d", "a b c d"])
    assert list(segment_errors(one, other)) == [(2, 0)]


def misheard(random: np.random.Generator, said: list[str], words: list[str], rate: float) -> str:
    heard: list[str] = []
    for word in said:
        dice = random.random()
        if dice < rate * 0.6:
            heard.append(str(random.choice(words)))
        elif dice < rate * 0.8:
            continue
        elif dice < rate:
            heard += [word, str(random.choice(words))]
        else:
            heard.append(word)
    return " ".join(heard)


def test_matched_pairs_agree_with_nist() -> None:
    # The same 120 utterances, written as trn files, through sclite -F and
    # sc_stats -p -t mapsswe -v of SCTK 2.4.10 (Debian's sctk package) on 2026-11-21: 92 and 129
    # errors in 827 words; 151 segments, mean -0.245, standard deviation 1.189, Z -2.533.
    random = np.random.default_rng(3)
    words = [a + b for a in "bdfgklmnprst" for b in ("an", "el", "im", "or", "ut")]
    references, first, second = [], [], []
    for _ in range(120):
        said = [str(word) for word in random.choice(words, random.integers(2, 12))]
        references.append(" ".join(said))
        first.append(misheard(random, said, words, 0.10))
        second.append(misheard(random, said, words, 0.16))
    one, other = align_words(references, first), align_words(references, second)
    assert sum(c.operation != "C" for row in one for c in row) == 92
    assert sum(c.operation != "C" for row in other for c in row) == 129
    result = matched_pairs(one, other)
    assert result.segments == 151
    assert result.mean == pytest.approx(-0.245, abs=5e-4)
    assert result.z == pytest.approx(-2.533, abs=5e-4)
    # Two sides of the standard normal distribution beyond 2.533.
    assert result.p_value == pytest.approx(0.0113, abs=5e-5)


def test_few_segments_have_an_exact_p_value() -> None:
    # B is right, A errs in each of so many utterances: all signs but two differ less.
    for count, expected in ((1, None), (4, None), (5, 2 / 32), (10, 2 / 1024)):
        right = align_words(["a b c"] * count, ["a b c"] * count)
        wrong = align_words(["a b c"] * count, ["a b x"] * count)
        result = matched_pairs(right, wrong)
        assert (result.segments, result.z, result.p_value) == (count, 0.0, expected)


def test_exact_and_normal_p_values_meet() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        differences = [int(d) for d in random.integers(-2, 3, 400)]
        z = np.mean(differences) / (np.std(differences, ddof=1) / 20)
        normal = math.erfc(abs(z) / math.sqrt(2))
        assert randomisation(differences) == pytest.approx(normal, abs=0.03)


def test_matched_pairs_of_equal_systems_show_nothing() -> None:
    rows = align_words(["a b", "c d"] * 6, ["a x", "c d"] * 6)
    assert matched_pairs(rows, rows).p_value == 1.0
    assert matched_pairs([], []).p_value is None
    with pytest.raises(ValueError, match="same utterances"):
        matched_pairs(rows, [])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        matched_pairs(rows[:1], align_words(["a"], ["a"]))
