"""The names of the files that are written for recordings: none equals another."""

from __future__ import annotations

import hashlib
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from asr.dataset.lines import is_whole
from asr.io.paths import Say, as_stored
from asr.io.patterns import is_pattern

LONGEST_NAME = 200  # bytes; file systems allow 255, some of which a suffix needs


def output_names(found: Iterable[tuple[Path, Sequence[Path]]]) -> dict[Path, PurePath]:
    """The names of the outputs of recordings, without suffix, from each argument and the recordings
    that it gave.

    A recording below a folder keeps the folders between. Where names would be equal, also for file
    systems that ignore case, the suffix of the recording is kept, the path is that below the
    folder that holds all, or a number is appended.

    >>> rows = [(Path("talks"), [Path("talks/a/x.wav"), Path("talks/a/x.mp3")])]
    >>> [str(name) for name in output_names([*rows, (Path("y.wav"), [Path("y.wav")])]).values()]
    ['a/x.wav', 'a/x.mp3', 'y']
    """
    below: dict[Path, PurePath] = {}
    for argument, paths in found:
        root = _root(argument)
        for path in paths:
            inside = path != root and path.is_relative_to(root)
            name = path.relative_to(root) if inside else PurePath(path.name)
            below.setdefault(path, PurePath("stdin") if path == Path("-") else name)
    if len(set(map(_key, below.values()))) < len(below):
        whole = {path: Path(os.path.abspath(path)) for path in below}  # noqa: PTH100 (keeps links)
        root = Path(os.path.commonpath([path.parent for path in whole.values()]))
        below = {path: whole[path].relative_to(root) for path in below}
    forms = {path: [_short(n.with_suffix("")), _short(n), _marked(n)] for path, n in below.items()}
    taken = Counter(key for row in forms.values() for key in set(map(_key, row)))
    return {
        path: next((form for form in row if taken[_key(form)] == 1), row[-1])
        for path, row in forms.items()
    }


def recording_ids(folder: Path, paths: Sequence[Path], say: Say) -> dict[Path, str]:
    """The ids that the recordings of a folder have in a manifest, as `output_names`. `say` reports
    those whose name no manifest can hold, which are left out."""
    ids = {}
    for path, name in output_names([(folder, paths)]).items():
        id_ = name.as_posix()
        fault = "" if id_.strip() else "that is not blank"
        fault = fault if is_whole(f"{id_}{path}") else "in UTF-8"
        if fault:
            say(f"skipped {os.fspath(path)!a}: expected a file name {fault}; rename it")
        else:
            ids[path] = id_
    return ids


def free_id(name: str, taken: set[str]) -> str:
    """`name`, or a longer one if that is taken; it is added to `taken`.

    >>> free_id("a-1", {"a-1"})
    'a-1x'
    """
    while name in taken:
        name += "x"
    taken.add(name)
    return name


def _root(argument: Path) -> Path:
    """The argument, or the folder before the first wildcard of a pattern."""
    stored = as_stored(argument)
    if os.path.lexists(stored) or not is_pattern(argument):
        return stored
    return Path(*itertools.takewhile(lambda part: not is_pattern(part), argument.parts))


def _key(name: PurePath) -> str:
    """Equal for names that are equal for some file system."""
    return unicodedata.normalize("NFC", name.as_posix()).casefold()


def _short(name: PurePath) -> PurePath:
    return name if len(os.fsencode(name.name)) <= LONGEST_NAME else _marked(name)


def _marked(name: PurePath) -> PurePath:
    """A name with a digest of its path."""
    mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
    return name.with_name(f"{os.fsdecode(os.fsencode(name.name)[:LONGEST_NAME])}-{mark}")
