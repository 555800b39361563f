"""The engine of a server: models, one queue of recognition, and the threads that recognise.

Recordings are decoded in other processes (`asr.serving.decoding_pool`), recognised in batches
(`asr.serving.fair_queue`), and give the text that `asr transcribe` gives.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from asr.errors import AsrError, AudioError
from asr.inference.batches import Batches
from asr.inference.live import warm_up
from asr.inference.long_form import Ended, Part, Read, Reading, longest_piece, segments_of
from asr.inference.onnx_model import OnnxModel
from asr.inference.recognizer import Recognizer
from asr.inference.transcript import Segment, Transcript
from asr.serving.decoding_pool import DecodingPool
from asr.serving.fair_queue import FairQueue, Flow
from asr.serving.hot_words import HotDecoders
from asr.serving.limits import Limits
from asr.serving.turns import FairSemaphore

BATCH_S = 30.0  # seconds of audio in a batch, with padding: others wait so long
BATCH_PIECES = 16
GATHER_S = 0.004  # seconds that a batch waits for recordings that are being decoded
AHEAD = 4  # pieces of a recording that wait for recognition


class Busy(AsrError):  # noqa: N818
    """The server has as much to do as its limits allow."""

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"expected {what}, got too many at once: try again later")
        self.retry_after = max(1, round(retry_after))
        """Seconds."""


class UnknownModel(AsrError):  # noqa: N818
    """No model of that name is served."""


class TooLong(AudioError):  # noqa: N818
    """A recording has more seconds than the limits allow."""


@dataclass(frozen=True)
class Options:
    """How a recording is recognised."""

    words: bool = True
    """With the time and confidence of each word."""
    hot_words: tuple[str, ...] = ()
    """Words and phrases that are expected, each as `phrase` or `phrase=boost`."""
    sample_rate: int | None = None
    """Hz of samples; by default that of the model."""


@dataclass(eq=False)
class _Job:
    """A piece, how it is recognised, and who waits for it."""

    part: Part
    recognizer: Recognizer
    words: bool
    done: asyncio.Future[None]


class Engine:
    """Recognises for all clients of a server. Its methods are called from one event loop, those of
    `turns` from any thread."""

    def __init__(
        self,
        models: Mapping[str, Recognizer],
        limits: Limits | None = None,
        detector: str | None = None,
    ) -> None:
        """`detector` is the kind of speech detector for long recordings; by default the best that
        is installed."""
        if not models:
            raise AsrError("expected models, got none: name at least one")
        self.models = dict(models)
        self.limits = limits or Limits()
        self._detector = detector
        # torch uses all cores in one thread, and would have others for each further thread.
        exported = all(isinstance(model.bundle, OnnxModel) for model in self.models.values())
        count = _cores() if exported else 1
        self.turns = FairSemaphore(count)
        """Every recognition, of these threads and of live sessions, is within a turn."""
        self._hot = {name: HotDecoders(model) for name, model in self.models.items()}
        self._decoders = DecodingPool(self.limits)
        self._queue: FairQueue[_Job] = FairQueue(BATCH_S, BATCH_PIECES)
        self._changed = threading.Condition()
        self._coming = 0  # recordings of which no piece is known yet
        self._accepted = 0
        self.recognised_seconds = 0.0
        """Of audio, so far."""
        self.busy_seconds = 0.0
        """Of recognition, so far."""
        self.batches = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = False
        self._progress = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads = [
            threading.Thread(target=self._run, name="recognition", daemon=True)
            for _ in range(count)
        ]

    async def start(self) -> None:
        """Start the recognition threads and the decoding processes."""
        self._loop = asyncio.get_running_loop()
        await asyncio.gather(self._decoders.start(), asyncio.to_thread(self._warm_up))
        for thread in self._threads:
            thread.start()

    async def close(self) -> None:
        """Finish what was accepted, and end the threads and the processes."""
        await self._idle.wait()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                await asyncio.to_thread(thread.join)
        await self._decoders.close()

    @property
    def waiting(self) -> int:
        """Requests that have been accepted and not answered."""
        return self._accepted

    @property
    def waiting_seconds(self) -> float:
        """Of decoded audio that waits for recognition."""
        return self._queue.seconds

    @property
    def is_alive(self) -> bool:
        """Whether recordings are recognised."""
        return all(thread.is_alive() for thread in self._threads)

    def model(self, name: str) -> Recognizer:
        """A model by its name. Raises UnknownModel."""
        if name not in self.models:
            raise UnknownModel(
                f"expected one of the models {', '.join(self.models)}, got {name[:100]!r}"
            )
        return self.models[name]

    async def recognizer(self, name: str, hot_words: tuple[str, ...] = ()) -> Recognizer:
        """A model that expects words and phrases. Raises UnknownModel, and LanguageModelError or
        ConfigError for hot words that the model cannot have."""
        recognizer = self.model(name)
        if not hot_words:
            return recognizer
        decoder = await asyncio.to_thread(self._hot[name].decoder, hot_words)
        return Recognizer(recognizer.bundle, decoder)

    async def transcribe(
        self,
        name: str,
        audio: bytes | np.ndarray,
        options: Options | None = None,
        on_segment: Callable[[Segment], None] | None = None,
    ) -> Transcript:
        """The text of a recording: the bytes of a file, or samples float32 [S].

        `on_segment` is called with each segment as soon as it is recognised. A recording whose
        audio stops halfway has the text up to there, and an error.

        Raises UnknownModel, Busy, TooLong, AudioError for a recording without any audio that can be
        read, and LanguageModelError or ConfigError for hot words that the model cannot have.
        """
        options = options or Options()
        recognizer = await self.recognizer(name, options.hot_words)
        with self._accept():
            recording = _Recording(options.words, on_segment)
            flow = Flow()
            try:
                await self._read(recognizer, audio, options, recording, flow)
            finally:
                flow.is_cancelled = True
                self._progress.set()
        return recording.transcript()

    @contextmanager
    def _accept(self) -> Iterator[None]:
        if self._accepted >= self.limits.queue:
            raise Busy(f"at most {self.limits.queue} requests", self._seconds_to_wait())
        self._accepted += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._accepted -= 1
            if not self._accepted:
                self._idle.set()

    def _seconds_to_wait(self) -> float:
        """Until the audio that waits now is recognised, by the speed so far."""
        speed = self.recognised_seconds / self.busy_seconds if self.busy_seconds else 1.0
        return self._queue.seconds / max(speed, 0.1) / len(self._threads)

    async def _read(
        self,
        recognizer: Recognizer,
        audio: bytes | np.ndarray,
        options: Options,
        recording: _Recording,
        flow: Flow,
    ) -> None:
        bundle = recognizer.bundle
        rate = options.sample_rate or bundle.sample_rate
        reading = Reading(
            bundle.sample_rate,
            longest_piece(bundle.info),
            sample_rate=rate,
            detector=self._detector,
        )
        seconds, is_coming = 0.0, True
        self._coming += 1
        try:
            async with self._decoders.reading(audio, reading) as events:
                async for event in events:
                    if is_coming:
                        self._coming, is_coming = self._coming - 1, False
                    if isinstance(event, Read):
                        seconds += event.seconds
                        if seconds > self.limits.audio_s:
                            raise TooLong(
                                f"expected a recording of at most {self.limits.audio_s:g} s, got a "
                                "longer one: split it"
                            )
                    elif isinstance(event, Part):
                        job = self._submit(event, recognizer, options.words, flow)
                        recording.add(event, job.done)
                        await recording.wait(AHEAD)
                        await self._wait_for_room()
                    else:
                        recording.ended = event
            await recording.wait(0)
        finally:
            self._coming -= is_coming

    def _submit(self, part: Part, recognizer: Recognizer, words: bool, flow: Flow) -> _Job:
        job = _Job(part, recognizer, words, asyncio.get_running_loop().create_future())
        key = id(recognizer.bundle), id(recognizer.decoder), words
        with self._changed:
            self._queue.put(flow, key, part.seconds, job)
            self._changed.notify_all()
        return job

    async def _wait_for_room(self) -> None:
        """Until less audio waits for recognition than the limits allow."""
        while self._queue.seconds >= self.limits.queued_s:
            self._progress.clear()
            await self._progress.wait()

    def _warm_up(self) -> None:
        """The first recognition of a process takes long, as does the first with hot words."""
        for name, model in self.models.items():
            warm_up(model.bundle, model.decoder)
            if not model.decoder.config.rescore.every_step:
                hot = self._hot[name].any_decoder()
                warm_up(model.bundle, hot)

    # --- in the threads ---

    def _run(self) -> None:
        assert self._loop is not None
        while jobs := self._next():
            seconds = sum(job.part.seconds for job in jobs)
            begun = time.monotonic()
            errors = self._recognize(jobs)
            with self._changed:
                self.busy_seconds += time.monotonic() - begun
                self.recognised_seconds += seconds
                self.batches += 1
            self._loop.call_soon_threadsafe(self._finish, jobs, errors)

    def _next(self) -> list[_Job]:
        """The next batch, as soon as there is one; empty at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._ended or len(self._queue))
                if len(self._queue) < BATCH_PIECES and self._coming and not self._ended:
                    self._changed.wait_for(
                        lambda: not self._coming or len(self._queue) >= BATCH_PIECES, GATHER_S
                    )
                jobs = self._queue.take()
                if jobs or self._ended:
                    return jobs

    def _recognize(self, jobs: list[_Job]) -> list[Exception | None]:
        """Write the texts into the pieces; an error for each that failed."""
        try:
            with self.turns.turn():
                model, words = jobs[0].recognizer, jobs[0].words
                batches = Batches(model.bundle, model.decoder, words, BATCH_S)
                for job in jobs:
                    batches.add(job.part)
                for _ in batches.recognise():
                    pass
        except Exception as error:
            if len(jobs) == 1:
                return [error]
            return [found for job in jobs for found in self._recognize([job])]
        return [None] * len(jobs)

    def _finish(self, jobs: list[_Job], errors: list[Exception | None]) -> None:
        for job, error in zip(jobs, errors, strict=True):
            if job.done.cancelled():
                continue
            if error is None:
                job.done.set_result(None)
            else:
                job.done.set_exception(error)
        self._progress.set()


