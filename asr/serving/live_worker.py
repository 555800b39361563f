"""The thread of live recognition. It shares the recognition slots with the engine. While it holds a
slot, it runs jobs of all waiting sessions; otherwise each would wait for a batch of the engine."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asr.serving.turns import FairSemaphore

TURN_S = 0.3  # seconds of work in a turn

T = TypeVar("T")


@dataclass(frozen=True)
class _Job(Generic[T]):
    work: Callable[[float], T]
    done: asyncio.Future[T]
    asked: float

    def run(self) -> None:
        result, failure = None, None
        try:
            result = self.work(time.perf_counter() - self.asked)
        except Exception as error:
            failure = error
        self.done.get_loop().call_soon_threadsafe(_finish, self.done, result, failure)


def _finish(done: asyncio.Future[Any], result: object, failure: Exception | None) -> None:
    if done.done():  # the client has gone
        return
    if failure is None:
        done.set_result(result)
    else:
        done.set_exception(failure)


class LiveWorker:
    """Runs jobs of sessions, first come, first served."""

    def __init__(self, turns: FairSemaphore) -> None:
        self._turns = turns
        self._jobs: deque[_Job[Any]] = deque()
        self._thread = ThreadPoolExecutor(1, "live")

    async def run(self, work: Callable[[float], T]) -> T:
        """The result of a job, which gets the seconds that it had to wait."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(work, done, time.perf_counter()))
        self._thread.submit(self._turn)
        return await done

    def close(self) -> None:
        """End the thread after the job that it has; the others are cancelled."""
        while self._jobs:
            self._jobs.popleft().done.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _turn(self) -> None:
        if not self._jobs:  # done in an earlier turn
            return
        with self._turns.turn():
            until = time.perf_counter() + TURN_S
            while self._jobs:
                job = self._jobs.popleft()
                if not job.done.cancelled():
                    job.run()
                if time.perf_counter() > until:
                    return
