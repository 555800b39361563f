"""`in_threads`: order, a bounded number of items at a time, and an early end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from asr.io.threads import AHEAD, in_threads


def test_results_are_in_order_and_items_are_taken_as_needed() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(500):
            taken += 1
            yield number

    def late(number: int) -> int:
        time.sleep(0.001 * (number % 3 == 0))
        return -number

    found = []
    for result in in_threads(late, items(), workers=4):
        found.append(result)
        assert taken <= len(found) + 4 * AHEAD
    assert found == [-number for number in range(500)]
    assert list(in_threads(late, [])) == []


def test_an_early_end_leaves_the_rest() -> None:
    done = []

    def work(number: int) -> int:
        done.append(number)
        time.sleep(0.002)
        if number == 9:
            raise ValueError("nine")
        return number

    with closing(in_threads(work, range(10, 500), workers=2)) as results:
        assert next(results) == 10
    assert len(done) < 10
    with pytest.raises(ValueError, match="nine"):
        list(in_threads(work, range(500), workers=2))
    assert len(done) < 30
