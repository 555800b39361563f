"""Recordings read by several threads, in order.

Decoding audio releases Python's lock for most of its time, so that threads decode several
recordings at once. A GPU recognises faster than one thread reads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from asr.errors import AsrError

S = TypeVar("S")
E = TypeVar("E")

LOOK_S = 1.0
"""Seconds between two checks that the threads are alive."""


@contextmanager
def read_by(
    count: int, sources: Iterable[S], read: Callable[[int, S], Iterator[E]], ahead: int
) -> Iterator[Iterator[E]]:
    """The events of `read(number, source)` for all sources, in their order, from `count` threads.

    At most `ahead` events are buffered, plus one of the recording whose events are due. One thread
    at a time takes the next source. An exception of `read` or of the sources is raised in its
    place, after all events before it. The threads have ended when the block is left.
    """
    state: _State[S, E] = _State(iter(sources), read, ahead)
    # Not daemons: if a signal interrupts `join`, Python waits for them before shutdown.
    threads = [threading.Thread(target=state.work) for _ in range(count)]
    started: list[threading.Thread] = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        yield state.arriving(threads)
    finally:
        state.stop()
        for thread in started:
            thread.join()


@dataclass
class _Recording(Generic[E]):
    """The events of a recording that wait."""

    events: deque[E] = field(default_factory=deque)
    ended: bool = False
    error: BaseException | None = None


class _State(Generic[S, E]):
    """What the threads share, under one lock."""

    def __init__(
        self, sources: Iterator[S], read: Callable[[int, S], Iterator[E]], ahead: int
    ) -> None:
        self._sources, self._read, self._ahead = sources, read, ahead
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        self._recordings: deque[_Recording[E]] = deque()
        """Those that are not used up, in order."""
        self._begun = 0
        self._waiting = 0
        self._exhausted = False
        self._stopped = False

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def work(self) -> None:
        """Read recordings until there are no more."""
        while (begun := self._begin()) is not None:
            number, source, recording = begun
            error = None
            try:
                for event in self._read(number, source):
                    if not self._put(recording, event):
                        return
            except BaseException as failure:
                error = failure
            self._end(recording, error)

    def _begin(self) -> tuple[int, S, _Recording[E]] | None:
        with self._asking:  # the sources may wait, for example for a pipe
            with self._changed:
                if self._stopped or self._exhausted:
                    return None
            recording: _Recording[E] = _Recording()
            try:
                source = next(self._sources)
            except BaseException as error:
                with self._changed:
                    self._exhausted = True
                    if not isinstance(error, StopIteration):
                        recording.error, recording.ended = error, True
                        self._recordings.append(recording)
                    self._changed.notify_all()
                return None
            with self._changed:
                number, self._begun = self._begun, self._begun + 1
                self._recordings.append(recording)
            return number, source, recording

    def _put(self, recording: _Recording[E], event: E) -> bool:
        """Add an event when there is room; False: it is not wanted any more."""
        with self._changed:
            # The first recording always has room for one: all others wait for it.
            self._changed.wait_for(
                lambda: (
                    self._stopped
                    or self._waiting < self._ahead
                    or (recording is self._recordings[0] and not recording.events)
                )
            )
            if self._stopped:
                return False
            recording.events.append(event)
            self._waiting += 1
            self._changed.notify_all()
            return True

    def _end(self, recording: _Recording[E], error: BaseException | None) -> None:
        with self._changed:
            recording.ended, recording.error = True, error
            self._changed.notify_all()

    def arriving(self, threads: list[threading.Thread]) -> Iterator[E]:
        """All events, in order."""
        while True:
            with self._changed:
                while not self._is_ready():
                    alive = any(thread.is_alive() for thread in threads)
                    if not self._changed.wait(LOOK_S) and not alive and not self._is_ready():
                        raise AsrError(
                            "expected more from the threads that read recordings, got their end "
                            "without an error: start the same command again"
                        )
                if not self._recordings:
                    return
                first = self._recordings[0]
                if not first.events:
                    self._recordings.popleft()
                    self._changed.notify_all()  # the next one is first now
                    if first.error is not None:
                        raise first.error
                    continue
                event = first.events.popleft()
                self._waiting -= 1
                self._changed.notify_all()
            yield event

    def _is_ready(self) -> bool:
        """Whether something is known of the first recording, or that there is none."""
        if not self._recordings:
            return self._exhausted
        return bool(self._recordings[0].events) or self._recordings[0].ended
