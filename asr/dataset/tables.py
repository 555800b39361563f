"""Tables of recordings and texts: csv, tsv, json, json lines, and LJ Speech's format, by row."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from asr.audio.files import AUDIO_SUFFIXES, is_recording
from asr.dataset.lines import numbered_lines, read_utf8, shown, split_lines
from asr.dataset.records import csv_rows, parse_json, tsv_rows
from asr.errors import AsrError
from asr.io import structured
from asr.io.paths import as_stored, forms
from asr.text.characters import canonical

AUDIO_COLUMNS = (
    "audio", "audio_filepath", "audio_path", "audio_file", "file_name", "filename", "path", "file",
    "wav", "wav_filename", "recording",
)  # fmt: skip
TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "spk")
TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")

_FOLDERS = ("", "clips", "wavs", "wav", "audio")  # beside a table
# Columns with their own manifest key, or that only manifests of other systems need.
_NO_EXTRA = frozenset(
    {"id", "audio", "text", "speaker", "duration", "start", "end", "offset", "printed"}
)
_LONGEST_EXTRA = 40  # characters; longer columns are texts, by which no report groups


def read_rows(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The number, location and values by column of each row; names in lower case."""
    suffix = path.suffix.lower()
    if suffix in (".json", ".jsonl"):
        if suffix == ".jsonl" or _has_json_lines(path):
            records: Iterator[tuple[int, str, Any]] = (
                (number, f"{path}:{number}", parse_json(line, path, number))
                for number, line in numbered_lines(path)
            )
        else:
            records = _json_records(path)
        for number, where, record in records:
            if not isinstance(record, dict):
                raise AsrError(
                    f"expected an object, got {shown(record)} ({where}): write one per recording"
                )
            yield (
                number,
                where,
                {canonical(str(key)).strip().lower(): v for key, v in record.items()},
            )
        return
    delimiter = delimiter_of(path)
    if delimiter == "|":
        bars = enumerate(split_lines(read_utf8(path)), start=1)
        rows: Iterator[tuple[int, list[str]]] = (
            (number, line.split("|") if line else []) for number, line in bars
        )
    else:
        rows = tsv_rows(path) if delimiter == "\t" else csv_rows(path, delimiter)
    yield from _table_rows(path, rows, headless=delimiter == "|")


def _table_rows(
    path: Path, rows: Iterator[tuple[int, list[str]]], headless: bool
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    header: list[str] = []
    for number, row in rows:
        where = f"{path}:{number}"
        if not any(map(str.strip, row)):
            continue
        if not header:
            header = [canonical(name).strip().lower() for name in row]
            if not headless or (_first(header, AUDIO_COLUMNS) and _first(header, TEXT_COLUMNS)):
                columns(header, where)
                continue
            # LJ Speech has no header: a name, the text as printed, the text as read aloud.
            header = ["audio", "text"] if len(row) == 2 else ["audio", "printed", "text"]
        if len(row) != len(header):
            raise AsrError(
                f"expected {len(header)} fields as in the first row, got {len(row)} in"
                f" {shown(row)} ({where}): quote or remove the separators"
            )
        yield number, where, dict(zip(header, row, strict=True))


def _json_records(path: Path) -> Iterator[tuple[int, str, Any]]:
    content = parse_json(read_utf8(path), path)
    if isinstance(content, dict):  # texts by recording
        content = [{"audio": name, "text": text} for name, text in content.items()]
    if not isinstance(content, list):
        raise AsrError(f"expected a list of objects, got {shown(content)} ({path}): write one")
    for number, record in enumerate(content, start=1):
        yield number, f"{path}: object {number}", record


def _has_json_lines(path: Path) -> bool:
    """Whether a .json file has one object per line, as NeMo's manifests do."""
    try:
        record = structured.parse_record(split_lines(read_utf8(path).lstrip())[0])
    except ValueError:
        return False
    return isinstance(record, dict) and _first(list(record), AUDIO_COLUMNS) is not None


def delimiter_of(path: Path) -> str:
    """The column separator, guessed from the first line. Spreadsheets of some countries write ;."""
    first = split_lines(read_utf8(path).lstrip("\r\n"))[0]
    if path.suffix.lower() == ".tsv":
        return "\t"
    if "|" in first and "," not in first.partition("|")[0]:
        return "|"
    for delimiter in (";", "\t"):
        if delimiter in first and "," not in first:
            return delimiter
    return ","


def columns(names: Sequence[str], where: str) -> tuple[str, str, str | None]:
    audio, text = _first(names, AUDIO_COLUMNS), _first(names, TEXT_COLUMNS)
    if audio is None or text is None:
        wanted = AUDIO_COLUMNS[:6] if audio is None else TEXT_COLUMNS
        raise AsrError(
            f"expected a column of {'recordings' if audio is None else 'texts'}"
            f" ({', '.join(wanted)}), got {shown(', '.join(names))} ({where}): rename it"
        )
    speaker = _first(names, SPEAKER_COLUMNS)
    for name in (audio, text, speaker):
        if name is not None and list(names).count(name) > 1:
            raise AsrError(
                f"expected one column '{name}', got {shown(', '.join(names))} ({where}): rename or "
                "remove the others"
            )
    return audio, text, speaker


def _first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)


