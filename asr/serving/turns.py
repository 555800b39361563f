"""A fair semaphore: threads acquire it in the order of their requests.

With a plain lock, a thread that acquires it again at once could starve all others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class FairSemaphore:
    """A semaphore with `places` slots for recognition, first come, first served."""

    def __init__(self, places: int = 1) -> None:
        self.places = self._free = places
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn of the calling thread, as soon as all who asked before have had theirs."""
        own = threading.Event()
        with self._lock:
            if self._free:
                self._free -= 1
                own.set()
            else:
                self._waiting.append(own)
        own.wait()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._free += 1
