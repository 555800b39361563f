"""Manifests: one JSON object per line, each an utterance with its recording and transcript.

    {"id": "a1", "audio": "wav/a1.wav", "text": "yes", "duration": 1.2, "speaker": "ann"}

`start` and `end` (seconds) name a stretch of a longer recording; `duration` is then that of the
stretch. Audio paths are relative to the manifest's folder or absolute. Keys beyond these are kept
in `Utterance.extra` and written back.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.errors import ManifestError
from asr.files import atomic_path

_KEYS = frozenset({"id", "audio", "text", "duration", "speaker", "start", "end"})
_REQUIRED = ("id", "audio", "text", "duration")
_BOM = b"\xef\xbb\xbf"
_LONGEST = 1e9  # seconds


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of speech and what is said in it; times in seconds."""

    id: str
    audio: Path
    text: str
    duration: float
    speaker: str = ""
    start: float = 0.0
    end: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class BadLine:
    """A manifest line that is no utterance: why, and its id where that could be read (else "")."""

    line: int
    id: str
    problem: str


def read_manifest(path: str | Path) -> list[Utterance]:
    """The utterances of a manifest in its order, with absolute audio paths.

    Raises:
        ManifestError: the first wrong line, as `path:line: expected ..., got ...; do ...`; a
            missing, unreadable or empty manifest.
    """
    utterances: list[Utterance] = []
    lines: dict[str, int] = {}
    for line, entry in read_entries(path):
        if isinstance(entry, BadLine):
            raise ManifestError(f"{path}:{line}: {entry.problem}")
        first = lines.setdefault(entry.id, line)
        if first != line:
            raise ManifestError(
                f"{path}:{line}: expected a new id, got {_shown(entry.id)} again after line"
                f" {first}; rename one of them"
            )
        utterances.append(entry)
    if not utterances:
        raise ManifestError(
            f"{path}:1: expected at least one utterance, got an empty manifest; prepare it again"
        )
    return utterances


