"""Paths as the file system has them: all files below a folder, and names in either Unicode form."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from asr.io.printable import printable_name

Say = Callable[[str], None]


def files_below(folder: str | Path, say: Say | None = None) -> list[Path]:
    """All files in a folder and in those below it, sorted, without names that begin with a dot.

    Links to folders are followed, except to one that holds the link. A folder that several ways
    lead to counts once, under its own name if that lies below `folder`. There are none in what is
    no folder.

    `say` reports folders that cannot be read. Raises OSError for the first of them without it.
    """

    def unreadable(error: OSError) -> None:
        if say is None:
            raise error
        say(
            f"{printable_name(error.filename)}: {error.strerror}, so that what is in it is left out"
        )

    if not os.path.isdir(folder):  # noqa: PTH112 (False, no error, on impossible names)
        return []
    seen: set[tuple[int, int]] = set()
    found: list[Path] = []
    roots = [os.fspath(folder)]
    for root in roots:
        for place, folders, files in os.walk(root, onerror=unreadable):
            state = Path(place).stat()
            if (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = (os.path.join(place, name) for name in folders)  # noqa: PTH118 (twice as fast)
            roots += [link for link in links if os.path.islink(link) and not _holds(link, place)]  # noqa: PTH114
            found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _holds(link: str, place: str) -> bool:
    """Whether a link leads to a folder that it lies in."""
    target, own = os.path.realpath(link), os.path.realpath(place)
    return os.path.commonpath([target, own]) == target


def as_stored(path: str | Path) -> Path:
    """The path under which its file is there, where that differs in Unicode form only: a Mac writes
    an umlaut as a letter and a mark (NFD), most tables as one character (NFC). Else the path as it
    is.

    >>> as_stored("missing.wav")
    PosixPath('missing.wav')
    """
    path = Path(path)
    name = os.fspath(path)
    # os.path says False, where Path raises, to names that no file system takes.
    if name.isascii() or os.path.lexists(name):
        return path
    for form in forms(name):
        if os.path.lexists(form):
            return Path(form)
    parent = as_stored(path.parent) if path.name else path
    try:
        wanted = composed(path.name)
        return next((p for p in parent.iterdir() if composed(p.name) == wanted), path)
    except (OSError, ValueError):
        return path


def forms(name: str) -> list[str]:
    """A name, composed and decomposed: one, two or three texts."""
    return list(dict.fromkeys([name, composed(name), unicodedata.normalize("NFD", name)]))


def composed(name: str) -> str:
    """A name in the form by which names are compared (NFC)."""
    return unicodedata.normalize("NFC", name)
