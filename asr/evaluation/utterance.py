"""What is known of an utterance besides its texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.dataset.manifest import Utterance
from asr.inference.time_formats import Posteriors, Word


@dataclass(frozen=True)
class Details:
    """Everything but the texts; what is not known is None or empty. Times in seconds."""

    speaker: str = ""
    seconds: float | None = None
    audio: Path | None = None
    start: float = 0.0
    end: float | None = None
    """The stretch of the recording, if it is not the whole."""
    packed: tuple[int, int] | None = None
    """First byte and number of bytes of the recording within `audio`, if that is a shard."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What else the manifest says of it: accent, gender, ..."""
    snr: float | None = None
    """Estimated ratio of signal to noise, in dB."""
    words: tuple[Word, ...] = ()
    """The words that a model wrote, before normalisation."""
    posteriors: Posteriors | None = None


def details_of(utterance: Utterance) -> Details:
    """What a manifest says of an utterance."""
    return Details(
        speaker=utterance.speaker,
        seconds=utterance.duration,
        audio=utterance.audio,
        start=utterance.start,
        end=utterance.end,
        packed=utterance.packed,
        columns={name: shown(value) for name, value in utterance.extra.items()},
    )


def shown(value: Any) -> str:
    """A manifest's extra value as a label.

    >>> shown("f"), shown(2.0), shown(True), shown(None)
    ('f', '2', 'true', '')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
