"""Transcripts as files in a folder: their names, and which of them need not be made again.

A hidden file in the folder records every recording that is done, a JSON object a line: the name of
its files, their formats and sizes, the size and time of the recording, and a digest of the model
and of all settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from asr.errors import AsrError
from asr.inference.formats import SUFFIXES, Format, FormatConfig, to_text
from asr.inference.transcript import Transcript
from asr.io.files import atomic_path, digest, restore_folders
from asr.io.paths import files_below
from asr.io.printable import printable_name

RECORD = ".asr-transcripts.jsonl"


def settings_digest(settings: Mapping[str, object]) -> str:
    """A digest of settings; of one that is a path, such as the model folder, it is that of the
    files there. Raises OSError for a path that cannot be read."""
    total = hashlib.sha256()
    for name, value in sorted(settings.items()):
        content = _contents(value) if isinstance(value, Path) else value
        total.update(repr((name, content)).encode())
    return total.hexdigest()


def _contents(path: Path) -> list[tuple[str, str]]:
    files = files_below(path) if path.is_dir() else [path]
    return [(str(file.relative_to(path)), digest(file)) for file in files]


@dataclass(frozen=True)
class OutputFolder:
    """Where transcripts are written, a file per recording and format.

    Raises AsrError if that is impossible, or if it would replace one of the recordings.
    """

    folder: Path
    names: Mapping[Path, PurePath]
    """From `asr.inference.output_names`."""
    labels: Mapping[Path, str]
    """The names of the recordings in ctm and trn."""
    formats: Sequence[Format]
    config: FormatConfig = field(default_factory=FormatConfig)
    settings: str = ""
    """From `settings_digest`."""
    _states: dict[Path, list[int] | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_writable(self.folder)
        recordings = {_identity(path): path for path in self.names}
        for path in self.names:
            for file in self.files(path).values():
                replaced = recordings.get(_identity(file)) if file.exists() else None
                if replaced is not None:
                    raise AsrError(
                        "expected a folder in which no recording is replaced, got "
                        f"{printable_name(replaced)} in {self.folder}: choose another --out"
                    )
            # Before it is read, so that a later change is noticed.
            self._states[path] = _state(path)
        for folder in {self.folder / name.parent for name in self.names.values()}:
            restore_folders(folder)

    def files(self, path: Path) -> dict[Format, Path]:
        """The files of a recording."""
        name = self.names[path]
        return {f: self.folder / name.with_name(name.name + SUFFIXES[f]) for f in self.formats}

    def done(self) -> set[Path]:
        """The recordings whose files are whole, and of this model and these settings."""
        rows = self._rows()
        return {path for path in self.names if self._is_done(path, rows.get(self._name(path)))}

    def write(self, path: Path, transcript: Transcript) -> None:
        """Write the files of a recording, each atomically. One with an error counts as not done;
        without any text, nothing is written for it.

        Raises AsrError if its place leads out of the folder, and OSError.
        """
        sizes = {}
        empty = transcript.error is not None and not transcript.segments
        for format, file in ({} if empty else self.files(path)).items():
            if not file.parent.resolve().is_relative_to(self.folder.resolve()):
                raise AsrError(
                    f"expected a place in {self.folder} for {printable_name(path)}, got a link out "
                    f"of it, {printable_name(file.parent)}: remove the link"
                )
            text = to_text(transcript, format, self.labels[path], self.config).encode()
            with atomic_path(file) as temporary:
                temporary.write_bytes(text)
            sizes[format] = len(text)
        row: dict[str, Any] = {"name": self._name(path), "error": transcript.error}
        row |= {"settings": self.settings, "recording": self._states[path], "sizes": sizes}
        self._append(json.dumps(row) + "\n")

    def _name(self, path: Path) -> str:
        return self.names[path].as_posix()

    def _is_done(self, path: Path, row: Mapping[str, Any] | None) -> bool:
        if row is None or row.get("error") or row.get("settings") != self.settings:
            return False
        if self._states[path] is None or row.get("recording") != self._states[path]:
            return False
        sizes = row.get("sizes")
        return isinstance(sizes, dict) and all(
            file.is_file() and sizes.get(format) == file.stat().st_size
            for format, file in self.files(path).items()
        )

    def _rows(self) -> dict[str, dict[str, Any]]:
        """The last row of each name."""
        rows = {}
        try:
            lines = (self.folder / RECORD).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return {}
        for line in lines.splitlines():
            try:
                row = json.loads(line)
                rows[str(row["name"])] = row
            except (ValueError, TypeError, KeyError):
                continue  # the machine stopped while it was written
        return rows

    def _append(self, line: str) -> None:
        with (self.folder / RECORD).open("ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":
                line = "\n" + line
            file.write(line.encode())


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _state(path: Path) -> list[int] | None:
    """Size and time of a recording; None if there is no such file, as for standard input."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise AsrError(
            f"expected a folder to write into, got {folder} ({error.strerror}): choose another "
            "--out"
        ) from None
