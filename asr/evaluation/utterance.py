"""Facts about an utterance besides its texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.dataset.manifest import Utterance
from asr.inference.time_formats import Posteriors, Word


@dataclass(frozen=True)
class Details:
    """All facts except the texts; unknown ones are None or empty. Times in seconds."""

    speaker: str = ""
    seconds: float | None = None
    audio: Path | None = None
    start: float = 0.0
    end: float | None = None
    """The segment of the recording, if it is not the whole."""
    packed: tuple[int, int] | None = None
    """First byte and number of bytes of the recording within `audio`, if that is a shard."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Further columns of the manifest: accent, gender, ..."""
    snr: float | None = None
    """Estimated signal-to-noise ratio, in dB."""
    words: tuple[Word, ...] = ()
    """The words that the model recognised, before normalisation."""
    posteriors: Posteriors | None = None


def details_of(utterance: Utterance) -> Details:
    """The facts that a manifest gives about an utterance."""
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
