"""Manifests: one JSON object per line, each an utterance with its recording and transcript.

    {"id": "a1", "audio": "wav/a1.wav", "text": "yes", "duration": 1.2, "speaker": "ann"}

`start` and `end` (seconds) select a segment of a longer recording; `duration` is then that of the
segment. `packed` gives the bytes of a recording within an archive, as [first, count]. Audio paths
are relative to the manifest's folder or absolute. Other keys are kept in `Utterance.extra` and
written back.
"""

from __future__ import annotations

import io
import json
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from asr.errors import ManifestError, disk_trouble
from asr.io.files import atomic_path
from asr.io.structured import HalfCharacterError, parse_record

_KEYS = frozenset({"id", "audio", "text", "duration", "speaker", "start", "end", "packed"})
_REQUIRED = ("id", "audio", "text", "duration")
_BOM = b"\xef\xbb\xbf"
_LONGEST = 1e9  # seconds
_LARGEST = 1 << 60  # bytes


@dataclass(frozen=True, slots=True)
class Utterance:
    """One segment of speech and its transcript; times in seconds."""

    id: str
    audio: Path
    text: str
    duration: float
    speaker: str = ""
    start: float = 0.0
    end: float | None = None
    packed: tuple[int, int] | None = None
    """First byte and number of bytes of its recording within `audio`; None: the whole file."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class BadLine:
    """A malformed manifest line: the reason, and its id if that is readable (else "")."""

    line: int
    id: str
    problem: str


class Manifest(Sequence[Utterance]):
    """The utterances of a manifest in order; each object is created on access.

    The bytes of the file are kept. They take a fifth of the memory of the objects: 200 MB for a
    million utterances.
    """

    def __init__(self, path: str | Path, audio: Path | None) -> None:
        """Read and check every line. Raises ManifestError like `read_manifest`."""
        self._content = _content(path)
        self._folder = _folder(path) if audio is None else os.fspath(audio.absolute())
        self._starts = array("q")
        self.durations = array("d")
        """Seconds of every utterance."""
        self.speakers: list[str] = []
        ids: set[str] = set()
        for number, start, line in _lines(self._content):
            record = _parsed(number, line)
            if isinstance(record, BadLine):
                raise ManifestError(f"{path}:{number}: {record.problem}")
            if record["id"] in ids:
                raise ManifestError(f"{path}:{number}: {_repeated(record['id'], self._content)}")
            ids.add(record["id"])
            self._starts.append(start)
            self.durations.append(record["duration"])
            self.speakers.append(sys.intern(record.get("speaker") or ""))
        if not ids:
            raise ManifestError(
                f"{path}:1: expected at least one utterance, got an empty manifest; prepare it"
                " again"
            )

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self._starts[index]
        end = self._content.find(b"\n", start)
        line = self._content[start : end if end >= 0 else None]
        # As when the line was checked: joined files may have a mark at the start of any line.
        return _utterance(json.loads(line.decode("utf-8").removeprefix("\ufeff")), self._folder)


@dataclass(frozen=True)
class Selection(Sequence[Utterance]):
    """A selection of utterances by index."""

    utterances: Sequence[Utterance]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        if isinstance(index, slice):
            return [self.utterances[place] for place in self.places[index]]
        return self.utterances[self.places[index]]


@dataclass(frozen=True)
class Joined(Sequence[Utterance]):
    """The utterances of two manifests, one after the other."""

    first: Sequence[Utterance]
    second: Sequence[Utterance]

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        early = index < len(self.first)
        return self.first[index] if early else self.second[index - len(self.first)]


def read_manifest(path: str | Path, audio: Path | None = None) -> Manifest:
    """The utterances of a manifest in order, with absolute audio paths: relative ones are below the
    folder `audio` if given, else below that of the manifest.

    Raises:
        ManifestError: the first wrong line, as `path:line: expected ..., got ...; do ...`; a
            missing, unreadable or empty manifest.
    """
    return Manifest(path, audio)


def read_entries(path: str | Path) -> Iterator[tuple[int, Utterance | BadLine]]:
    """Each line's number and its utterance, or its error; empty lines are skipped.

    Lines are checked independently: the caller finds repeated ids.

    Raises:
        ManifestError: the file is missing or unreadable.
    """
    folder = _folder(path)
    for number, _, line in _lines(_content(path)):
        record = _parsed(number, line)
        yield number, record if isinstance(record, BadLine) else _utterance(record, folder)


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances as a manifest, atomically.

    Audio below the manifest's folder is written with a relative path, so that the folder can be
    moved.

    Raises:
        ManifestError: an utterance that `read_manifest` would refuse, a repeated id, no utterance,
        or a path that cannot be written.
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
            raise ManifestError(f"{path}: utterance {shown(utterance.id)}: {problem}")
        seen.add(utterance.id)
        lines.append(json.dumps(record, ensure_ascii=False))
    if not lines:
        raise ManifestError(f"{path}: expected at least one utterance to write, got none")
    try:
        with atomic_path(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        if disk_trouble(error):
            raise
        raise ManifestError(
            f"{path}: expected a writable path, got '{error.strerror}'; choose another path"
        ) from error


# --- lines ---


def _content(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes().removeprefix(_BOM)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(
            f"{path}: expected a manifest, got '{reason}'; check the path or prepare the data"
        ) from error


def _folder(path: str | Path) -> str:
    return os.fspath(Path(path).absolute().parent)


def _lines(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Number, first byte and content of every non-empty line."""
    start = 0
    for number, line in enumerate(io.BytesIO(content), start=1):
        if not line.isspace():
            yield number, start, line
        start += len(line)