def field(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if isinstance(value, int) and key not in AUDIO_COLUMNS + TEXT_COLUMNS:
        return str(value)  # speakers and ids are often numbers
    if not isinstance(value, str | None):
        raise AsrError(f"expected '{key}' to be text, got {shown(value)} ({where}): put quotes")
    return " ".join((value or "").split())


def file_name(row: Mapping[str, Any], key: str) -> str:
    """As `field`, with the spaces that the file may have in its name: several, or no-break ones."""
    return str(row[key]).strip(" \t\r\n")


def stretch(row: Mapping[str, Any], where: str) -> tuple[float, float | None]:
    """Start and end in seconds, from start or NeMo's offset, and from end or duration. A duration
    alone is that of the whole recording."""
    seconds: dict[str, float | None] = {}
    for key in ("start", "end", "offset", "duration"):
        value = row.get(key)
        try:
            seconds[key] = None if value is None or value == "" else float(value)
        except (TypeError, ValueError, OverflowError):
            raise AsrError(
                f"expected '{key}' to be seconds, got {shown(value)} ({where}): correct it"
            ) from None
    start = seconds["start"] or seconds["offset"] or 0.0
    end = seconds["end"]
    begins = seconds["start"] is not None or seconds["offset"] is not None
    if begins and end is None and seconds["duration"]:
        end = start + seconds["duration"]
    if not start >= 0 or (end is not None and not end > start):
        raise AsrError(
            f"expected an end after the start, got {start} to {end} s ({where}): correct it"
        )
    return start, end


def extra(row: Mapping[str, Any], taken: set[str]) -> dict[str, Any]:
    """Further short columns, by which reports can be broken down."""
    return {
        key: value
        for key, value in row.items()
        if key
        and key not in taken | _NO_EXTRA
        and isinstance(value, str | int | float)
        and not (isinstance(value, float) and not math.isfinite(value))  # JSON cannot represent it
        and 0 < len(str(value)) <= _LONGEST_EXTRA
    }


def find_recording(folder: Path, name: str) -> Path | None:
    """The recording named in a table, with or without its suffix, in the usual folders."""
    for place in filter(os.path.isdir, (folder / place for place in _FOLDERS)):
        path = as_stored(place / name.replace("\\", "/"))
        # os.path returns False for names that no file system accepts; Path would raise.
        if os.path.isfile(path):  # noqa: PTH113
            return path
        if not is_recording(path):
            for form, suffix in product(forms(os.fspath(path)), AUDIO_SUFFIXES):
                if os.path.isfile(f"{form}{suffix}"):  # noqa: PTH113
                    return Path(f"{form}{suffix}")
    return None
