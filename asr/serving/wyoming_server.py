"""The Wyoming protocol over TCP, by which Home Assistant has spoken commands recognised.

A client asks for a description, or sends audio between `audio-start` and `audio-stop` and gets a
transcript. A command is recognised when its audio has ended, which takes a fraction of its
duration. The protocol has no token: whoever reaches the port may use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asr.audio.pcm import INT16
from asr.audio.samples import RATES
from asr.serving import openai_request
from asr.serving.engine import Engine, Options
from asr.serving.errors import ApiError, api_error
from asr.serving.hot_words import phrases_of
from asr.serving.wyoming_events import MOST_HEAD, Event, read_event

MOST_CHANNELS = 16


class WyomingServer:
    """Listens for clients until it is closed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clients: dict[asyncio.Task[None], _Client] = {}
        self._served = 0
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Take the clients of a socket that listens."""
        self._server = await asyncio.start_server(self._accept, sock=listening, limit=MOST_HEAD)

    async def close(self) -> None:
        """Take no more clients, finish what they have asked for, and cut them off."""
        if self._server is not None:
            self._server.close()
        for client in self._clients.values():
            client.stop()
        if self._clients:
            await asyncio.wait(list(self._clients), timeout=self._engine.limits.stop_s)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limits = self._engine.limits
        if len(self._clients) >= limits.connections:
            writer.transport.abort()
            return
        client = _Client(self._engine, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = client
        try:
            if self._served >= limits.live_sessions:
                await client.refuse("expected fewer clients: try again later")
                return
            self._served += 1
            try:
                await client.serve()
            finally:
                self._served -= 1
        finally:
            del self._clients[task]


@dataclass
class _Command:
    """The audio of a command so far."""

    rate: int = 16000
    channels: int = 1
    content: bytearray = field(default_factory=bytearray)

    def add(self, data: Mapping[str, Any], content: bytes, most: int) -> None:
        """A chunk, of `most` samples with those before. Raises ApiError."""
        given = [data.get(key) for key in ("rate", "width", "channels")]
        rate, width, channels = map(_whole, given)
        if rate not in RATES or width != 2 or channels not in range(1, MOST_CHANNELS + 1):
            shown = "rate {}, width {}, channels {}".format(*map(_shown, given))
            raise ApiError(
                400, f"expected 16-bit audio of {RATES[0]} to {RATES[-1]} Hz, got {shown}"
            )
        if self.content and (rate, channels) != (self.rate, self.channels):
            raise ApiError(400, "expected chunks of one rate and number of channels, got several")
        self.rate, self.channels = rate, channels
        self.content += content
        if len(self.content) > 2 * most:
            raise ApiError(400, f"expected a command of at most {most} samples, got a longer one")

    @property
    def samples(self) -> np.ndarray:
        """The mean of all channels. Shape: [S], float32 within [-1, 1]."""
        whole = len(self.content) - len(self.content) % (2 * self.channels)
        values = np.frombuffer(self.content[:whole], "<i2").reshape(-1, self.channels)
        return values.mean(axis=1, dtype=np.float32) / np.float32(INT16)


def _whole(value: object) -> int:
    """A whole number as int, anything else as -1: a range is searched for other types one by
    one."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole else -1  # type: ignore[call-overload]


def _shown(value: object) -> str:
    return str(value)[:20]