def _repeated(name: str, content: bytes) -> str:
    records = ((number, _parsed(number, line)) for number, _, line in _lines(content))
    first = next(n for n, record in records if isinstance(record, dict) and record["id"] == name)
    return f"expected a new id, got {shown(name)} again after line {first}; rename one of them"


def _parsed(number: int, line: bytes) -> dict[str, Any] | BadLine:
    """The utterance of a line, or its error."""
    try:
        record = parse_record(line.decode("utf-8"))
    except HalfCharacterError:
        half = f"expected whole characters, got half of one in {shown(line)}; correct the text"
        return BadLine(number, "", half)
    except UnicodeDecodeError as error:
        byte = line[error.start]
        return BadLine(
            number, "", f"expected UTF-8 text, got byte 0x{byte:02x}; save the manifest as UTF-8"
        )
    except ValueError as error:
        reason = getattr(error, "msg", None) or str(error)
        return BadLine(
            number, "", f"expected one JSON object, got {shown(line)} ({reason}); correct the line"
        )
    problem = _problem(record)
    if problem is not None:
        return BadLine(number, _readable_id(record), problem)
    said: dict[str, Any] = record
    return said


def _utterance(record: dict[str, Any], folder: str) -> Utterance:
    extra = {} if record.keys() <= _KEYS else {k: v for k, v in record.items() if k not in _KEYS}
    end, packed = record.get("end"), record.get("packed")
    return Utterance(
        id=record["id"],
        audio=Path(os.path.join(folder, record["audio"])),  # noqa: PTH118 (twice as fast)
        text=record["text"],
        duration=float(record["duration"]),
        speaker=sys.intern(record.get("speaker") or ""),
        start=float(record.get("start", 0.0)),
        end=None if end is None else float(end),
        packed=None if packed is None else (packed[0], packed[1]),
        extra=extra,
    )


def _record(utterance: Utterance, folder: str) -> dict[str, Any]:
    """The JSON object of an utterance, without keys at their default."""
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
    if utterance.packed is not None:
        record["packed"] = list(utterance.packed)
    taken = _KEYS & utterance.extra.keys()
    if taken:
        raise ManifestError(
            f"utterance {shown(utterance.id)}: expected extra keys of other names than the"
            f" manifest's own, got {', '.join(sorted(taken))}; rename them"
        )
    return record | dict(utterance.extra)


def _problem(record: Any) -> str | None:
    """What is wrong with a parsed line, or None."""
    if not isinstance(record, dict):
        return f"expected one JSON object, got {shown(record)}; write one utterance per line"
    for key in _REQUIRED:
        if key not in record:
            return f"expected the key {key!r}, got {shown(list(record))}; add it"
    for key in ("id", "audio", "text"):
        if not isinstance(record[key], str):
            return f"expected {key!r} to be text, got {shown(record[key])}; put it in quotes"
    for key in ("id", "audio"):
        if not record[key].strip() or "\0" in record[key]:
            return f"expected {key!r} to be non-empty text, got {shown(record[key])}; fill it in"
    if not isinstance(record.get("speaker", ""), str | None):
        return f"expected 'speaker' to be text, got {shown(record['speaker'])}; put it in quotes"
    return _time_problem(record) or _packed_problem(record.get("packed"))


def _time_problem(record: dict[str, Any]) -> str | None:
    duration, start, end = record["duration"], record.get("start", 0.0), record.get("end")
    if not (_is_number(duration) and duration > 0):
        return (
            f"expected 'duration' to be a positive number of seconds, got {shown(duration)};"
            " measure the recording again"
        )
    if not (_is_number(start) and start >= 0):
        return f"expected 'start' to be 0 or more seconds, got {shown(start)}; correct it"
    if end is not None and not (_is_number(end) and end > start):
        return (
            f"expected 'end' to be more seconds than 'start' ({shown(start)}), got {shown(end)};"
            " correct it"
        )
    return None


def _packed_problem(packed: Any) -> str | None:
    if packed is None:
        return None
    if isinstance(packed, list) and [type(number) for number in packed] == [int, int]:
        first, count = packed
        if 0 <= first < _LARGEST and 0 < count < _LARGEST:
            return None
    return (
        f"expected 'packed' to be the first byte and the number of bytes, got {shown(packed)};"
        " pack the recordings again"
    )


def _is_number(value: Any) -> bool:
    """A plausible number of seconds; not NaN, infinity or decades."""
    return type(value) in (int, float) and abs(value) < _LONGEST


def _surrogate_problem(record: dict[str, Any]) -> str | None:
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return f"expected whole characters, got half of one in {shown(record)}; correct the text"
    return None


def _readable_id(record: Any) -> str:
    value = record.get("id") if isinstance(record, dict) else None
    return value if isinstance(value, str) and value.isprintable() else ""


def shown(value: Any) -> str:
    """A value as one short printable line."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace").strip()
    try:
        text = ascii(value) if not str(value).isprintable() else repr(value)
    except (ValueError, RecursionError):  # integers and nesting that Python does not print
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