def read_entries(path: str | Path) -> Iterator[tuple[int, Utterance | BadLine]]:
    """Each line's number and its utterance, or what is wrong with it; blank lines are passed over.

    Lines are judged alone: repeated ids are for the caller to find.

    Raises:
        ManifestError: the file is missing or cannot be read at all.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(
            f"{path}: expected a manifest, got '{reason}'; check the path or prepare the data"
        ) from error
    folder = os.fspath(Path(path).absolute().parent)
    for number, line in enumerate(content.removeprefix(_BOM).split(b"\n"), start=1):
        if line and not line.isspace():
            yield number, _parse_line(number, line, folder)


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances as a manifest, whole or not at all.

    Audio below the manifest's folder is written relative to it, so that the folder can be moved.

    Raises:
        ManifestError: an utterance that `read_manifest` would refuse, a repeated id, no utterance
            at all, a place that cannot be written.
    """
    folder = os.fspath(Path(path).absolute().parent)
    seen: set[str] = set()
    lines = []
    for utterance in utterances:
        record = _record(utterance, folder)
        problem = _problem(record) or _surrogate_problem(record)
        if problem is None and utterance.id in seen:
            problem = "expected a new id, got it again; rename one of them"
        if problem is not None:
            raise ManifestError(f"{path}: utterance {_shown(utterance.id)}: {problem}")
        seen.add(utterance.id)
        lines.append(json.dumps(record, ensure_ascii=False))
    if not lines:
        raise ManifestError(f"{path}: expected at least one utterance to write, got none")
    try:
        with atomic_path(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise ManifestError(
            f"{path}: expected a place to write to, got '{error.strerror}'; choose another path"
        ) from error


def split_speakers(
    utterances: Sequence[Utterance], speakers: int, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Hold out `speakers` whole speakers: (rest, held out), both in the order given.

    The choice depends on the seed and the set of speakers alone, not on the utterances' order.

    Raises:
        ManifestError: an utterance without a speaker; too few speakers to leave one on each side.

    >>> utterances = [Utterance(str(n), Path("a.wav"), "yes", 1.0, speaker=s)
    ...               for n, s in enumerate("abba")]
    >>> [[u.speaker for u in part] for part in split_speakers(utterances, 1, seed=0)]
    [['a', 'a'], ['b', 'b']]
    """
    for utterance in utterances:
        if not utterance.speaker:
            raise ManifestError(
                f"utterance {_shown(utterance.id)}: expected a speaker to split by, got none;"
                ' add "speaker" to the manifest'
            )
    names = sorted({utterance.speaker for utterance in utterances})
    if not 1 <= speakers < len(names):
        raise ManifestError(
            f"expected to hold out at least 1 and fewer than all {len(names)} speakers,"
            f" got {speakers}; hold out fewer or add speakers"
        )
    chosen = set(random.Random(seed).sample(names, speakers))
    rest = [utterance for utterance in utterances if utterance.speaker not in chosen]
    return rest, [utterance for utterance in utterances if utterance.speaker in chosen]


# --- one line ---


def _parse_line(number: int, line: bytes, folder: str) -> Utterance | BadLine:
    # Bytes are decoded here and not by json, which would guess UTF-16 and UTF-32.
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        byte = line[error.start]
        return BadLine(
            number, "", f"expected UTF-8 text, got byte 0x{byte:02x}; save the manifest as UTF-8"
        )
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or "numbers or nesting beyond reason"
        return BadLine(
            number, "", f"expected one JSON object, got {_shown(line)} ({reason}); correct the line"
        )
    problem = _problem(record)
    if problem is None and b"\\u" in line:  # the only way to a lone surrogate
        problem = _surrogate_problem(record)
    if problem is not None:
        return BadLine(number, _readable_id(record), problem)
    extra = {} if record.keys() <= _KEYS else {k: v for k, v in record.items() if k not in _KEYS}
    end = record.get("end")
    return Utterance(
        id=record["id"],
        audio=Path(os.path.join(folder, record["audio"])),  # noqa: PTH118 (twice as fast)
        text=record["text"],
        duration=float(record["duration"]),
        speaker=record.get("speaker") or "",
        start=float(record.get("start", 0.0)),
        end=None if end is None else float(end),
        extra=extra,
    )


def _record(utterance: Utterance, folder: str) -> dict[str, Any]:
    """The JSON object of an utterance; keys at their default are left out."""
    audio = os.fspath(utterance.audio.absolute())
    record: dict[str, Any] = {
        "id": utterance.id,
        "audio": audio.removeprefix(folder.rstrip(os.sep) + os.sep),
        "text": utterance.text,
        "duration": utterance.duration,
    }
    if utterance.speaker:
        record["speaker"] = utterance.speaker
    if utterance.start:
        record["start"] = utterance.start
    if utterance.end is not None:
        record["end"] = utterance.end
    taken = _KEYS & utterance.extra.keys()
    if taken:
        raise ManifestError(
            f"utterance {_shown(utterance.id)}: expected extra keys of other names than the"
            f" manifest's own, got {', '.join(sorted(taken))}; rename them"
        )
    return record | dict(utterance.extra)


def _problem(record: Any) -> str | None:
    """What is wrong with a parsed line, or None."""
    if not isinstance(record, dict):
        return f"expected one JSON object, got {_shown(record)}; write one utterance per line"
    for key in _REQUIRED:
        if key not in record:
            return f"expected the key {key!r}, got {_shown(list(record))}; add it"
    for key in ("id", "audio", "text"):
        if not isinstance(record[key], str):
            return f"expected {key!r} to be text, got {_shown(record[key])}; put it in quotes"
    for key in ("id", "audio"):
        if not record[key].strip() or "\0" in record[key]:
            return f"expected {key!r} to say something, got {_shown(record[key])}; fill it in"
    if not isinstance(record.get("speaker", ""), str | None):
        return f"expected 'speaker' to be text, got {_shown(record['speaker'])}; put it in quotes"
    return _time_problem(record)


def _time_problem(record: dict[str, Any]) -> str | None:
    duration, start, end = record["duration"], record.get("start", 0.0), record.get("end")
    if not (_is_number(duration) and duration > 0):
        return (
            f"expected 'duration' to be a positive number of seconds, got {_shown(duration)};"
            " measure the recording again"
        )
    if not (_is_number(start) and start >= 0):
        return f"expected 'start' to be 0 or more seconds, got {_shown(start)}; correct it"
    if end is not None and not (_is_number(end) and end > start):
        return (
            f"expected 'end' to be more seconds than 'start' ({_shown(start)}), got {_shown(end)};"
            " correct it"
        )
    return None


def _is_number(value: Any) -> bool:
    """A number that can be seconds of a recording; NaN, infinity and decades cannot."""
    return type(value) in (int, float) and abs(value) < _LONGEST


def _surrogate_problem(record: dict[str, Any]) -> str | None:
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return f"expected whole characters, got half of one in {_shown(record)}; correct the text"
    return None


def _readable_id(record: Any) -> str:
    value = record.get("id") if isinstance(record, dict) else None
    return value if isinstance(value, str) and value.isprintable() else ""


def _shown(value: Any) -> str:
    """A value as one short printable line."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace").strip()
    try:
        text = ascii(value) if not str(value).isprintable() else repr(value)
    except (ValueError, RecursionError):  # integers and nesting that Python will not print
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
