"""Prefetching in one thread, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def prefetch(
    function: Callable[[T], R], items: Iterable[T], depth: int = 2
) -> Iterator[Iterator[R]]:
    """Apply `function` to `items` in order, in a thread that stays up to `depth` results ahead.

    An exception of `function` is raised in place of its result. The thread has ended when the block
    is left, because a thread that runs while Python shuts down could abort the process.

    >>> with prefetch(abs, [-1, -2]) as results:
    ...     list(results)
    [1, 2]
    """
    results: queue.Queue[tuple[R | None, BaseException | None] | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(result: tuple[R | None, BaseException | None] | None) -> bool:
        while not stopped.is_set():
            try:
                results.put(result, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((function(item), None)):
                    return
            put(None)
        except BaseException as error:
            put((None, error))

    def arriving() -> Iterator[R]:
        while (result := results.get()) is not None:
            value, error = result
            if error is not None:
                raise error
            yield cast(R, value)

    # Not a daemon: if a signal interrupts `join`, Python waits for it before shutdown.
    thread = threading.Thread(target=work)
    try:
        thread.start()
        yield arriving()
    finally:
        stopped.set()
        if thread.ident is not None:
            thread.join()
