"""Live recognition for the clients of a server: samples in, texts out.

All sessions share one thread, which takes turns with the thread of the engine. A session recognises
what it is given before it takes more, so a client that sends faster than that has to wait, and
memory stays bounded.

S samples.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from asr.audio.mono import as_mono
from asr.inference.live import PIECE_S, REGIONS, Live
from asr.inference.live_clock import Clock
from asr.inference.live_utterance import LiveText, later
from asr.inference.recognizer import Recognizer
from asr.serving.engine import Busy, Engine
from asr.serving.turns import Turns

TURN_S = 0.5  # seconds of audio in a turn: others wait so long

_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True)
class LiveOptions:
    """How a session recognises."""

    model: str
    sample_rate: int
    """Hz of the samples."""
    hot_words: tuple[str, ...] = ()
    """Words and phrases that are expected."""
    silence_s: float = REGIONS.silence_s
    """The pause that ends an utterance."""


class LiveSessions:
    """The live sessions of a server: so many at once as the limits allow."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.count = 0
        """Clients that have a place at present."""
        self._thread = ThreadPoolExecutor(1, "live")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for a client, for as long as it is connected. Raises Busy."""
        most = self.engine.limits.live_sessions
        if self.count >= most:
            raise Busy(f"at most {most} live sessions", 10.0)
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    async def start(self, options: LiveOptions, start: float = 0.0) -> LiveSession:
        """A session whose first sample is at second `start`.

        Raises UnknownModel, StreamError for a wrong rate, and LanguageModelError or ConfigError for
        hot words that the model cannot have.
        """
        recognizer = await self.engine.recognizer(options.model, options.hot_words)
        session = LiveSession(recognizer, options, self.engine.turns, self._thread, start)
        await session.clear()
        return session

    def close(self) -> None:
        """End the thread, after the turn that it has."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class LiveSession:
    """Utterances of one client. One call at a time."""

    def __init__(
        self,
        recognizer: Recognizer,
        options: LiveOptions,
        turns: Turns,
        thread: ThreadPoolExecutor,
        start: float,
    ) -> None:
        self._recognizer, self._options = recognizer, options
        self._turns, self._thread = turns, thread
        self._start = start
        self._samples = 0
        self._waiting = _NOTHING  # less than is recognised at a time

    @property
    def seconds(self) -> float:
        """The end of all samples so far."""
        return self._start + self._samples / self._options.sample_rate

    async def push(self, samples: np.ndarray) -> list[LiveText]:
        """The texts that further samples give: a text for each change of an utterance. Shape: [S],
        any S; floating point within [-1, 1], or 16-bit integers.

        Raises StreamError for other samples.
        """
        rate = self._options.sample_rate
        self._samples += len(samples)
        waiting = np.concatenate([self._waiting, as_mono(samples)])
        whole = len(waiting) - len(waiting) % max(1, round(PIECE_S * rate))
        now, self._waiting = waiting[:whole], waiting[whole:]
        found: list[LiveText] = []
        step = max(1, round(TURN_S * rate))
        for at in range(0, len(now), step):
            found += await self._turn(partial(_push, now[at : at + step]))
        return found

    async def end_utterance(self) -> list[LiveText]:
        """The last texts of the utterance that ends here. Later samples begin another one."""
        found = await self._turn(partial(_push_last, self._waiting))
        await self.clear()
        return found

    async def clear(self) -> None:
        """Drop the utterance that has begun."""
        self._waiting, self._start, self._samples = _NOTHING, self.seconds, 0
        self._clock = Clock()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._renew)

    def _renew(self) -> None:
        bundle, decoder = self._recognizer.bundle, self._recognizer.decoder
        regions = replace(REGIONS, silence_s=self._options.silence_s)
        self._live = Live(bundle, decoder, self._options.sample_rate, self._clock, regions)

    async def _turn(self, work: Callable[[Live], Iterator[LiveText]]) -> list[LiveText]:
        asked = time.perf_counter()

        def run() -> list[LiveText]:
            with self._turns.turn():
                # Sessions that wait leave out partial texts, so that the final ones are in time.
                self._clock.delay(time.perf_counter() - asked)
                return [self._moved(text) for text in work(self._live)]

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _moved(self, text: LiveText) -> LiveText:
        words = tuple(later(word, self._start) for word in text.words)
        start, end = text.start + self._start, text.end + self._start
        return replace(text, start=start, end=end, words=words)


def _push(samples: np.ndarray, live: Live) -> Iterator[LiveText]:
    return live.push(samples)


def _push_last(samples: np.ndarray, live: Live) -> Iterator[LiveText]:
    yield from live.push(samples)
    yield from live.finish()
