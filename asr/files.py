"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from asr.errors import AsrError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place on success, remove it on error.

    Works for a file or a folder. An existing folder is replaced only once the new one is whole;
    a kill between the two renames that this takes is undone by `restore_folders`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir():
            _replace_folder(temporary, path)
        else:
            temporary.replace(path)
    finally:
        _remove(temporary)


def check_replaceable(path: str | Path, marker: str) -> None:
    """Raise AsrError where a folder is to be written over something else than an earlier one of its
    kind, which holds a file named `marker`: what a slip of the keyboard names must not be lost."""
    path = Path(path)
    empty = path.is_dir() and not any(path.iterdir())
    if path.resolve() == Path.cwd() or (
        path.exists() and not empty and not (path / marker).is_file()
    ):
        raise AsrError(
            f"expected a new folder or an earlier one with {marker} in it, got {path}: choose "
            "another name"
        )


def _replace_folder(new: Path, path: Path) -> None:
    # POSIX cannot rename over a folder that has content, so the old one steps aside first.
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(old)
    new.rename(path)
    if old.exists():
        shutil.rmtree(old)


def restore_folders(parent: str | Path) -> None:
    """Undo replacements in `parent` that a kill cut short, and remove what they left behind."""
    for old in Path(parent).glob(".*.[0-9]*.old"):
        path = old.with_name(_target_name(old))
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)
    for unfinished in Path(parent).glob(".*.[0-9]*.tmp"):
        _remove(unfinished)


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that were killed while they wrote `path` left beside it."""
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.[0-9]*.tmp"):
        process = leftover.name.split(".")[-2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _target_name(leftover: Path) -> str:
    # .NAME.PID.old
    return leftover.name[1:].rsplit(".", 2)[0]


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises OSError or json.JSONDecodeError."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