class _Client:
    """One connection."""

    def __init__(
        self, engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._engine, self._limits = engine, engine.limits
        self._reader, self._writer = reader, writer
        self._command = _Command()
        self._wishes: Mapping[str, Any] = {}  # of the event transcribe
        self._reading: asyncio.Task[Event | None] | None = None
        self._is_stopping = False

    def stop(self) -> None:
        """End after the answer that is being worked on."""
        self._is_stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def serve(self) -> None:
        """Answer events until the client goes, or is cut off."""
        try:
            while not self._is_stopping and (event := await self._next()) is not None:
                await self._answer(event)
        except OSError:
            pass  # gone, or does not read
        except Exception as error:
            await self.refuse(api_error(error).message)
        finally:
            await self._hang_up()

    async def refuse(self, message: str) -> None:
        """Say what is wrong, and take nothing more."""
        with contextlib.suppress(OSError):  # gone, or does not read
            await self._send("error", {"text": message})
            self._writer.write_eof()
            async with asyncio.timeout(1.0):  # closing with input unread would drop the message
                while await self._reader.read(MOST_HEAD):
                    pass
        await self._hang_up()

    async def _next(self) -> Event | None:
        self._reading = asyncio.ensure_future(read_event(self._reader))
        try:
            async with asyncio.timeout(self._limits.live_idle_s):
                return await self._reading
        except TimeoutError:
            most = self._limits.live_idle_s
            raise ApiError(408, f"expected an event within {most:g} s, got none") from None
        except asyncio.CancelledError:
            if self._is_stopping:
                return None
            raise
        finally:
            self._reading = None

    async def _answer(self, event: Event) -> None:
        if event.kind == "describe":
            await self._send("info", description(self._engine))
        elif event.kind == "ping":
            await self._send("pong", {"text": event.data.get("text")})
        elif event.kind == "transcribe":
            self._wishes = event.data
        elif event.kind == "audio-start":
            self._command = _Command()
        elif event.kind == "audio-chunk":
            self._command.add(event.data, event.payload, self._limits.live_samples)
        elif event.kind == "audio-stop":
            command, self._command = self._command, _Command()
            await self._send("transcript", await self._transcript(command))
        # Other events are for other services.

    async def _transcript(self, command: _Command) -> dict[str, Any]:
        name = chosen_model(self._engine, self._wishes)
        if not command.content:
            return {"text": ""}
        recognizer = self._engine.model(name)
        wanted = [
            *_texts(self._wishes, "transcript_names"),
            *_texts(self._wishes, "transcript_terms"),
        ]
        hot_words = phrases_of("\n".join(wanted), recognizer)[: self._limits.keywords]
        options = Options(words=False, hot_words=hot_words, sample_rate=command.rate)
        transcript = await self._engine.transcribe(name, command.samples, options)
        languages = languages_of(self._engine, name)
        known = {"language": languages[0]} if len(languages) == 1 else {}
        return {"text": transcript.text, **known}

    async def _send(self, kind: str, data: Mapping[str, Any]) -> None:
        self._writer.write(Event(kind, data).encoded)
        async with asyncio.timeout(self._limits.idle_s):
            await self._writer.drain()

    async def _hang_up(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(self._limits.idle_s):
                await self._writer.wait_closed()
        except OSError:  # gone, or does not read
            self._writer.transport.abort()


def _texts(wishes: Mapping[str, Any], name: str) -> list[str]:
    values = wishes.get(name)
    return [v for v in values if isinstance(v, str)] if isinstance(values, list) else []


def languages_of(engine: Engine, name: str) -> list[str]:
    """The languages that a model states."""
    return list(openai_request.languages_of(engine.model(name)))


def chosen_model(engine: Engine, wishes: Mapping[str, Any]) -> str:
    """The model that a client names, or the first of its language, or the first."""
    name = wishes.get("name")
    if isinstance(name, str):
        return name
    language = str(wishes.get("language")).lower()
    stated = {model: _lowered(languages_of(engine, model)) for model in engine.models}
    exact = [model for model, known in stated.items() if language in known]
    main = language.partition("-")[0]
    near = [m for m, known in stated.items() if main in {k.partition("-")[0] for k in known}]
    return [*exact, *near, *engine.models][0]


def _lowered(texts: Iterable[str]) -> set[str]:
    return {text.lower() for text in texts}


def description(engine: Engine) -> dict[str, Any]:
    """The data of the event info."""
    models = [
        {**_artifact(name), "languages": languages_of(engine, name)} for name in engine.models
    ]
    program = {**_artifact("asr"), "models": models, "supports_transcript_streaming": False}
    others = ("tts", "handle", "intent", "wake", "mic", "snd")
    return {"asr": [program], **{kind: [] for kind in others}}


def _artifact(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": name,
        "attribution": {"name": "", "url": ""},
        "installed": True,
        "version": None,
    }
