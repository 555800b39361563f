"""Which files are recordings: those that are named, and those in folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from asr.audio_source import one_line
from asr.errors import AudioError

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".mp4", ".m4a", ".webm", ".aac"}
)
"""What `find_audio` looks for in a folder, in lower case."""


def find_audio(paths: Iterable[str | Path]) -> list[Path]:
    """The recordings meant by `paths`: files as they are, folders searched below, each file once.

    Within a folder only files with a suffix in `AUDIO_SUFFIXES` count, in sorted order.

    Raises:
        AudioError: a path that does not exist.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        # os.path says False, where Path raises, to names that no file system takes.
        if os.path.isdir(path):  # noqa: PTH112
            below = (p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            found += sorted(p for p in below if p.is_file())
        elif os.path.exists(path):  # noqa: PTH110
            found.append(path)
        else:
            raise AudioError(
                f"{one_line(path)}: expected a recording or a folder, got a path to nothing;"
                " check it"
            )
    return list(dict.fromkeys(found))
