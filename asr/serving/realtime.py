"""Transcription sessions of OpenAI's realtime protocol, over WebSocket at /v1/realtime.

The client sends audio as base64 of 16-bit samples, mono, 24 kHz unless it says otherwise. With
turn detection, which is the default, a pause ends an utterance. Without, the client commits its
audio, and that is recognised as a recording.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import secrets
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from fastapi import APIRouter, WebSocket

from asr.audio.pcm import INT16
from asr.errors import AsrError
from asr.inference.live_utterance import LiveText
from asr.serving.engine import Engine, Options
from asr.serving.errors import ApiError, api_error
from asr.serving.hot_words import phrases_of
from asr.serving.live_session import LiveSession, LiveSessions, SessionOptions
from asr.serving.realtime_items import Event, Items
from asr.serving.realtime_settings import Settings
from asr.serving.sockets import Socket, converse, json_object, pcm16

MOST_ERRORS = 10
"""Events with errors; a client that sends more is cut off."""
LONGEST_ID = 512  # characters
MOST_EARLY = 4 << 20  # characters of messages that wait for the answer to another
MESSAGE = 100  # characters that an empty message counts

router = APIRouter()


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """A conversation with a client of OpenAI's realtime protocol; `?model=` chooses the model."""
    sessions: LiveSessions = socket.app.state.live
    engine = sessions.engine
    settings = Settings(socket.query_params.get("model") or next(iter(engine.models)))

    async def talk(client: Socket) -> None:
        with sessions.place():
            await _Conversation(client, sessions, settings).run()

    await converse(socket, engine.limits, talk, _error)


def _error(error: ApiError, event_id: str | None = None) -> Mapping[str, Any]:
    described = error.body["error"] | {"event_id": event_id}
    return {"type": "error", "event_id": f"event_{secrets.token_hex(8)}", "error": described}


class _Detected:
    """Audio in which pauses end utterances."""

    def __init__(self, session: LiveSession, items: Items) -> None:
        self._session, self._items = session, items
        self._has_audio = False

    @property
    def work(self) -> set[asyncio.Task[None]]:
        """Recognition that goes on; `taken` has its events."""
        return self._session.work

    def taken(self) -> list[Event]:
        return self._events(self._session.taken())

    def close(self) -> None:
        self._session.close()

    async def append(self, samples: np.ndarray) -> list[Event]:
        self._has_audio |= len(samples) > 0
        return self._events(await self._session.push(samples))

    async def commit(self) -> list[Event]:
        if not self._has_audio:
            raise _nothing_to_commit()
        events = await self.end()
        if not any(event["type"] == "input_audio_buffer.committed" for event in events):
            events += self._items.committed(0.0, "")
        return events

    async def end(self) -> list[Event]:
        """The events of the utterance that has begun, which ends here."""
        self._has_audio = False
        return self._events(await self._session.end_utterance())

    async def clear(self) -> None:
        self._has_audio = False
        self._items.drop()
        await self._session.clear()

    def _events(self, texts: Iterable[LiveText]) -> list[Event]:
        return [event for text in texts for event in self._items.recognized(text)]


class _Buffered:
    """Audio that the client commits."""

    work: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(
        self, engine: Engine, settings: Settings, hot_words: tuple[str, ...], items: Items
    ) -> None:
        self._engine, self._model, self._items = engine, settings.model, items
        self._options = Options(words=False, hot_words=hot_words, sample_rate=settings.sample_rate)
        self._rate = settings.sample_rate
        self._content = bytearray()

    async def append(self, samples: np.ndarray) -> list[Event]:
        most = self._engine.limits.live_samples
        if len(self._content) // 2 + len(samples) > most:
            raise ApiError(
                413, f"expected at most {most} samples before a commit, got more", "audio"
            )
        self._content += samples.tobytes()
        return []

    async def commit(self) -> list[Event]:
        if not self._content:
            raise _nothing_to_commit()
        samples = np.frombuffer(self._content, np.int16) / np.float32(INT16)
        await self.clear()
        events = list(self._items.committed(len(samples) / self._rate))
        try:
            found = await self._engine.transcribe(self._model, samples, self._options)
        except AsrError as error:
            return [*events, self._items.failed(api_error(error).body["error"])]
        return [*events, *self._items.completed(found.text)]

    async def end(self) -> list[Event]:
        if self._content:
            raise ApiError(
                400, "expected a commit or clear of the audio before other settings, got none"
            )
        return []

    async def clear(self) -> None:
        self._content = bytearray()

    def taken(self) -> list[Event]:
        return []

    def close(self) -> None:
        pass


