"""The settings of a transcription session of OpenAI's realtime protocol.

Both forms are read: `session.update`, with sections for the audio, and the flat
`transcription_session.update` of the beta protocol. Settings that only hint at how to recognise
(language, noise reduction, what to include) are taken and have no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from asr.audio.samples import RATES
from asr.inference.live import REGIONS
from asr.serving.errors import ApiError

RATE = 24000
"""Hz, unless the client says otherwise; the only rate of OpenAI's service."""

M = TypeVar("M", bound=BaseModel)


class _Format(BaseModel):
    type: Literal["audio/pcm"] = "audio/pcm"
    rate: int = Field(RATE, ge=RATES[0], le=RATES[-1])


class _Transcription(BaseModel):
    model: str | None = None
    language: str | None = Field(None, max_length=50)
    prompt: str | None = Field(None, max_length=10_000)
    keywords: list[str] | None = Field(None, fail_fast=True)


class _Detection(BaseModel):
    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    silence_duration_ms: int | None = Field(None, ge=1, le=10_000)


class _Input(BaseModel):
    format: _Format | None = None
    transcription: _Transcription | None = None
    turn_detection: _Detection | None = None


class _Audio(BaseModel):
    input: _Input = _Input()


class _Session(BaseModel):
    type: Literal["transcription"] = "transcription"
    audio: _Audio = _Audio()


class _BetaSession(BaseModel):
    input_audio_format: Literal["pcm16"] | None = None
    input_audio_transcription: _Transcription | None = None
    turn_detection: _Detection | None = None


@dataclass(frozen=True)
class Settings:
    """What a session recognises, and how."""

    model: str
    sample_rate: int = RATE
    silence_s: float | None = REGIONS.silence_s
    """The pause that ends an utterance; None if the client commits its audio itself."""
    keywords: tuple[str, ...] = ()
    prompt: str = ""
    language: str | None = None

    def updated(self, event: Mapping[str, Any]) -> Settings:
        """Changed by an event of either form; what it leaves out stays. Raises ApiError."""
        if event["type"] == "session.update":
            given = _parse(_Session, event).audio.input
        else:
            beta = _parse(_BetaSession, event)
            names = {
                "input_audio_format": "format",
                "input_audio_transcription": "transcription",
                "turn_detection": "turn_detection",
            }
            given = _Input.model_construct(
                {names[name] for name in beta.model_fields_set & names.keys()},
                format=None if beta.input_audio_format is None else _Format(),
                transcription=beta.input_audio_transcription,
                turn_detection=beta.turn_detection,
            )
        return self._changed(given)

    def _changed(self, given: _Input) -> Settings:
        changes: dict[str, Any] = {}
        if given.format is not None:
            changes["sample_rate"] = given.format.rate
        if "turn_detection" in given.model_fields_set:
            changes["silence_s"] = None
            if (detection := given.turn_detection) is not None:
                pause = detection.silence_duration_ms
                # A shorter pause than the padding on both of its sides ends nothing.
                changes["silence_s"] = (
                    REGIONS.silence_s if pause is None else max(pause / 1000, 2 * REGIONS.pad_s)
                )
        if (wanted := given.transcription) is not None:
            fields = wanted.model_fields_set
            if wanted.model is not None:
                changes["model"] = wanted.model
            if "language" in fields:
                changes["language"] = wanted.language
            if "prompt" in fields:
                changes["prompt"] = wanted.prompt or ""
            if "keywords" in fields:
                changes["keywords"] = tuple(wanted.keywords or ())
        return replace(self, **changes)

    def session(self, name: str) -> dict[str, Any]:
        """The object of `session.created` and `session.updated`."""
        return {
            "id": name,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": self.sample_rate},
                    "transcription": self._transcription,
                    "noise_reduction": None,
                    "turn_detection": self._detection,
                }
            },
            "include": None,
        }

    def beta_session(self, name: str) -> dict[str, Any]:
        """The object of `transcription_session.updated`."""
        return {
            "id": name,
            "object": "realtime.transcription_session",
            "input_audio_format": "pcm16",
            "input_audio_transcription": self._transcription,
            "turn_detection": self._detection,
        }

    @property
    def _transcription(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "language": self.language,
            "prompt": self.prompt,
            "keywords": list(self.keywords),
        }

    @property
    def _detection(self) -> dict[str, Any] | None:
        if self.silence_s is None:
            return None
        return {
            "type": "server_vad",
            "threshold": REGIONS.threshold,
            "prefix_padding_ms": round(1000 * REGIONS.pad_s),
            "silence_duration_ms": round(1000 * self.silence_s),
        }


def _parse(form: type[M], event: Mapping[str, Any]) -> M:
    try:
        return form.model_validate(event.get("session"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(["session", *map(str, first["loc"])])[:100]
    got = str(first["input"])[:50]
    message = f"{where}: expected another value, got {got!r} ({first['msg']})"
    raise ApiError(400, message, where, "invalid_value")
