"""The protocol of vosk's server over WebSocket at /vosk.

The client sends {"config": {...}}, then binary messages of 16-bit samples, mono, then {"eof": 1}.
Each binary message is answered by one object: {"partial": text}, or at the end of an utterance
{"result": words, "text": text}. The last answer is that to eof. See websocket/asr_server.py of
https://github.com/alphacep/vosk-server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, WebSocket

from asr.audio.samples import RATES
from asr.inference.live_utterance import LiveText
from asr.inference.time_formats import Word
from asr.serving.errors import ApiError
from asr.serving.live_session import LiveSession, LiveSessions, SessionOptions
from asr.serving.sockets import Socket, converse, json_object, pcm16

RATE = 8000
"""Hz, unless the client says otherwise; the default of vosk's server."""
UNKNOWN = "[unk]"
"""Stands for other words in vosk's phrase lists; here other words are always possible."""

router = APIRouter()


@dataclass(frozen=True)
class VoskConfig:
    """What a client asks for."""

    model: str
    sample_rate: int = RATE
    words: bool = True
    """With the time and confidence of each word."""
    max_alternatives: int = 0
    """Above 0, results have vosk's form for several texts; there is always one."""
    phrase_list: tuple[str, ...] = ()

    def updated(self, values: Any, most_phrases: int) -> VoskConfig:
        """Changed by the object of a message. Raises ApiError; other keys are left out."""
        if not isinstance(values, dict):
            raise _wrong("config", "an object", values)
        changes: dict[str, Any] = {}
        if (model := values.get("model")) is not None:
            if not isinstance(model, str):
                raise _wrong("model", "a name", model)
            changes["model"] = model
        if (rate := values.get("sample_rate")) is not None:
            changes["sample_rate"] = _rate(rate)
        if (words := values.get("words")) is not None:
            changes["words"] = bool(words)
        if (most := values.get("max_alternatives")) is not None:
            if not isinstance(most, int):
                raise _wrong("max_alternatives", "a number", most)
            changes["max_alternatives"] = most
        if (phrases := values.get("phrase_list")) is not None:
            changes["phrase_list"] = _phrases(phrases, most_phrases)
        return replace(self, **changes)


def _wrong(name: str, expected: str, got: object) -> ApiError:
    return ApiError(400, f"expected {name} as {expected}, got {str(got)[:50]!r}", name)


def _rate(value: Any) -> int:
    try:
        rate = float(value)
    except (TypeError, ValueError, OverflowError):
        rate = 0.0
    if not rate.is_integer() or int(rate) not in RATES:
        raise _wrong("sample_rate", f"{RATES[0]} to {RATES[-1]} Hz", value)
    return int(rate)


def _phrases(values: Any, most: int) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _wrong("phrase_list", "a list of texts", values)
    if len(values) > most:
        raise _wrong("phrase_list", f"at most {most} phrases", len(values))
    return tuple(value for value in values if value != UNKNOWN)


class Answers:
    """What the texts of a session are in vosk's words."""

    def __init__(self, config: VoskConfig) -> None:
        self._config = config
        self._partial = ""

    def answer(self, texts: Sequence[LiveText], is_last: bool = False) -> dict[str, Any]:
        """The answer to a message that gave these texts."""
        finals = []
        for text in texts:
            if text.is_final:
                finals.append(text)
            self._partial = "" if text.is_final else text.text + text.partial
        if finals or is_last:
            return self._result(finals)
        return {"partial": self._partial}

    def _result(self, finals: Sequence[LiveText]) -> dict[str, Any]:
        words = [word for text in finals for word in text.words]
        result: dict[str, Any] = {"text": " ".join(text.text for text in finals)}
        if words and self._config.words:
            result = {"result": [_word(word) for word in words], **result}
        if self._config.max_alternatives <= 0:
            return result
        confidences = [word.confidence or 0.0 for word in words]
        mean = sum(confidences) / len(confidences) if confidences else 1.0
        return {"alternatives": [{"confidence": round(mean, 4), **result}]}


def _word(word: Word) -> dict[str, Any]:
    return {
        "conf": 1.0 if word.confidence is None else round(word.confidence, 4),
        "end": word.end,
        "start": word.start,
        "word": word.text,
    }


@router.websocket("/vosk")
async def vosk(socket: WebSocket) -> None:
    """A conversation with a client of vosk's server; `?model=` chooses the model."""
    sessions: LiveSessions = socket.app.state.live
    engine = sessions.engine
    config = VoskConfig(socket.query_params.get("model") or next(iter(engine.models)))

    async def talk(client: Socket) -> None:
        with sessions.place():
            await _talk(client, sessions, config)

    await converse(socket, engine.limits, talk, _error)


def _error(error: ApiError) -> Mapping[str, Any]:
    return {"error": error.message}


async def _talk(client: Socket, sessions: LiveSessions, config: VoskConfig) -> None:
    session: LiveSession | None = None
    try:
        while (message := await client.receive()) is not None:
            is_last = False
            if isinstance(message, str):
                values = json_object(message)
                is_last = bool(values.get("eof"))
                if "config" in values and session is None:
                    config = config.updated(values["config"], sessions.engine.limits.keywords)
                    continue
                if not is_last:
                    raise ApiError(400, "expected audio or eof, or before both config")
            if session is None:
                options = SessionOptions(config.model, config.sample_rate, config.phrase_list)
                session, answers = await sessions.start(options), Answers(config)
            texts = await (
                session.push(pcm16(message))
                if isinstance(message, bytes)
                else session.end_utterance()
            )
            await client.send(answers.answer(texts, is_last))
            if is_last:
                return
    finally:
        if session is not None:
            session.close()