class _Conversation:
    """One client, from the first event to the last."""

    def __init__(self, client: Socket, sessions: LiveSessions, settings: Settings) -> None:
        self._client, self._sessions, self._settings = client, sessions, settings
        self._engine = sessions.engine
        self._items = Items()
        self._name = f"sess_{secrets.token_hex(8)}"
        self._sent = self._errors = 0
        self._seconds = 0.0  # of audio so far
        self._handling, self._answered = False, -math.inf  # the latter in seconds of the loop
        self._early: deque[str | bytes] = deque()
        self._early_size = 0

    async def run(self) -> None:
        self._audio = await self._listen(self._settings)
        await self._send({"type": "session.created", "session": self._settings.session(self._name)})
        self._reading = self._receive()
        try:
            while True:
                waits: set[asyncio.Task[Any]] = {self._reading, *self._audio.work}
                if not self._early:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                await self._send(*self._audio.taken())
                if self._early or self._reading.done():
                    if (message := self._next()) is None:
                        return
                    if not await self._handle_while_connected(message):
                        return
        finally:
            self._reading.cancel()
            self._audio.close()

    def _next(self) -> str | bytes | None:
        """The message that came first; None if the client has gone."""
        if self._early:
            first = self._early.popleft()
            self._early_size -= len(first) + MESSAGE
            return first
        message = self._reading.result()
        self._reading = self._receive()
        return message

    def _receive(self) -> asyncio.Task[str | bytes | None]:
        return asyncio.create_task(self._client.receive(self._is_answering))

    def _is_answering(self) -> bool:
        """Whether the client waits for the answer to a message, or has had it for a short time."""
        since = asyncio.get_running_loop().time() - self._answered
        return self._handling or since < self._engine.limits.live_idle_s / 2

    async def _handle_while_connected(self, message: str | bytes) -> bool:
        """Handle a message; False, and the work ends, if the client leaves meanwhile: it could be
        the recognition of hours of audio. Messages that come during a commit wait in `_early`."""
        work = asyncio.create_task(self._handle(message))
        self._handling = True
        try:
            while not work.done():
                waits: set[asyncio.Task[Any]] = {work, self._reading}
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    break
                early = self._reading.result()
                if early is None:
                    return False
                is_live = not isinstance(self._audio, _Buffered)  # whose clients have to wait
                if is_live or self._early_size > MOST_EARLY:
                    break
                self._early.append(early)
                self._early_size += len(early) + MESSAGE
                self._reading = self._receive()
            await work
            return True
        finally:
            work.cancel()
            self._handling, self._answered = False, asyncio.get_running_loop().time()

    async def _handle(self, message: str | bytes) -> None:
        event = json_object(message) if isinstance(message, str) else {}
        kind, name = event.get("type"), event.get("event_id")
        if not isinstance(kind, str):
            raise ApiError(400, "expected an event with its type, got something else", "type")
        samples = _samples(event) if kind == "input_audio_buffer.append" else None
        try:
            await self._answer(kind, event, samples)
        except (ApiError, AsrError) as error:
            self._errors += 1
            if self._errors > MOST_ERRORS:
                raise
            known = name[:LONGEST_ID] if isinstance(name, str) else None
            await self._client.send(_error(api_error(error), known))

    async def _answer(self, kind: str, event: Event, samples: np.ndarray | None) -> None:
        if samples is not None:
            self._seconds += len(samples) / self._settings.sample_rate
            await self._send(*await self._audio.append(samples))
        elif kind == "input_audio_buffer.commit":
            await self._send(*await self._audio.commit())
        elif kind == "input_audio_buffer.clear":
            await self._audio.clear()
            await self._send({"type": "input_audio_buffer.cleared"})
        elif kind in ("session.update", "transcription_session.update"):
            await self._update(event)
            is_beta = kind != "session.update"
            session = self._settings.beta_session if is_beta else self._settings.session
            await self._send({"type": f"{kind}d", "session": session(self._name)})
        else:
            raise ApiError(
                400,
                f"expected an event of a transcription session, got {kind[:50]!r}",
                "type",
                "unknown_event",
            )

    async def _update(self, event: Event) -> None:
        settings = self._settings.updated(event)
        audio = await self._listen(settings)  # raises an error while nothing has changed
        await self._send(*await self._audio.end())
        self._audio, self._settings = audio, settings

    async def _listen(self, settings: Settings) -> _Detected | _Buffered:
        recognizer = self._engine.model(settings.model)
        most = self._engine.limits.keywords
        _check_count(len(settings.keywords), most)  # before their spelling is looked at
        keywords = tuple(dict.fromkeys(settings.keywords))
        hot_words = keywords + phrases_of(settings.prompt, recognizer, keywords)
        _check_count(len(hot_words), most)
        if settings.silence_s is None:
            await self._engine.recognizer(settings.model, hot_words)  # checks the hot words
            return _Buffered(self._engine, settings, hot_words, self._items)
        options = SessionOptions(
            settings.model, settings.sample_rate, hot_words, settings.silence_s
        )
        return _Detected(await self._sessions.start(options, self._seconds), self._items)

    async def _send(self, *events: Event) -> None:
        for event in events:
            self._sent += 1
            await self._client.send({"event_id": f"event_{self._sent}", **event})


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise ApiError(400, f"expected at most {most} keywords, got {count}")


def _samples(event: Event) -> np.ndarray:
    audio = event.get("audio")
    try:
        return pcm16(base64.b64decode(audio, validate=True))  # type: ignore[arg-type]
    except (TypeError, ValueError, binascii.Error):
        raise ApiError(
            400, "expected audio as base64, got something else", "audio", "invalid_audio"
        ) from None


def _nothing_to_commit() -> ApiError:
    code = "input_audio_buffer_commit_empty"
    return ApiError(400, "expected audio before a commit, got none", code=code)
