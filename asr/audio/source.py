"""A recording as the decoders get it: opened, named in one line, with the wanted segment."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asr.errors import AudioError, reason
from asr.io.paths import as_stored

LONGEST = 1 << 62  # frames; libsndfile states an unknown length as the largest integer


@dataclass(frozen=True)
class Span:
    """A segment of a recording in seconds; `end` None is the last sample."""

    start: float
    end: float | None

    def frames(self, rate: int) -> tuple[int, int]:
        """First frame and the one after the last at `rate` Hz."""
        stop = LONGEST if self.end is None else round(min(self.end * rate, LONGEST))
        return round(min(self.start * rate, LONGEST)), stop

    def after(self, seconds: float) -> Span:
        """The same segment, counted from a later moment."""
        end = None if self.end is None else max(self.end - seconds, 0.0)
        return Span(max(self.start - seconds, 0.0), end)


@dataclass(frozen=True)
class Request:
    """What is wanted of a recording."""

    rate: int
    """Hz of the samples."""
    span: Span
    channel: int | None
    """From 1; None for the mix of all."""
    longest: float
    """Seconds of sound above which it is refused."""


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
    """The decoder's message, without error numbers and file names."""
    words = getattr(error, "strerror", None) or getattr(error, "error_string", None) or error
    return one_line(words).removeprefix("Error : ")


def open_source(source: Any) -> BinaryIO:
    if isinstance(source, (str, Path)):
        path = as_stored(source)
        if not path.is_file():
            what = "something else" if path.exists() else "no such file"
            raise AudioError(f"expected an audio file, got {what}; check the path")
        # Unbuffered: libsndfile reads the same descriptor, so its position must be correct.
        try:
            return path.open("rb", buffering=0)
        except OSError as error:
            raise AudioError(f"expected a file that can be read, got {reason(error)}") from None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    return io.BytesIO(source.read())


class View:
    """The bytes `head`, then those from `start` to `stop` of a stream, presented to a decoder as a
    whole file.

    Positions before the first byte return -1, as the decoders expect; an exception would make them
    print a traceback.
    """

    def __init__(
        self, stream: BinaryIO | View, start: int = 0, stop: int | None = None, head: bytes = b""
    ) -> None:
        stop = stream.seek(0, io.SEEK_END) if stop is None else stop
        self._stream, self._head, self._start = stream, head, start
        self._size = len(head) + max(stop - start, 0)
        self._at = 0

    def read(self, count: int = -1) -> bytes:
        left = self._size - self._at
        count = left if count < 0 else min(count, left)
        content = self._head[self._at : self._at + count]
        if len(content) < count:
            self._stream.seek(self._start + self._at + len(content) - len(self._head))
            content += self._stream.read(count - len(content)) or b""
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        offset += (0, self._at, self._size)[whence]
        if offset < 0:
            return -1
        self._at = min(offset, self._size)
        return self._at

    def tell(self) -> int:
        return self._at


Stream = BinaryIO | View


@dataclass(frozen=True)
class Block:
    """Decoded sound: mono `samples` float32 [S] at `rate` Hz; the first has index `first` in the
    recording, counted at that rate."""

    first: int
    samples: np.ndarray
    rate: int

    def within(self, span: Span) -> np.ndarray:
        """The samples that lie in `span`."""
        first, stop = span.frames(self.rate)
        return self.samples[max(first - self.first, 0) : max(stop - self.first, 0)]

    def after(self, other: Block) -> Block:
        """The samples after the end of an earlier block, which may have another rate."""
        stop = round((other.first + len(other.samples)) * self.rate / other.rate)
        known = min(max(stop - self.first, 0), len(self.samples))
        return Block(self.first + known, self.samples[known:], self.rate)

    @property
    def end(self) -> float:
        """Seconds from the beginning of the recording to the end of the block."""
        return (self.first + len(self.samples)) / self.rate
