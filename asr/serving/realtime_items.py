"""Items of OpenAI's realtime protocol: utterances, and the events that tell of them.

The texts of `conversation.item.input_audio_transcription.delta` are to be joined by the client, so
they are only of text that does not change any more. A streaming model has such text while somebody
speaks; another has all of it at the end of the utterance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from asr.inference.live_utterance import LiveText

Event = dict[str, Any]
_TRANSCRIPTION = "conversation.item.input_audio_transcription."


@dataclass
class Items:
    """The items of one session, in order."""

    _count: int = 0
    _previous: str | None = None
    _open: _Item | None = field(default=None, repr=False)

    def recognized(self, text: LiveText) -> Iterator[Event]:
        """The events of a text of live recognition."""
        item = self._open
        if item is not None and item.start != text.start:  # its text was withdrawn
            yield from self._end(item, "")
            item = None
        if item is None:
            if not text.text + text.partial:
                return
            item = self._open = _Item(self._next(), text.start)
            yield {
                "type": "input_audio_buffer.speech_started",
                "audio_start_ms": round(1000 * text.start),
                "item_id": item.name,
            }
        item.end = text.end
        if text.is_final or not text.text + text.partial:
            yield from self._end(item, text.text)
        else:
            yield from self._delta(item, text.text)

    def committed(self, seconds: float, transcript: str | None = None) -> Iterator[Event]:
        """The client has committed its audio. Its item has begun, or begins and ends now. With
        `transcript` None that is yet to come, for `completed` or `failed`."""
        item = self._open or _Item(self._next(), 0.0, seconds)
        self._open = item
        yield self._committed(item)
        if transcript is not None:
            yield from self.completed(transcript)

    def completed(self, transcript: str) -> Iterator[Event]:
        """The item that was committed has this transcript."""
        item, self._open = self._open, None
        assert item is not None
        yield from self._delta(item, transcript)
        yield {
            "type": _TRANSCRIPTION + "completed",
            "item_id": item.name,
            "content_index": 0,
            "transcript": transcript,
            "usage": {"type": "duration", "seconds": round(item.end - item.start, 3)},
        }

    def failed(self, error: dict[str, Any]) -> Event:
        """The item that was committed has no transcript."""
        item, self._open = self._open, None
        assert item is not None
        return {
            "type": _TRANSCRIPTION + "failed",
            "item_id": item.name,
            "content_index": 0,
            "error": error,
        }

    def drop(self) -> None:
        """The audio of the item that has begun was cleared."""
        self._open = None

    def _next(self) -> str:
        self._count += 1
        return f"item_{self._count}"

    def _delta(self, item: _Item, text: str) -> Iterator[Event]:
        if len(text) > len(item.sent):
            yield {
                "type": _TRANSCRIPTION + "delta",
                "item_id": item.name,
                "content_index": 0,
                "delta": text[len(item.sent) :],
            }
            item.sent = text

    def _end(self, item: _Item, text: str) -> Iterator[Event]:
        yield {
            "type": "input_audio_buffer.speech_stopped",
            "audio_end_ms": round(1000 * item.end),
            "item_id": item.name,
        }
        yield self._committed(item)
        yield from self.completed(text)

    def _committed(self, item: _Item) -> Event:
        previous, self._previous = self._previous, item.name
        return {
            "type": "input_audio_buffer.committed",
            "item_id": item.name,
            "previous_item_id": previous,
        }


@dataclass
class _Item:
    name: str
    start: float
    end: float = 0.0
    sent: str = ""
