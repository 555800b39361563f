from __future__ import annotations

import numpy as np
import pytest

from asr.evaluation.error_rate import ErrorCounts
from asr.evaluation.significance import paired_bootstrap


def counts(errors: list[int], length: int = 8) -> dict[str, ErrorCounts]:
    return {f"u{i}": ErrorCounts(e, 0, 0, length) for i, e in enumerate(errors)}


def test_a_system_against_itself() -> None:
    same = paired_bootstrap(counts([0, 3, 1]), counts([0, 3, 1]))
    assert (same.difference, same.low, same.high, same.not_better) == (0.0, 0.0, 0.0, 1.0)


def test_a_system_that_is_better_everywhere() -> None:
    better = paired_bootstrap(counts([0, 1, 2, 0]), counts([1, 2, 3, 1]))
    assert better.difference == better.low == better.high == -1 / 8
    assert better.not_better == 0.0


def test_pairing_sees_what_two_intervals_cannot() -> None:
    random = np.random.default_rng(0)
    hard = random.integers(0, 7, 200)  # some utterances are hard for both
    gain = random.random(200) < 0.3
    result = paired_bootstrap(counts((hard - gain * (hard > 0)).tolist()), counts(hard.tolist()))
    assert result.low < result.difference < result.high < 0
    assert result.high - result.low < 0.03
    assert result.not_better == 0.0


def test_chance_is_called_chance() -> None:
    random = np.random.default_rng(1)
    one, other = (counts(random.integers(0, 4, 300).tolist()) for _ in range(2))
    result = paired_bootstrap(one, other)
    assert result.low < 0 < result.high
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
