"""Recordings read by several threads: in order, whatever each takes, and never too far ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from asr.errors import AsrError
from asr.inference import readers
from asr.inference.readers import read_by

SOURCES = [3, 0, 1, 7, 2, 0, 5, 1]  # events of each


def events(number: int, count: int) -> Iterator[tuple[int, int]]:
    """The first recordings take longest."""
    for i in range(count):
        time.sleep(0.002 * (len(SOURCES) - number))
        yield number, i
    yield number, -1


EXPECTED = [(n, i) for n, count in enumerate(SOURCES) for i in [*range(count), -1]]


@pytest.mark.parametrize("count", [1, 2, 4, 20])
@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_events_come_in_the_order_of_the_sources(count: int, ahead: int) -> None:
    before = threading.active_count()
    with read_by(count, SOURCES, events, ahead) as found:
        assert list(found) == EXPECTED
    assert threading.active_count() == before


def test_no_sources() -> None:
    with read_by(3, [], events, 5) as found:
        assert list(found) == []


def test_several_are_read_at_once() -> None:
    together = threading.Barrier(3, timeout=10)

    def read(number: int, source: int) -> Iterator[int]:
        together.wait()
        yield source

    with read_by(3, range(6), read, 10) as found:
        assert list(found) == list(range(6))


def test_not_too_far_ahead() -> None:
    made: list[int] = []

    def read(number: int, source: int) -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    with read_by(4, range(10), read, 7) as found:
        next(found)
        time.sleep(0.1)
        # Those that wait, one that has been given, and one in the hands of each thread.
        assert len(made) <= 7 + 1 + 4


def test_the_first_has_room_where_others_wait() -> None:
    others = threading.Event()

    def read(number: int, source: int) -> Iterator[tuple[int, int]]:
        if number == 0:
            others.wait(10)
        for i in range(20):
            if i == 4:
                others.set()
            yield number, i

    with read_by(2, range(3), read, 5) as found:
        assert list(found) == [(n, i) for n in range(3) for i in range(20)]


def test_sources_are_asked_for_by_one_thread_at_a_time_and_not_too_early() -> None:
    asked: list[int] = []

    def sources() -> Iterator[int]:  # a generator raises ValueError if two threads ask at once
        for i in range(100):
            asked.append(i)
            time.sleep(0.001)
            yield i

    def read(number: int, source: int) -> Iterator[int]:
        yield source

    with read_by(4, sources(), read, 6) as found:
        assert next(found) == 0
        time.sleep(0.1)
        assert len(asked) <= 6 + 1 + 4
        assert list(found) == list(range(1, 100))


def test_an_exception_comes_in_its_place() -> None:
    def read(number: int, source: int) -> Iterator[int]:
        yield source
        if source == 2:
            raise MemoryError("full")

    with read_by(4, range(9), read, 100) as found:
        assert [next(found) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(MemoryError, match="full"):
            next(found)


def test_an_exception_of_the_sources_comes_after_all_before_it() -> None:
    def sources() -> Iterator[int]:
        yield 0
        yield 1
        raise RuntimeError("no more")

    got: list[tuple[int, int]] = []
    with read_by(3, sources(), events, 100) as found, pytest.raises(RuntimeError, match="no more"):
        got.extend(found)  # what comes before the exception is kept
    assert got == [(0, -1), (1, 0), (1, -1)]


def test_what_is_left_early_ends_all_threads() -> None:
    begun: list[int] = []
    closed: list[int] = []

    def read(number: int, source: int) -> Iterator[int]:
        begun.append(number)
        try:
            while True:
                yield number
        finally:
            closed.append(number)

    before = threading.active_count()
    with read_by(3, range(5), read, 4) as found:
        next(found)
        time.sleep(0.05)
    assert threading.active_count() == before
    assert begun
    assert sorted(closed) == sorted(begun)


def test_threads_that_are_gone_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LOOK_S", 0.01)
    monkeypatch.setattr(readers._State, "work", lambda self: None)
    with (
        read_by(2, range(3), events, 4) as found,
        pytest.raises(AsrError, match="got their end without an error"),
    ):
        list(found)
