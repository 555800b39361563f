"""Where this user's caches may lie."""

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
    """A folder for caches: the user's own, else one among the temporary files; None where neither
    can be written to.

    What numba and Triton keep is code. So no other user may be able to put a file there, and the
    folder does not depend on where the command is run.
    """
    for folder in _candidates():
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_private(folder):
                tempfile.TemporaryFile(dir=folder).close()
                return folder
        except OSError:
            continue
    return None


@functools.cache
def settle(last: Path | None = None) -> None:
    """Let libraries keep their caches in `private_folder` where their own choice would fail.

    Without a home that can be written to, matplotlib complains, and Triton and datasets make a
    folder "~" where the command is run. torch's optimisers make a folder named after the user,
    whom the system may not know. What the environment says already stays as it is. datasets cannot
    do without: `last` serves it where nothing else does.
    """
    homeless, nameless = not has_home(), not _inductor_finds_a_folder()
    folder = private_folder() if homeless or nameless else None
    if homeless:
        nowhere = Path(os.devnull, "no-cache")  # cannot be made, unlike "~"
        os.environ.setdefault("TRITON_HOME", str(folder or nowhere))
        if "XDG_CACHE_HOME" not in os.environ:
            os.environ.setdefault("HF_HOME", str((folder or last or nowhere) / "huggingface"))
        if folder is not None:
            os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    if nameless:
        # Any folder that exists will do: torch fills it only when it compiles, which asr does not
        # ask for.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder or "/"))


def has_home() -> bool:
    """Whether the user has a home that can be written to."""
    home = _home()
    return home is not None and os.access(home, os.W_OK)


def _inductor_finds_a_folder() -> bool:
    try:
        getpass.getuser()
        return os.access(tempfile.gettempdir(), os.W_OK)
    except (OSError, KeyError):
        return False


def _home() -> Path | None:
    """The user's home, wherever it is; None where nothing says which it is."""
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
    """Whether the folder is this user's alone, and no other user can put another in its place."""
    own = folder.lstat()
    if not stat.S_ISDIR(own.st_mode) or own.st_uid != os.geteuid() or own.st_mode & 0o077:
        return False
    for parent in folder.resolve().parents:
        above = parent.stat()
        if above.st_uid not in (0, os.geteuid()):
            return False
        # In a sticky folder, such as /tmp, nobody renames what is another's.
        if above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX:
            return False
    return True