def _cores() -> int:
    """The number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


class _Recording:
    """The pieces of a recording that wait, and its segments so far."""

    def __init__(self, words: bool, on_segment: Callable[[Segment], None] | None) -> None:
        self._words, self._on_segment = words, on_segment
        self._waiting: deque[tuple[Part, asyncio.Future[None]]] = deque()
        self._pieces: list[Part] = []  # of a segment that goes on
        self._segments: list[Segment] = []
        self.ended: Ended | None = None

    def add(self, part: Part, done: asyncio.Future[None]) -> None:
        self._waiting.append((part, done))

    async def wait(self, left: int) -> None:
        """Collect recognised pieces in order, until at most `left` are pending and the first of
        them is not recognised yet."""
        while self._waiting and (len(self._waiting) > left or self._waiting[0][1].done()):
            part, done = self._waiting.popleft()
            await done
            self._pieces.append(part)
            if not part.continues:
                self._write()

    def _write(self) -> None:
        for segment in segments_of(self._pieces, self._words):
            self._segments.append(segment)
            if self._on_segment is not None:
                self._on_segment(segment)
        self._pieces = []

    def transcript(self) -> Transcript:
        """The result. Raises AudioError if nothing could be read."""
        assert self.ended is not None
        self._write()
        error = self.ended.error
        if error is not None and not self._segments:
            raise AudioError(error)
        return Transcript(None, tuple(self._segments), self.ended.seconds, error)
