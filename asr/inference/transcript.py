"""The result of a transcription: the segments of a recording, with their words and times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr.inference.time_formats import Word


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between pauses; all of a short recording. Times in seconds since the
    beginning of the recording."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    """With times and confidences, unless only the text was requested."""
    channel: int | None = None
    """The channel of the recording, from 1; None if the channels were mixed."""


@dataclass(frozen=True)
class Transcript:
    """The text of a recording, or the reason why it ends early or there is none."""

    path: Path | None
    """The file; None for bytes, open files and samples."""
    segments: tuple[Segment, ...] = ()
    """In the order of their start."""
    seconds: float = 0.0
    """Length of the recording as far as it was decoded."""
    error: str | None = None
    """One line: what was expected, what came, what to do."""

    @property
    def text(self) -> str:
        """The texts of all segments, separated by spaces."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments, unless only the text was requested."""
        return tuple(word for segment in self.segments for word in segment.words)
