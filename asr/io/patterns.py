"""Paths that match a pattern, for shells that do not expand it (Windows, quotes).

`*`, `?` and `[abc]` match within a name, `**` matches any folders below, also none. Names that
begin with a dot match only a pattern that begins with one.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from asr.io.paths import composed

_MAGIC = frozenset("*?[")


def is_pattern(path: str | Path) -> bool:
    """Whether a path has a character with a meaning in patterns."""
    return not _MAGIC.isdisjoint(os.fspath(path))


def expanded(pattern: str | Path) -> list[Path]:
    """The existing paths that match, sorted. A part of the pattern that names an existing file or
    folder stands for it, also with brackets in its name. Links to folders are followed, each folder
    once below a `**`. Folders that cannot be read match nothing."""
    pattern = Path(pattern)
    found = [Path(pattern.anchor)]
    parts = pattern.parts[1:] if pattern.anchor else pattern.parts
    while parts and parts[-1] == "**":  # the folder stands for all in it
        parts = parts[:-1]
    for part in parts:
        found = [match for place in found for match in _step(place, part)]
    return sorted(dict.fromkeys(found))


def _step(place: Path, part: str) -> list[Path]:
    """The paths in a folder that match one part of a pattern."""
    if part == "**":
        return _folders_below(place)
    if os.path.lexists(place / part):
        return [place / part]
    if not is_pattern(part):
        return []
    wanted = composed(part)
    return [
        place / name
        for name in _names(place)
        if fnmatch.fnmatch(composed(name), wanted)
        and (not name.startswith(".") or part.startswith("."))
    ]


def _folders_below(place: Path) -> list[Path]:
    """A folder and all folders below it, each once."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [place]
    while waiting:
        folder = waiting.pop()
        try:
            state = folder.stat()
        except OSError:
            continue
        if (state.st_dev, state.st_ino) in seen or not folder.is_dir():
            continue
        seen.add((state.st_dev, state.st_ino))
        found.append(folder)
        below = [folder / name for name in _names(folder) if not name.startswith(".")]
        # Links last: a folder counts under its own name.
        waiting = (
            [p for p in below if p.is_symlink()]
            + waiting
            + [p for p in below if not p.is_symlink()]
        )
    return found


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (OSError, ValueError):
        return []
