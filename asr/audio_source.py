"""A recording as the decoders get it: opened, named in one line, and the stretch that is wanted."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asr.errors import AudioError

LONGEST = 1 << 62  # frames; libsndfile says "unknown" with the largest integer


@dataclass(frozen=True)
class Span:
    """A stretch of a recording in seconds; `end` None means to the last sample."""

    start: float
    end: float | None

    def frames(self, rate: int) -> tuple[int, int]:
        """First frame and the one after the last at `rate` Hz."""
        stop = LONGEST if self.end is None else round(min(self.end * rate, LONGEST))
        return round(min(self.start * rate, LONGEST)), stop


def name_of(source: Any) -> str:
    if isinstance(source, (str, Path)):
        return one_line(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    name = getattr(source, "name", None)
    return one_line(name) if isinstance(name, str) else "<stream>"


def one_line(value: object) -> str:
    return " ".join(str(value).split()).rstrip(".") or type(value).__name__


def reason_of(error: Exception) -> str:
    """The decoder's own words, without error numbers and file names."""
    words = getattr(error, "strerror", None) or getattr(error, "error_string", None) or error
    return one_line(words).removeprefix("Error : ")


def open_source(source: Any) -> BinaryIO:
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            what = "something else" if Path(source).exists() else "a path to nothing"
            raise AudioError(f"expected an audio file, got {what}; check the path")
        # Unbuffered: libsndfile reads the same descriptor, so its position must be the true one.
        return Path(source).open("rb", buffering=0)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    return io.BytesIO(source.read())


class Quiet:
    """A stream for the decoders, which print a traceback for every position that Python refuses."""

    def __init__(self, stream: BinaryIO) -> None:
        self._size = stream.seek(0, io.SEEK_END)
        self._stream = stream
        self.read, self.tell = stream.read, stream.tell
        stream.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        offset += (0, self._stream.tell(), self._size)[whence]
        # -1 is an error to the decoders; what lies past the end reads as the end.
        return self._stream.seek(min(offset, self._size)) if offset >= 0 else -1


def check_complete(frames: int, stated: int, missing: int) -> None:
    """Decoders pass silently over holes in ogg and mp4; the header tells."""
    if frames + missing < stated:
        raise AudioError(
            f"expected {stated} samples as the header says, got {frames};"
            " the file is damaged: convert it again from the original or leave it out"
        )


def joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
