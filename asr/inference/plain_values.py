"""Results as plain JSON values without rounding, and back: what shards write and merges read.

`to_json` of a format rounds for its readers; these values do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asr.inference.time_formats import Posteriors, TokenTime, Word
from asr.inference.transcript import Segment, Transcript
from asr.inference.word_times import Recognition

Values = Mapping[str, Any]


def transcript_values(transcript: Transcript) -> dict[str, Any]:
    """All but the path, which differs between machines, and the error."""
    segments = [asdict(segment) for segment in transcript.segments]
    return {"segments": segments, "seconds": transcript.seconds}


def read_transcript(values: Values, path: Path, error: str | None) -> Transcript:
    """The transcript of `transcript_values`."""
    segments = (Segment(**{**s, "words": read_words(s["words"])}) for s in values["segments"])
    return Transcript(path, tuple(segments), values["seconds"], error)


def read_recognition(values: Values) -> Recognition:
    """A recognition from the values of `dataclasses.asdict`."""
    output = values["posteriors"]
    if output is not None:
        entries = tuple(tuple(entry) for entry in output["entries"])
        output = Posteriors(output["frames"], output["step"], entries)
    return Recognition(values["text"], read_words(values["words"]), output)


def read_words(rows: list[dict[str, Any]]) -> tuple[Word, ...]:
    """Words from the values of `dataclasses.asdict`."""
    return tuple(
        Word(**{**row, "units": tuple(TokenTime(**unit) for unit in row["units"])}) for row in rows
    )
