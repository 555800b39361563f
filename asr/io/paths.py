"""Paths in the file system: all files below a folder, and names in either Unicode form."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from asr.io.printable import printable_name

Say = Callable[[str], None]


def files_below(folder: str | Path, say: Say | None = None) -> list[Path]:
    """All files in a folder and below it, sorted, without names that begin with a dot.

    Links to folders are followed, except to a folder that contains the link. A folder with several
    paths counts once, under its own name if that lies below `folder`. The result is empty if
    `folder` is not a folder.

    `say` reports folders that cannot be read. Without it, the first one raises OSError.
    """

    def unreadable(error: OSError) -> None:
        if say is None:
            raise error
        say(f"{printable_name(error.filename)}: {error.strerror}; its files are left out")

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
    """Whether a link leads to a folder that contains it."""
    target, own = os.path.realpath(link), os.path.realpath(place)
    return os.path.commonpath([target, own]) == target


def as_stored(path: str | Path) -> Path:
    """The path of an existing file whose name differs only in Unicode form: macOS writes an umlaut
    as a letter and a mark (NFD), most tables as one character (NFC). Otherwise the path unchanged.

    >>> as_stored("missing.wav")
    PosixPath('missing.wav')
    """
    path = Path(path)
    name = os.fspath(path)
    # os.path returns False for names that no file system accepts; Path would raise.
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
    """A name in the form in which names are compared (NFC)."""
    return unicodedata.normalize("NFC", name)
