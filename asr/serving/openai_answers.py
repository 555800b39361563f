"""Transcripts in the formats of OpenAI's interface."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

from asr.inference.formats import to_text
from asr.inference.time_formats import Word
from asr.inference.transcript import Segment, Transcript
from asr.serving.errors import about_audio
from asr.serving.openai_request import Wanted

MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
LEAST = 1e-6  # probability of a word, for its logarithm


def json_answer(transcript: Transcript, wanted: Wanted) -> dict[str, Any]:
    """The formats json and verbose_json."""
    if wanted.format != "verbose_json":
        sure = {"logprobs": log_probs(transcript.words)} if wanted.log_probs else {}
        return {"text": transcript.text} | sure | _common(transcript)
    answer: dict[str, Any] = {
        "task": "transcribe",
        "language": wanted.language,
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
    }
    if "segment" in wanted.granularities:
        spoken = [segment for segment in transcript.segments if segment.text]
        answer["segments"] = [_segment(number, row) for number, row in enumerate(spoken)]
    if "word" in wanted.granularities:
        answer["words"] = [_word(word) for word in transcript.words]
    return answer | _common(transcript)


def text_answer(transcript: Transcript, format: str) -> str:
    """The formats text, srt and vtt."""
    if format == "text":
        return transcript.text + "\n"
    return to_text(transcript, "srt" if format == "srt" else "vtt", "")


def usage(transcript: Transcript) -> dict[str, Any]:
    """What a request has taken: the seconds of its recording."""
    return {"type": "duration", "seconds": round(transcript.seconds, 3)}


def log_probs(words: Sequence[Word]) -> list[dict[str, Any]]:
    """The logarithm of the confidence of each word, in place of the tokens of other models. The
    tokens together are the text."""
    rows = []
    for number, word in enumerate(words):
        token = f" {word.text}" if number else word.text
        rows.append(
            {"token": token, "logprob": _log(word.confidence), "bytes": list(token.encode())}
        )
    return rows


def _common(transcript: Transcript) -> dict[str, Any]:
    warning = {} if transcript.error is None else {"warning": about_audio(transcript.error)}
    return {"usage": usage(transcript)} | warning


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """A segment with the fields that clients of Whisper read. Those that mean nothing here are
    neutral."""
    logs = [_log(word.confidence) for word in segment.words]
    text = segment.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logs) / len(logs), 4) if logs else 0.0,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "no_speech_prob": 0.0,
    }


def _word(word: Word) -> dict[str, Any]:
    row = {"word": word.text, "start": word.start, "end": word.end}
    return row if word.confidence is None else row | {"confidence": round(word.confidence, 4)}


def _log(confidence: float | None) -> float:
    return round(math.log(max(1.0 if confidence is None else confidence, LEAST)), 4)
