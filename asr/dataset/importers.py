"""Recordings with texts in common layouts, read as utterances.

    a folder        recordings, each with a text of the same name (.txt or .lab)
    a table         csv, tsv, json, jsonl or LJ Speech's format: a recording and a text per row
    Kaldi           wav.scp and text, with segments and utt2spk if they exist
    Hugging Face    an audio folder: metadata.csv or metadata.jsonl beside the recordings
    Common Voice    clips with validated.tsv or train.tsv

Nothing is decoded here: the duration of every utterance is 0 until it is measured.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from asr.audio.files import is_recording, passed_over
from asr.dataset.kaldi import read_kaldi
from asr.dataset.lines import check_new, read_utf8, split_lines
from asr.dataset.manifest import Utterance
from asr.dataset.source import LeftOut, Source, new_utterance
from asr.dataset.tables import (
    TABLE_SUFFIXES,
    columns,
    delimiter_of,
    extra,
    field,
    file_name,
    find_recording,
    read_rows,
    stretch,
)
from asr.errors import AsrError, TranscriptError
from asr.io.foreign import kind_of
from asr.io.paths import as_stored, composed, files_below
from asr.io.printable import printable_name

Kind = Literal["folder", "table", "metadata", "Kaldi", "Common Voice"]

TEXT_SUFFIXES = (".txt", ".lab")

_METADATA = ("metadata.csv", "metadata.jsonl")
_COMMON_VOICE = ("validated.tsv", "train.tsv")
_VOLUNTEER = ("age", "gender", "accents", "accent", "variant", "locale")
_PARTS = frozenset({"train", "dev", "test", "valid", "validation", "eval"})


def detect(path: Path) -> Kind:
    """The type of source at a path. Raises AsrError if it is none."""
    if path.is_dir():
        if (path / "wav.scp").is_file():
            return "Kaldi"
        if _common_voice_tables(path):
            return "Common Voice"
        return "metadata" if _metadata(path) else "folder"
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return "table"
    if path.is_file() and path.suffix.lower() == ".txt" and delimiter_of(path) == "|":
        return "table"
    got = kind_of(path) or "another file" if path.exists() else "no such file"
    raise AsrError(
        f"expected a folder or a table (.csv, .tsv, .json, .jsonl), got {got} ({path}): check it"
    )


def read_source(path: str | Path) -> Source:
    """The utterances of a source, with absolute audio paths, distinct ids and duration 0.

    Recordings without text and texts without recording are listed as left out. Raises AsrError
    naming file and line for a malformed table, and for a source without utterances.
    """
    path = as_stored(path)
    kind = detect(path)
    if kind == "folder":
        return _read_folder(path)
    if kind == "Kaldi":
        return read_kaldi(path)
    if kind == "Common Voice":
        return _read_common_voice(path)
    return _read_tables([path] if kind == "table" else _metadata(path), path)


# --- a folder of recordings and texts ---


def _read_folder(folder: Path) -> Source:
    unreadable: list[str] = []
    files = files_below(folder, unreadable.append)
    recordings = [p for p in files if is_recording(p) and p.is_file()]
    texts = [p for p in files if p.suffix.lower() in TEXT_SUFFIXES and p.is_file()]
    taken = {*recordings, *texts}
    if not recordings or not texts:
        tables = sorted(p for p in folder.glob("*") if p.suffix.lower() in TABLE_SUFFIXES)
        hint = f"name the table, {tables[0]}" if tables else "put ann1.txt beside ann1.wav"
        raise AsrError(
            f"expected recordings and a text of the same name for each, got {len(recordings)}"
            f" recordings and {len(texts)} texts ({folder}): {hint}"
        )
    beside: dict[tuple[Path, str], Path] = {}
    for p in sorted(texts, key=lambda p: p.suffix.lower() != ".txt"):
        beside.setdefault((p.parent, composed(p.stem)), p)
    once = Counter(composed(p.stem) for p in texts)
    elsewhere = {composed(p.stem): p for p in texts if once[composed(p.stem)] == 1}
    stems = Counter(composed(p.stem) for p in recordings)
    speakers = folders_as_speakers(recordings, folder)
    used, found = set(), []
    left_out = [LeftOut(*line.split(": ", 1)) for line in unreadable]
    for audio in recordings:
        stem = composed(audio.stem)
        text = beside.get((audio.parent, stem))
        if text is None and stems[stem] == 1:
            text = elsewhere.get(stem)
        if text is None:
            left_out.append(LeftOut(str(audio), "no text of the same name"))
            continue
        used.add((text.parent, composed(text.stem)))
        try:
            words = " ".join(read_utf8(text).split())
        except TranscriptError as error:
            empty = text.is_file() and not text.stat().st_size
            left_out.append(LeftOut(str(audio), f"{text} is empty" if empty else str(error)))
            continue
        name = audio.relative_to(folder).with_suffix("").as_posix()
        found.append(new_utterance(name, audio, words, speakers.get(audio, "")))
    left_out += [
        LeftOut(str(p), "no recording of the same name")
        for p in texts
        if (p.parent, composed(p.stem)) not in used
    ]
    named = "the sub-folders" if speakers else ""
    kind = "a folder of recordings, each with a text of the same name"
    others = tuple(p for p in files if p not in taken)
    second = [p for p in texts if (k := (p.parent, composed(p.stem))) in used and beside[k] != p]
    notes = [passed_over(others, folder)] if others else []
    notes += [_second_texts(second, folder)] if second else []
    note = "; ".join(notes)
    return Source(kind, distinct_ids(found), tuple(left_out), named, note)


def _second_texts(texts: Sequence[Path], folder: Path) -> str:
    names = printable_name(texts[0].relative_to(folder)) + (" and others" if texts[1:] else "")
    count = f"{len(texts)} text{'s' if texts[1:] else ''}"
    return f"left {count} aside, since another of the same name is used: {names}"


def folders_as_speakers(recordings: Sequence[Path], folder: Path) -> dict[Path, str]:
    """The first sub-folder level that differs, if every recording has one; otherwise none."""
    common = Path(os.path.commonpath([p.parent for p in recordings]))
    base = common if common.is_relative_to(folder) else folder
    names = {}
    for path in recordings:
        parts = list(path.relative_to(base).parts[:-1])
        while parts and parts[0].lower() in _PARTS:  # part of a corpus, not a speaker
            del parts[0]
        if not parts:
            return {}
        names[path] = parts[0]
    return names if len(set(names.values())) > 1 else {}


# --- tables ---


def _metadata(folder: Path) -> list[Path]:
    """The metadata of a folder, or of its parts (train, test). If two files describe the same
    recordings, the first counts."""
    parts = sorted(p for p in folder.glob("*") if p.name.lower() in _PARTS)
    found = []
    for place in (folder, *parts):
        found += [place / name for name in _METADATA if (place / name).is_file()][:1]
        if found and place == folder:
            return found
    return found


def _read_tables(paths: Sequence[Path], folder: Path) -> Source:
    found: list[Utterance] = []
    left_out: list[LeftOut] = []
    ids: dict[str, int] = {}
    for path in paths:
        for number, where, row in read_rows(path):
            audio, text, speaker = columns(list(row), where)
            name, words = field(row, audio, where), field(row, text, where)
            recording = find_recording(path.parent, file_name(row, audio)) if name else None
            if name and recording is None:  # its spaces may be stray ones
                recording = find_recording(path.parent, name)
            start, end = stretch(row, where)
            own = field(row, "id", where) if "id" in row else ""
            if own and len(paths) == 1:
                check_new(ids, own, number, path)
            if recording is None or not words:
                left_out.append(LeftOut(where, _lack(name, recording)))
                continue
            bare = Path(name).with_suffix("")
            id_ = own or (bare.name if bare.is_absolute() else bare.as_posix())
            who = field(row, speaker, where) if speaker else ""
            more = extra(row, {audio, text, speaker or ""})
            found.append(new_utterance(id_, recording, words, who, start, end, more))
    if not found and not left_out:
        raise AsrError(f"expected rows of recordings, got none ({paths[0]}:1): add them")
    kind = f"a table, {paths[0]}" if len(paths) == 1 else f"{len(paths)} tables in {folder}"
    named = "a column of the table" if any(u.speaker for u in found) else ""
    return Source(kind, distinct_ids(found), tuple(left_out), named)


def _lack(name: str, recording: Path | None) -> str:
    if recording is not None:
        return "no text"
    return f"no such recording: {name}" if name else "no recording is named"


# --- Common Voice ---


def _common_voice_tables(folder: Path) -> list[Path]:
    """The best table of each language in a release, at most two folders below."""
    places = {
        p.parent for pattern in ("clips", "*/clips", "*/*/clips") for p in folder.glob(pattern)
    }
    tables = []
    for place in sorted(places):
        tables += [place / name for name in _COMMON_VOICE if (place / name).is_file()][:1]
    return tables


def _read_common_voice(folder: Path) -> Source:
    tables = _common_voice_tables(folder)
    if len(tables) > 1:
        raise AsrError(
            f"expected one language of Common Voice, got {len(tables)} ({folder}): name its folder,"
            f" such as {tables[0].parent}"
        )
    (table,) = tables
    header: list[str] = []
    found, left_out = [], []
    # Quotation marks are part of sentences, so this is not csv.
    for number, line in enumerate(split_lines(read_utf8(table)), start=1):
        where, values = f"{table}:{number}", line.split("\t")
        if not header:
            header = values
            columns(header, where)
            continue
        row = dict(zip(header, values, strict=False))
        if not line.strip():
            continue
        name, words = row.get("path", ""), " ".join(row.get("sentence", "").split())
        clip = find_recording(table.parent, name) if name else None
        if clip is None or not words:
            left_out.append(LeftOut(where, _lack(name, clip)))
            continue
        more = {key: row[key] for key in _VOLUNTEER if row.get(key)}
        speaker = row.get("client_id", "")
        found.append(new_utterance(clip.stem, clip, words, speaker, extra=more))
    kind = f"a release of Common Voice, {table}"
    named = "client_id" if any(u.speaker for u in found) else ""
    return Source(kind, distinct_ids(found), tuple(left_out), named)


# --- utterances ---


def distinct_ids(utterances: Iterable[Utterance]) -> tuple[Utterance, ...]:
    """The same utterances; a repeated id gets a number, from 2."""
    seen: set[str] = set()
    result = []
    for utterance in utterances:
        id_, number = utterance.id, 1
        while id_ in seen:
            number += 1
            id_ = f"{utterance.id}-{number}"
        seen.add(id_)
        result.append(utterance if id_ == utterance.id else replace(utterance, id=id_))
    return tuple(result)
