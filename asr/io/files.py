"""Atomic writing of files and folders: under a temporary name, then renamed."""

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
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import psutil

from asr.errors import AsrError, disk_trouble
from asr.io.printable import printable_name
from asr.io.structured import parse_json

MOST_JSON = 1 << 28  # bytes of a file: the parsed values take many times as much memory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DAY_S = 86400.0
LONGEST_NAME = 100  # bytes, so that there is room for the suffix of `_owner`
MOST_SYNCED = 256  # files of a folder that are synced one by one


@contextmanager
def atomic_path(path: str | Path, before: str | Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place on success, remove it on error.

    Works for a file or a folder. The content is synced before the rename, so that a power failure
    leaves the old content or the new. An existing folder is replaced only when the new one is
    complete; a kill between the two renames of a replacement is undone by `restore_folders`. With
    `before`, the old folder is kept under that name and replaces an earlier one.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise AsrError(
            f"expected the name of a file or a folder, got {path}, a device or a pipe: choose "
            "another name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{_short(path.name)}.{_owner()}.tmp")
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
            error.filename = os.fspath(path)  # an error of `write` has no file name
        raise
    finally:
        _remove(temporary)


def _short(name: str) -> str:
    """The name, or of a long one a part with a digest: file systems limit names to 255 bytes, and
    encrypted ones to 143."""
    if len(os.fsencode(name)) < LONGEST_NAME:
        return name
    return f"{name[:12]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def _owner() -> str:
    """Identifies the writing process: its number, its machine or container, and a random part, so
    that no link can be prepared under the temporary name."""
    return f"{os.getpid()}-{_place()}-{secrets.token_hex(8)}"


def _place() -> str:
    """Identifies the machine or container, since another one may have the same process number."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:6]


def _is_abandoned(leftover: Path) -> bool:
    """Whether the writing process has ended. For another machine this is unknown: its files count
    as abandoned after a day."""
    process, place, _ = leftover.name.rsplit(".", 2)[1].split("-")
    try:
        if place == _place():
            return psutil.Process(int(process)).status() == psutil.STATUS_ZOMBIE
        return time.time() - leftover.lstat().st_mtime > DAY_S
    except psutil.NoSuchProcess:
        return not _is_hidden(int(process))
    except (OSError, psutil.AccessDenied):  # it has ended meanwhile, or is not visible
        return False


def _is_hidden(process: int) -> bool:
    """Whether a process runs whose entry in /proc only its user sees (`hidepid`)."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder. An error of a full disk must be reported.
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


def refuse_taken(folder: Path) -> None:
    """Raise AsrError unless a folder can be made there without replacing anything."""
    _refuse_mount(folder)
    taken = folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))
    if taken or folder.resolve() == Path.cwd():
        raise AsrError(f"expected a new folder, got {folder}, which exists: choose another name")


def _refuse_mount(folder: Path) -> None:
    if os.path.ismount(folder):
        raise AsrError(
            f"expected a folder that can be replaced, got {folder}, where a disk is mounted: name "
            "a folder in it"
        )


def check_replaceable(path: str | Path, marker: str, names: Collection[str] = ()) -> None:
    """Raise AsrError if a folder to be replaced does not hold a file named `marker`, as an earlier
    folder of its kind does, or holds others than `names`, unless that is empty: a mistyped name
    must not delete other data."""
    path = Path(path)
    _refuse_mount(path)
    empty = path.is_dir() and not any(path.iterdir())
    if path.resolve() == Path.cwd() or (
        path.exists() and not empty and not (path / marker).is_file()
    ):
        raise AsrError(
            f"expected a new folder or an earlier one with {marker} in it, got {path}: choose "
            "another name"
        )
    others = sorted(p.name for p in path.iterdir() if p.name not in names) if path.exists() else []
    if names and others:
        raise AsrError(
            f"expected a new folder or an earlier one of its kind, got {path} with "
            f"{printable_name(others[0])} in it, which would be lost: choose another name"
        )


def _replace_folder(new: Path, path: Path, before: Path | None) -> None:
    # POSIX cannot rename over a folder with content, so the old one is moved first.
    old = before or path.with_name(f".{path.name}.{_owner()}.old")
    if path.is_symlink() and not path.exists():  # to a folder that is gone
        path.unlink()
    if path.exists():
        if before is not None:
            _remove(before)
            if before.exists():  # a file in it is in use on a network drive
                before.rename(before.with_name(f".{before.name}.{_owner()}.tmp"))
        path.rename(old)
    new.rename(path)
    if before is None:
        _remove(old)  # of a link, not the folder that it names, which is the user's


_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9]+-[0-9a-f]{6}-[0-9a-f]{16}\.(?P<kind>tmp|old)")


def _leftovers(parent: Path) -> Iterator[tuple[Path, str, str]]:
    """Temporary files that ended processes left in `parent`, with their target and kind."""
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir()):
        found = _LEFTOVER.fullmatch(path.name)
        if found and _is_abandoned(path):
            yield path, found["name"], found["kind"]


def restore_folders(parent: str | Path) -> None:
    """Undo replacements in `parent` that a kill interrupted, and remove their temporary files.
    Files of running processes stay."""
    for path, name, kind in _leftovers(Path(parent)):
        if kind == "old" and not path.with_name(name).exists():
            path.rename(path.with_name(name))
        else:
            _remove(path)


def remove_leftovers(path: str | Path) -> None:
    """Remove temporary files beside `path` from processes that were killed while writing it."""
    path = Path(path)
    for leftover, name, kind in _leftovers(path.parent):
        if kind == "tmp" and name == _short(path.name):
            _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, work: str) -> Iterator[bool]:
    """Hold the lock file `path` while entered; only one process at a time can hold it.

    The lock belongs to the open file and ends with its process. False if the file system has no
    locks. The error names the other process's task as `work`.

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
    """The open lock file, locked; None if the file system has no locks."""
    while True:
        # Links are not followed: they could point at a file of another user.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AsrError(
                    f"expected no other {work} to run, got {lock.read(200) or 'a process'}, which "
                    f"holds {path}: wait for it, stop it, or choose another folder"
                ) from None
            except OSError:
                yield None
                return
            # The previous holder removes the file at its end: then this is no longer the file that
            # others open.
            if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                yield lock
                return


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, by `parse_json`. Raises OSError or ValueError."""
    path = Path(path)
    if path.stat().st_size > MOST_JSON:
        raise ValueError(f"more than {MOST_JSON >> 20} MB")
    return parse_json(path.read_bytes())


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
