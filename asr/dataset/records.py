"""Texts by id: utterances as JSON objects and as rows of a table.

The readers take the keys that may hold the text; the key of the first utterance is required in all.
Every error is a TranscriptError of one line with path and line, or the number of the object.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asr.dataset.lines import is_whole, numbered_lines, read_utf8, shown, split_lines
from asr.errors import TranscriptError
from asr.io import structured
from asr.io.structured import HalfCharacterError, RepeatedKeyError

csv.field_size_limit(2**31 - 1)  # Python's own limit, 131,072 characters, is below long transcripts

Entry = tuple[int, str, str]  # line, id, text

# --- JSON ---


def read_jsonl(path: Path, keys: Sequence[str]) -> Iterator[Entry]:
    """The utterances of a file with one object per line."""
    key = None
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        record = parse_json(line, path, number)
        key = key or _chosen_key(record, keys, where)
        yield number, *_record(record, key, where)


def read_json(path: Path, keys: Sequence[str]) -> dict[str, str]:
    """The texts of an object with texts by id, or of a list of objects."""
    content = parse_json(read_utf8(path), path)
    if isinstance(content, dict):
        if is_record(content, keys):
            raise TranscriptError(
                f"{path}: expected id: text for each utterance or a list of objects, got an object"
                " with 'id' and a text; put it in a list"
            )
        pairs = [
            checked(id_, text, "text", f"{path}: utterance {shown(id_)}")
            for id_, text in content.items()
        ]
    elif isinstance(content, list):
        key = None
        pairs = []
        for number, record in enumerate(content, start=1):
            where = f"{path}: object {number}"
            key = key or _chosen_key(record, keys, where)
            pairs.append(_record(record, key, where))
    else:
        raise TranscriptError(
            f"{path}: expected an object or a list, got {shown(content)}; write id: text for each"
            " utterance"
        )
    if not pairs:
        raise TranscriptError(f"{path}: expected at least one utterance, got none; add them")
    seen: dict[str, int] = {}
    for number, (id_, _) in enumerate(pairs, start=1):
        first = seen.setdefault(id_, number)
        if first != number:
            raise TranscriptError(
                f"{path}: object {number}: expected a new id, got {shown(id_)} again after object"
                f" {first}; rename or remove one of them"
            )
    return dict(pairs)


def is_record(content: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """Whether an object is probably one utterance and not texts by id."""
    return "id" in content and any(
        key in content for key in (*keys, "reference", "hypothesis", "text")
    )


def parse_json(text: str, path: Path, line: int | None = None) -> Any:
    """JSON without repeated keys: of two texts under one id, neither is chosen."""
    where = str(path) if line is None else f"{path}:{line}"

    try:
        return structured.parse_record(text)
    except json.JSONDecodeError as error:
        got = text.split("\n")[error.lineno - 1].strip()
        raise TranscriptError(
            f"{path}:{line or error.lineno}: expected JSON, got {shown(got)} ({error.msg});"
            " correct it"
        ) from None
    except RepeatedKeyError as error:
        raise TranscriptError(
            f"{where}: expected each key once, got {shown(error.key)} again; rename or remove it"
        ) from None
    except HalfCharacterError:
        raise TranscriptError(
            f"{where}: expected whole characters, got half of one; correct the text"
        ) from None
    except ValueError as error:
        raise TranscriptError(f"{where}: expected JSON, got {error}; correct it") from None


def _chosen_key(record: Any, keys: Sequence[str], where: str) -> str:
    """The first of the keys that an object has."""
    if not isinstance(record, dict):
        raise TranscriptError(
            f"{where}: expected an object with 'id' and {_either(keys)}, got {shown(record)};"
            " write one for each utterance"
        )
    for key in keys:
        if key in record:
            return key
    raise TranscriptError(
        f"{where}: expected the key {_either(keys)}, got {shown(list(record))}; name the key that"
        " has the text"
    )


def _either(keys: Sequence[str]) -> str:
    return " or ".join(map(repr, keys))


def _record(record: Any, key: str, where: str) -> tuple[str, str]:
    _chosen_key(record, [key], where)
    if "id" not in record:
        raise TranscriptError(f"{where}: expected the key 'id', got {shown(list(record))}; add it")
    return checked(record["id"], record[key], key, where)


def checked(id_: Any, text: Any, key: str, where: str) -> tuple[str, str]:
    """An id and a text, if they are valid."""
    for name, value in (("id", id_), (key, text)):
        if not isinstance(value, str):
            raise TranscriptError(
                f"{where}: expected {name!r} to be text, got {shown(value)}; put it in quotes"
            )
        if not is_whole(value):
            raise TranscriptError(
                f"{where}: expected whole characters, got half of one in {shown(value)};"
                " correct the text"
            )
    if not id_.strip():
        raise TranscriptError(
            f"{where}: expected 'id' to be non-empty text, got {shown(id_)}; fill it in"
        )
    return id_, text


# --- tables ---


def read_csv(path: Path, keys: Sequence[str]) -> Iterator[Entry]:
    """The utterances of a comma-separated table; a quoted text may have several lines."""
    return _entries(path, csv_rows(path), keys)


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Each row of a table with the number of its first line."""
    text = io.StringIO(read_utf8(path), newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    line = 1  # first line of the row; quoted texts may have several lines
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise TranscriptError(
                f"{path}:{line}: expected CSV, got an invalid row ({error}); fix its quotes"
            ) from None
        if row is None:
            return
        yield line, row
        line = reader.line_num + 1


def read_tsv(path: Path, keys: Sequence[str]) -> Iterator[Entry]:
    """The utterances of a tab-separated table, one per line."""
    return _entries(path, tsv_rows(path), keys)


def tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each row of a tab-separated table, with its line number."""
    for number, line in enumerate(split_lines(read_utf8(path)), start=1):
        yield number, _tsv_row(line)


def _tsv_row(line: str) -> list[str]:
    """The fields of a line. Some programs quote them as in CSV, others write literal quotes: a line
    that is not valid CSV is taken literally, and quotes never span lines."""
    try:
        return next(csv.reader([line], delimiter="\t", strict=True), [])
    except csv.Error:
        return line.split("\t")


def _entries(
    path: Path, rows: Iterator[tuple[int, list[str]]], keys: Sequence[str]
) -> Iterator[Entry]:
    header: list[str] = []
    for number, row in rows:
        if not any(field.strip() for field in row):
            continue
        if not header:
            header = [name.strip() for name in row]
            key = next((key for key in keys if key in header), None)
            if "id" not in header or key is None:
                raise TranscriptError(
                    f"{path}:{number}: expected the columns 'id' and {_either(keys)}, got"
                    f" {', '.join(map(shown, header))}; rename them or name the one of the text"
                )
            for name in ("id", key):
                if header.count(name) > 1:
                    raise TranscriptError(
                        f"{path}:{number}: expected one column {shown(name)}, got"
                        f" {header.count(name)}; rename or remove the others"
                    )
            continue
        if len(row) != len(header):
            raise TranscriptError(
                f"{path}:{number}: expected {len(header)} fields as in the header, got {len(row)}"
                f" in {shown(row)}; quote or remove the separators"
            )
        fields = dict(zip(header, row, strict=True))
        yield number, *checked(fields["id"].strip(), fields[key or ""], "text", f"{path}:{number}")
