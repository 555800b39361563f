"""Work in threads, a bounded part of it at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

AHEAD = 32  # items that each thread may be ahead of the result that is awaited

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int | None = None
) -> Generator[_Result, None, None]:
    """The result for each item, in order. By default there is a thread for each processor.

    Close the generator to stop early: what has not begun is then not done. The first error of
    `function` stops it too.
    """
    count = workers or os.cpu_count() or 1
    threads = ThreadPoolExecutor(count)
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            if len(waiting) == AHEAD * count:
                yield waiting.popleft().result()
            waiting.append(threads.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
