"""Cache folders of the user."""

from __future__ import annotations

import functools
import getpass
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path


@functools.cache
def private_folder() -> Path | None:
    """A folder for caches: the user's own, else a temporary one; None if neither is writable.

    The caches of numba and Triton contain code. So no other user may be able to put a file there,
    and the folder does not depend on the working directory.
    """
    for folder in _candidates():
        try:
            for missing in reversed([folder, *folder.parents]):
                missing.mkdir(mode=0o700, exist_ok=True)  # `parents` would make them for a group
            if _is_private(folder):
                tempfile.TemporaryFile(dir=folder).close()
                return folder
        except OSError:
            continue
    return None


@functools.cache
def set_cache_folders(last: Path | None = None) -> None:
    """Point libraries to `private_folder` for their caches if their own choice would fail.

    Without a writable home, matplotlib warns, and Triton and datasets create a folder "~" in the
    working directory. torch's optimisers create a folder named after the user, who may be unknown
    to the system. Existing environment variables are kept. datasets must have a folder: `last` is
    used if there is no other.
    """
    homeless, nameless = not has_home(), not _inductor_finds_a_folder()
    folder = private_folder() if homeless or nameless else None
    if homeless:
        nowhere = Path(os.devnull, "no-cache")  # cannot be created, unlike "~"
        os.environ.setdefault("TRITON_HOME", str(folder or nowhere))
        if "XDG_CACHE_HOME" not in os.environ:
            os.environ.setdefault("HF_HOME", str((folder or last or nowhere) / "huggingface"))
        if folder is not None:
            os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    if nameless:
        # Any existing folder will do: torch writes to it only when it compiles, which asr does not
        # request.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder or "/"))


def has_home() -> bool:
    """Whether the user has a writable home."""
    home = _home()
    return home is not None and os.access(home, os.W_OK)


def _inductor_finds_a_folder() -> bool:
    try:
        getpass.getuser()
        return os.access(tempfile.gettempdir(), os.W_OK)
    except (OSError, KeyError):
        return False


def _home() -> Path | None:
    """The user's home, wherever it is; None if it is unknown."""
    if os.environ.get("HOME") == "":
        return None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None


def _candidates() -> Iterator[Path]:
    below_home = os.environ.get("XDG_CACHE_HOME", "")
    if Path(below_home).is_absolute():
        yield Path(below_home, "asr")
    if (home := _home()) is not None:
        yield home / ".cache" / "asr"
    temporary = Path(tempfile.gettempdir())
    if temporary != Path.cwd():  # Python's last resort
        yield temporary / f"asr-{os.geteuid()}"


def _is_private(folder: Path) -> bool:
    """Whether only this user can write to the folder or replace it."""
    own = folder.lstat()
    if not stat.S_ISDIR(own.st_mode) or own.st_uid != os.geteuid() or own.st_mode & 0o077:
        return False
    for parent in folder.resolve().parents:
        above = parent.stat()
        if above.st_uid not in (0, os.geteuid()):
            return False
        # In a sticky folder, such as /tmp, only owners can rename their files.
        if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
            return False
    return True
