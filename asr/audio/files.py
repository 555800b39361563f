"""Which files are recordings: those that are named, and those in folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from asr.audio.source import one_line
from asr.errors import AudioError
from asr.io.paths import Say, as_stored, files_below
from asr.io.printable import printable_name

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm", ".sph", ".aac", ".mkv",
    ".mka", ".oga", ".ogv", ".ogx", ".spx", ".weba", ".mov", ".qt", ".m4b", ".m4r", ".m4v", ".f4a",
    ".f4v", ".3gp", ".3gpp", ".3g2", ".wma", ".wmv", ".asf", ".amr", ".awb", ".flv", ".avi", ".ts",
    ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".mp2", ".mpga", ".ac3", ".aif", ".aiff", ".aifc",
    ".au", ".snd", ".caf", ".w64", ".rf64", ".bwf", ".wave", ".nist", ".wv1", ".wv2",
)  # fmt: skip
"""What `find_audio` looks for in a folder, in lower case, the usual ones first."""

# What may lie beside recordings without a word: transcripts, lists and notes.
_TEXTS = frozenset(
    {".txt", ".lab", ".trn", ".stm", ".ctm", ".csv", ".tsv", ".json", ".jsonl", ".textgrid"}
    | {".srt", ".vtt", ".eaf", ".phn", ".wrd", ".md"}
)
_SHOWN = 10


def is_recording(path: Path) -> bool:
    """By its suffix."""
    return path.suffix.lower() in AUDIO_SUFFIXES


def find_audio(paths: Iterable[str | Path], say: Say | None = None) -> list[Path]:
    """The recordings meant by `paths`: files as they are, folders searched below, each file once.

    Within a folder only files with a suffix in `AUDIO_SUFFIXES` count, in sorted order, and links
    to folders are followed (`files_below`). `say` reports what is passed over there: what is
    neither a recording nor a text, and folders that cannot be read.

    Raises:
        AudioError: a path that does not exist.
    """
    found: list[Path] = []
    for path in map(as_stored, paths):
        # os.path says False, where Path raises, to names that no file system takes.
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
                f"{one_line(path)}: expected a recording or a folder, got a path to nothing;"
                " check it"
            )
    return list(dict.fromkeys(found))


def passed_over(files: Sequence[Path], folder: Path) -> str:
    """A line that counts files which are neither recordings nor texts, and names the first."""
    names = ", ".join(printable_name(p.relative_to(folder)) for p in files[:_SHOWN])
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    return f"passed over {count}, neither recordings nor texts: {names}{more}"
