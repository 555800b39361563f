"""Turns are taken in the order in which threads ask."""

from __future__ import annotations

import threading
import time

import pytest

from asr.serving.turns import FairSemaphore


def test_first_come_first_served() -> None:
    turns, order = FairSemaphore(), list[int]()

    def work(number: int) -> None:
        with turns.turn():
            order.append(number)

    threads = []
    with turns.turn():
        for number in range(5):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            while len(turns._waiting) <= number:
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3, 4]


def test_a_turn_ends_with_an_error_too() -> None:
    turns = FairSemaphore()
    with pytest.raises(ValueError, match="nothing"), turns.turn():
        raise ValueError("nothing")
    with turns.turn():
        pass


def test_several_have_turns_at_a_time() -> None:
    turns, together = FairSemaphore(2), threading.Barrier(2)

    def work() -> None:
        with turns.turn():
            together.wait(5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert (turns._free, together.broken) == (2, False)
