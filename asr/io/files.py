"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import psutil

from asr.errors import AsrError, disk_trouble
from asr.io.structured import parse_json

MOST_JSON = 1 << 28  # bytes of a file: the values that it is read into take many times the room

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DAY_S = 86400.0
LONGEST_NAME = 200  # bytes, so that what `_owner` adds has room
MOST_SYNCED = 256  # files of a folder that are synced one by one


@contextmanager
def atomic_path(path: str | Path, before: str | Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place on success, remove it on error.

    Works for a file or a folder. What is written is on the disk before it is renamed, so that a
    power cut leaves the old content or the new. An existing folder is replaced only once the new
    one is whole; a kill between the two renames that this takes is undone by `restore_folders`.
    With `before` the old folder is kept under that name, in place of an earlier one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # File systems take names of 255 bytes; a long one is shortened, and only its end differs.
    short = path.name if len(os.fsencode(path.name)) < LONGEST_NAME else path.name[:40]
    temporary = path.with_name(f".{short}.{_owner()}.tmp")
    try:
        yield temporary
        _sync_below(temporary)
        if temporary.is_dir():
            _replace_folder(temporary, path, None if before is None else Path(before))
        else:
            temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        if disk_trouble(error):
            error.filename = os.fspath(path)  # an error of `write` has no name
        raise
    finally:
        _remove(temporary)


def _owner() -> str:
    """Names the process that writes: its number, where that number holds, and what nobody can
    guess, so that no link can lie in wait under the temporary name."""
    return f"{os.getpid()}-{_place()}-{secrets.token_hex(8)}"


def _place() -> str:
    """Tells machines and containers apart, in which the same number is another process."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:6]


def _is_abandoned(leftover: Path) -> bool:
    """Whether the process that wrote it has ended. Of another machine nobody can tell: what it
    wrote counts as abandoned after a day."""
    process, place, _ = leftover.name.rsplit(".", 2)[1].split("-")
    try:
        if place == _place():
            return psutil.Process(int(process)).status() == psutil.STATUS_ZOMBIE
        return time.time() - leftover.lstat().st_mtime > DAY_S
    except psutil.NoSuchProcess:
        return True
    except (OSError, psutil.AccessDenied):  # it has gone meanwhile, or lives out of sight
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder. A full disk may show here and must be reported.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _sync_below(path: Path) -> None:
    if not path.is_dir():
        _sync(path)
        return
    inside = list(itertools.islice(path.rglob("*"), MOST_SYNCED + 1))
    if len(inside) > MOST_SYNCED:  # an unpacked corpus: one sync of everything is faster
        os.sync()
        return
    for item in inside:
        if not item.is_symlink():
            _sync(item)
    _sync(path)


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


def _replace_folder(new: Path, path: Path, before: Path | None) -> None:
    # POSIX cannot rename over a folder that has content, so the old one steps aside first.
    old = before or path.with_name(f".{path.name}.{_owner()}.old")
    if path.exists():
        if before is not None:
            _remove(before)
        path.rename(old)
    new.rename(path)
    if before is None and old.exists():
        shutil.rmtree(old)


_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9]+-[0-9a-f]{6}-[0-9a-f]{16}\.(?P<kind>tmp|old)")


def _leftovers(parent: Path) -> Iterator[tuple[Path, str, str]]:
    """What processes that have ended left in `parent`, with the name it was for and its kind."""
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir()):
        found = _LEFTOVER.fullmatch(path.name)
        if found and _is_abandoned(path):
            yield path, found["name"], found["kind"]


def restore_folders(parent: str | Path) -> None:
    """Undo replacements in `parent` that a kill cut short, and remove what they left behind. What
    a living process is writing stays."""
    for path, name, kind in _leftovers(Path(parent)):
        if kind == "old" and not path.with_name(name).exists():
            path.rename(path.with_name(name))
        else:
            _remove(path)


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes that were killed while they wrote `path` left beside it."""
    path = Path(path)
    for leftover, name, kind in _leftovers(path.parent):
        if kind == "tmp" and name == path.name:
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, work: str) -> Iterator[bool]:
    """Hold the lock file `path` while entered: only one process at a time can.

    The lock belongs to the open file, so it ends with its process, however that ends. False where
    the file system has no locks. `work` says in the error what the other process does.

    Raises AsrError naming the process that holds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield False
        return
    with _opened_lock(path, work) as lock:
        if lock is None:
            yield False
            return
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _opened_lock(path: Path, work: str) -> Iterator[TextIO | None]:
    """The open lock file, locked; None where the file system has no locks."""
    while True:
        # Not through a link, which could point at a file of somebody else.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AsrError(
                    f"expected no other {work} at work, got {lock.read(200) or 'a process'}, which "
                    f"holds {path}: wait for it, stop it, or choose another folder"
                ) from None
            except OSError:
                yield None
                return
            # Whoever held it before removed the file at its end: then this is no longer the one
            # that others open.
            if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                yield lock
                return


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, as `parse_json` has it. Raises OSError or ValueError."""
    path = Path(path)
    if path.stat().st_size > MOST_JSON:
        raise ValueError(f"more than {MOST_JSON >> 20} MB")
    return parse_json(path.read_bytes())


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
