"""Live recognition for the clients of a server: samples in, texts out.

A session holds `AHEAD_S` seconds that wait for recognition. A client that sends faster than they
are recognised has to wait, so memory stays bounded.

S samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from asr.audio.mono import as_mono
from asr.inference.live import PIECE_S, REGIONS, Live, warm_up
from asr.inference.live_clock import Clock
from asr.inference.live_utterance import LiveText
from asr.inference.recognizer import Recognizer
from asr.inference.time_formats import shifted
from asr.serving.engine import Busy, Engine
from asr.serving.live_worker import LiveWorker

AHEAD_S = 1.0  # seconds of audio that wait for recognition
PATIENCE_S = 0.1  # seconds that `push` waits for the texts of what it is given
JOB_S = 0.5  # seconds of audio that are recognised at a time

_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True)
class SessionOptions:
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
        self._worker = LiveWorker(engine.turns)

    async def warm_up(self) -> None:
        """Recognise something with each model, which takes longer the first time."""
        for model in self.engine.models.values():
            await self._worker.run(partial(_warmed_up, model))

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

    async def start(self, options: SessionOptions, start: float = 0.0) -> LiveSession:
        """A session whose first sample is at second `start`; `close` it in the end.

        Raises UnknownModel, StreamError for a wrong rate, and LanguageModelError or ConfigError for
        hot words that the model cannot have.
        """
        recognizer = await self.engine.recognizer(options.model, options.hot_words)
        return LiveSession(recognizer, options, self._worker, start)

    def close(self) -> None:
        """End the thread of recognition."""
        self._worker.close()


class LiveSession:
    """Utterances of one client. One call at a time."""

    def __init__(
        self, recognizer: Recognizer, options: SessionOptions, worker: LiveWorker, start: float
    ) -> None:
        self._recognizer, self._options, self._worker = recognizer, options, worker
        self._start = start
        self._samples = 0
        self._work: asyncio.Task[None] | None = None
        self._waiting = _NOTHING
        self._texts: list[LiveText] = []
        self._renew()

    @property
    def seconds(self) -> float:
        """The end of all samples so far."""
        return self._start + self._samples / self._options.sample_rate

    @property
    def work(self) -> set[asyncio.Task[None]]:
        """The recognition that goes on, if any. When it is done, `taken` has its texts."""
        return set() if self._work is None else {self._work}

    async def push(self, samples: np.ndarray) -> list[LiveText]:
        """Recognise further samples; the texts so far: one for each change of an utterance. Those
        of the last samples may come later. Shape: [S], any S; floating point within [-1, 1], or
        16-bit or 32-bit integers.

        Raises StreamError for other samples.
        """
        rate, found = self._options.sample_rate, self.taken()
        self._samples += len(samples)
        self._waiting = np.concatenate([self._waiting, as_mono(samples)])
        if self._work is None and len(self._waiting) >= PIECE_S * rate:
            self._work = asyncio.ensure_future(self._recognize())
        if self._work is not None:
            is_full = len(self._waiting) > AHEAD_S * rate
            # At most half as long as the samples last: short messages must not fall behind.
            patience = min(PATIENCE_S, 0.5 * len(samples) / rate)
            await asyncio.wait({self._work}, timeout=None if is_full else patience)
        return found + self.taken()

    def taken(self) -> list[LiveText]:
        """The texts since the last call. Raises what recognition has raised."""
        if self._work is not None and self._work.done():
            work, self._work = self._work, None
            work.result()
        found, self._texts = self._texts, []
        return found

    async def end_utterance(self) -> list[LiveText]:
        """The last texts of the utterance that ends here. Later samples begin another one."""
        if self._work is not None:
            await asyncio.wait({self._work})
        found = self.taken()
        rest, self._waiting = self._waiting, _NOTHING
        found += await self._worker.run(partial(self._finished, rest))
        self._renew()
        return found

    async def clear(self) -> None:
        """Drop the utterance that has begun."""
        self._waiting = _NOTHING
        if self._work is not None:
            await asyncio.wait({self._work})
        self.taken()
        self._renew()

    def close(self) -> None:
        """Cancel recognition and drop pending samples."""
        if self._work is not None:
            self._work.cancel()

    def _renew(self) -> None:
        self._start, self._samples = self.seconds, 0
        self._clock = Clock()
        bundle, decoder = self._recognizer.bundle, self._recognizer.decoder
        regions = replace(REGIONS, silence_s=self._options.silence_s)
        self._live = Live(bundle, decoder, self._options.sample_rate, self._clock, regions)

    async def _recognize(self) -> None:
        rate = self._options.sample_rate
        piece, most = max(1, round(PIECE_S * rate)), max(1, round(JOB_S * rate))
        while len(self._waiting) >= piece:
            whole = min(len(self._waiting) - len(self._waiting) % piece, most)
            now, self._waiting = np.split(self._waiting, [whole])
            texts = await self._worker.run(partial(self._recognized, now))
            # Not `+= await`: it would extend the old list, which `taken` may have returned already.
            self._texts += texts

    # --- in the thread ---

    def _recognized(self, samples: np.ndarray, waited: float) -> list[LiveText]:
        # Sessions that wait leave out partial texts, so that the final ones are in time.
        self._clock.delay(waited)
        return [self._moved(text) for text in self._live.push(samples)]

    def _finished(self, samples: np.ndarray, waited: float) -> list[LiveText]:
        found = self._recognized(samples, waited)
        return found + [self._moved(text) for text in self._live.finish()]

    def _moved(self, text: LiveText) -> LiveText:
        words = tuple(shifted(word, self._start) for word in text.words)
        start, end = text.start + self._start, text.end + self._start
        return replace(text, start=start, end=end, words=words)


def _warmed_up(model: Recognizer, waited: float) -> None:
    warm_up(model.bundle, model.decoder)
