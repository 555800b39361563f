"""The queue of recognition is fair, and its batches are of similar length."""

from __future__ import annotations

from asr.serving.fair_queue import FairQueue, Flow


def taken(queue: FairQueue[str]) -> list[list[str]]:
    found = []
    while batch := queue.take():
        found.append(batch)
    return found


def test_pieces_of_similar_length_come_together() -> None:
    queue: FairQueue[str] = FairQueue(most_seconds=30, most_pieces=4)
    for name, seconds in (("a", 2.0), ("b", 9.0), ("c", 2.1), ("d", 9.5), ("e", 2.2)):
        queue.put(Flow(), "model", seconds, name)
    assert (len(queue), round(queue.seconds, 1)) == (5, 24.8)
    assert taken(queue) == [["a", "c", "e"], ["b", "d"]]
    assert (len(queue), queue.seconds) == (0, 0)


def test_a_batch_has_limits() -> None:
    queue: FairQueue[str] = FairQueue(most_seconds=30, most_pieces=4)
    for number in range(6):
        queue.put(Flow(), "model", 1.0, f"short {number}")
    for number in range(3):
        queue.put(Flow(), "model", 14.0, f"long {number}")
    queue.put(Flow(), "model", 50.0, "too long for any batch")
    assert [len(batch) for batch in taken(queue)] == [4, 2, 2, 1, 1]


def test_only_pieces_of_one_kind_come_together() -> None:
    queue: FairQueue[str] = FairQueue(30, 4)
    for name, key in (("a", 1), ("b", 2), ("c", 1)):
        queue.put(Flow(), key, 1.0, name)
    assert taken(queue) == [["a", "c"], ["b"]]


def test_short_recordings_pass_the_later_pieces_of_a_long_one() -> None:
    queue: FairQueue[str] = FairQueue(30, 1)
    long = Flow()
    for number in range(4):
        queue.put(long, "model", 10.0, f"long {number}")
    order = queue.take()
    for number in range(3):
        queue.put(Flow(), "model", 2.0, f"short {number}")
    order += [item for batch in taken(queue) for item in batch]
    assert order == ["long 0", "short 0", "short 1", "short 2", "long 1", "long 2", "long 3"]


def test_short_recordings_do_not_pass_for_ever() -> None:
    queue: FairQueue[str] = FairQueue(30, 1)
    queue.put(Flow(), "model", 10.0, "long")
    for number in range(100):
        queue.put(Flow(), "model", 2.0, f"short {number}")
        if queue.take() == ["long"]:
            break
    assert 3 <= number <= 6


def test_pieces_that_nobody_waits_for_are_dropped() -> None:
    queue: FairQueue[str] = FairQueue(30, 4)
    gone, there = Flow(), Flow()
    queue.put(gone, "model", 1.0, "gone")
    queue.put(there, "model", 1.0, "there")
    gone.is_cancelled = True
    assert taken(queue) == [["there"]]
