"""The recordings among given files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from asr.audio.source import one_line
from asr.errors import AudioError
from asr.io.paths import Say, as_stored, files_below
from asr.io.patterns import expanded, is_pattern
from asr.io.printable import printable_name

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm", ".sph", ".aac", ".mkv",
    ".mka", ".oga", ".ogv", ".ogx", ".spx", ".weba", ".mov", ".qt", ".m4b", ".m4r", ".m4v", ".f4a",
    ".f4v", ".3gp", ".3gpp", ".3g2", ".wma", ".wmv", ".asf", ".amr", ".awb", ".flv", ".avi", ".ts",
    ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".mp2", ".mpga", ".ac3", ".aif", ".aiff", ".aifc",
    ".au", ".snd", ".caf", ".w64", ".rf64", ".bwf", ".wave", ".nist", ".wv1", ".wv2",
    ".wv", ".ape", ".tta", ".dts", ".eac3", ".ec3", ".mxf", ".dss", ".rm", ".voc",
)  # fmt: skip
"""The suffixes that `find_audio` accepts in a folder, in lower case, the usual ones first."""

# Files that are skipped without a message beside recordings: transcripts, lists and notes.
_TEXTS = frozenset(
    {".txt", ".lab", ".trn", ".stm", ".ctm", ".csv", ".tsv", ".json", ".jsonl", ".textgrid"}
    | {".srt", ".vtt", ".eaf", ".phn", ".wrd", ".md"}
)
_SHOWN = 10


def is_recording(path: Path) -> bool:
    """Whether the suffix is that of a recording."""
    return path.suffix.lower() in AUDIO_SUFFIXES


def find_audio(paths: Iterable[str | Path], say: Say | None = None) -> list[Path]:
    """The recordings in `paths`: files as given, and the files below folders, each file once. A
    path that does not exist may be a pattern, such as `calls/**/*.wav` (`asr/io/patterns.py`).

    In a folder only files with a suffix in `AUDIO_SUFFIXES` count, in sorted order. Links to
    folders are followed (`files_below`). `say` reports skipped files that are neither recordings
    nor texts, and folders that cannot be read.

    Raises:
        AudioError: a path that does not exist, a pattern that matches nothing.
    """
    found: list[Path] = []
    for path in _matched(paths):
        # os.path returns False for names that no file system accepts; Path would raise.
        if os.path.isdir(path):  # noqa: PTH112
            files = files_below(path, say)
            recordings = [p for p in files if is_recording(p) and p.is_file()]
            found += recordings
            others = set(files).difference(recordings)
            strange = [p for p in files if p in others and p.suffix.lower() not in _TEXTS]
            if strange and say is not None:
                say(f"{printable_name(path)}: {passed_over(strange, path)}")
        elif os.path.exists(path):  # noqa: PTH110
            found.append(path)
        else:
            raise AudioError(
                f"{one_line(path)}: expected a recording or a folder, got no such file; check it"
            )
    return list(dict.fromkeys(found))


def _matched(paths: Iterable[str | Path]) -> Iterator[Path]:
    """The same paths, and in place of a pattern the paths that match it."""
    for path in map(as_stored, paths):
        if os.path.lexists(path) or not is_pattern(path):
            yield path
            continue
        matches = expanded(path)
        if not matches:
            raise AudioError(
                f"{one_line(path)}: expected a pattern of recordings or folders, got no match;"
                " check it"
            )
        yield from matches


def passed_over(files: Sequence[Path], folder: Path) -> str:
    """The number of files that are neither recordings nor texts, with the first names."""
    names = ", ".join(printable_name(p.relative_to(folder)) for p in files[:_SHOWN])
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    return f"skipped {count}, neither recordings nor texts: {names}{more}"
