"""Prefetching in one thread, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from asr.errors import AsrError

T = TypeVar("T")
R = TypeVar("R")

_Result = tuple[R | None, BaseException | None] | None

LOOK_S = 1.0
"""Seconds between two checks that the thread is alive."""


@contextmanager
def prefetch(
    function: Callable[[T], R], items: Iterable[T], depth: int = 2
) -> Iterator[Iterator[R]]:
    """Apply `function` to `items` in order, in a thread that stays up to `depth` results ahead.

    An exception of `function` is raised in place of its result, and AsrError if the thread has
    ended without one. The thread has ended when the block is left, because a thread that runs while
    Python shuts down could abort the process.

    >>> with prefetch(abs, [-1, -2]) as results:
    ...     list(results)
    [1, 2]
    """
    results: queue.Queue[_Result[R]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(result: _Result[R]) -> bool:
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
        while (result := _next(results, thread)) is not None:
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


def _next(results: queue.Queue[_Result[R]], thread: threading.Thread) -> _Result[R]:
    while True:
        alive = thread.is_alive()
        try:
            return results.get(timeout=LOOK_S if alive else 0)
        except queue.Empty:
            if not alive:  # for example without memory to report it
                raise AsrError(
                    "expected more from the thread that reads ahead, got its end without an error: "
                    "start the same command again; a training resumes from its checkpoint"
                ) from None
