"""The processes that decode uploads, from the side of the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from asr.errors import AsrError, AudioError
from asr.inference.long_form import Ended, Event, Part, Reading
from asr.serving.decoding_worker import HEAD, pack, unpack_event
from asr.serving.limits import Limits

START_S = 60.0  # seconds in which a process starts, on a busy machine

_PROGRAM = "from asr.serving.decoding_worker import main; main()"


class _Worker:
    """A process. After anything unexpected it is killed, and another takes its place."""

    def __init__(self, process: asyncio.subprocess.Process, limits: Limits) -> None:
        self._process, self._limits = process, limits

    @classmethod
    async def start(cls, limits: Limits) -> _Worker:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ASR_")}
        places = [place or str(Path.cwd()) for place in sys.path]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-c",
            _PROGRAM,
            str(limits.decoding_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment | {"PYTHONPATH": os.pathsep.join(places)},
            start_new_session=True,
        )
        worker = cls(process, limits)
        try:
            async with asyncio.timeout(START_S):
                await worker._message()
        except BaseException as error:
            worker.kill()
            if isinstance(error, EOFError | TimeoutError):
                raise AsrError("expected a process for decoding to start, got none") from None
            raise
        return worker

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def events(
        self, content: bytes | np.ndarray, reading: Reading
    ) -> AsyncGenerator[Event, None]:
        """The events of reading a file or samples. Raises AudioError if the process is stuck or
        dies."""
        samples = isinstance(content, np.ndarray)
        if isinstance(content, np.ndarray):
            content = content.astype("<f4").tobytes()
        stdin = self._process.stdin
        assert stdin is not None
        event: Event | None = None
        try:
            stdin.writelines(pack({"reading": asdict(reading), "samples": samples}, content))
            while not isinstance(event, Ended):
                async with asyncio.timeout(self._limits.decoding_s):
                    await stdin.drain()
                    event = unpack_event(*await self._message())
                yield event
        except TimeoutError:
            raise AudioError(
                "expected the next part of a recording to be decoded within "
                f"{self._limits.decoding_s:g} s, got none: convert it to wav or flac"
            ) from None
        except (EOFError, OSError):
            raise AudioError(
                "expected decodable audio, got a file that ends the decoder: convert it to wav or "
                "flac"
            ) from None

    async def _message(self) -> tuple[dict[str, object], bytes]:
        stdout = self._process.stdout
        assert stdout is not None
        size, count = HEAD.unpack(await stdout.readexactly(HEAD.size))
        return json.loads(await stdout.readexactly(size)), await stdout.readexactly(count)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Kill the process, and wait for its end. asyncio notices that when the pipes are closed,
        and reads no further while much of what the process wrote is unread."""
        self.kill()
        stdout = self._process.stdout
        assert stdout is not None
        while await stdout.read(1 << 20):
            pass
        await self._process.wait()


class DecodingPool:
    """So many processes for short recordings, and others for long ones while they last."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free: list[_Worker] = []
        self._short = asyncio.Semaphore(limits.decoders)
        self._long = asyncio.Semaphore(limits.long_recordings)
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the processes, so that no request waits for it."""
        starts = [_Worker.start(self._limits) for _ in range(self._limits.decoders)]
        self._free += await asyncio.gather(*starts)

    @contextlib.asynccontextmanager
    async def reading(
        self, content: bytes | np.ndarray, reading: Reading
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of reading the bytes of a file, or samples float32 [S] at
        `reading.sample_rate`."""
        async with contextlib.AsyncExitStack() as short, contextlib.AsyncExitStack() as long:
            await short.enter_async_context(self._short)
            begun = await self._begin(content, reading)
            if begun.is_long:  # short ones must not wait for its end
                if self._long.locked():
                    await begun.close()
                    self._give_back(begun)
                    await short.aclose()
                    await long.enter_async_context(self._long)
                    begun = await self._begin(content, reading)
                else:
                    await long.enter_async_context(self._long)
                    await short.aclose()
            try:
                yield begun.all()
            finally:
                await begun.close()
                self._give_back(begun)

    async def _begin(self, content: bytes | np.ndarray, reading: Reading) -> _Begun:
        worker = self._idle() or await _Worker.start(self._limits)
        events = worker.events(content, reading)
        try:
            return _Begun(worker, await anext(events), events)
        except BaseException:
            self._end(worker)
            raise

    def _idle(self) -> _Worker | None:
        """A process that waits for work; those that have died meanwhile are dropped."""
        while self._free:
            worker = self._free.pop()
            if worker.is_alive:
                return worker
            self._end(worker)
        return None

    def _give_back(self, begun: _Begun) -> None:
        if begun.is_done and len(self._free) < self._limits.decoders:
            self._free.append(begun.worker)
        else:
            self._end(begun.worker)

    def _end(self, worker: _Worker) -> None:
        task = asyncio.ensure_future(worker.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(worker.end() for worker in self._free), *self._ending)
        self._free.clear()


class _Begun:
    """A recording of which the first event is known."""

    def __init__(self, worker: _Worker, first: Event, events: AsyncGenerator[Event, None]) -> None:
        self.worker, self._first, self._events = worker, first, events
        self.is_done = False

    @property
    def is_long(self) -> bool:
        """Whether it has more than half a minute: a shorter one begins with all of it."""
        first = self._first
        return not (first.whole if isinstance(first, Part) else isinstance(first, Ended))

    async def close(self) -> None:
        await self._events.aclose()

    async def all(self) -> AsyncIterator[Event]:
        self.is_done = isinstance(self._first, Ended)
        yield self._first
        async for event in self._events:
            self.is_done = isinstance(event, Ended)
            yield event
