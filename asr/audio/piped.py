"""Recordings from a pipe, such as standard input, in memory that does not grow with their length.

Letters: S samples.
"""

from __future__ import annotations

import os
import select
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr.audio.decode_soundfile import SOUNDFILE_MAGIC
from asr.audio.pcm import INT16
from asr.audio.samples import RATE_RANGE, RATES
from asr.audio.source import Block, one_line
from asr.errors import AudioError, disk_trouble

NAME = "<standard input>"
_PART = 1 << 16  # bytes
_HEAD = 8  # bytes that tell an audio file
_POLL_S = 0.1


@dataclass(frozen=True)
class RawPcm:
    """Raw samples from a stream, 16-bit little-endian of one channel: a source for `audio_blocks`,
    which is read once, as the samples arrive. Raises AudioError for an impossible rate."""

    stream: BinaryIO | Polled
    rate: int
    """Hz."""
    name: str = NAME
    """In messages."""

    def __post_init__(self) -> None:
        if self.rate not in RATES:
            raise AudioError(
                f"{self.name}: expected a rate of {RATE_RANGE}, got {self.rate}: correct it"
            )

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes that are there now, at least one; none at the end."""
        read = getattr(self.stream, "read1", self.stream.read)
        return read(count) or b""


class Polled:
    """Bytes from a file descriptor until its end or `stop`, for `RawPcm`: a thread that waits in a
    plain read could not be ended."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._stopped = descriptor, False

    def stop(self) -> None:
        """End the input. A signal handler may call it."""
        self._stopped = True

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes that are there now, at least one; none at the end."""
        while not self._stopped:
            if select.select([self._descriptor], [], [], _POLL_S)[0]:
                return os.read(self._descriptor, _PART if count < 0 else count)
        return b""


def raw_blocks(source: RawPcm, say: Callable[[str], None]) -> Generator[Block, None, None]:
    """The samples as they arrive. `say` reports half a sample at the end.

    Raises AudioError if the stream begins like a file with a header, such as a wav.
    """
    content, position = b"", 0
    while part := source.read(_PART):
        content += part
        if not position and len(content) < _HEAD:
            continue
        if not position and content.startswith(SOUNDFILE_MAGIC):
            raise AudioError("expected raw 16-bit samples, got an audio file; leave out the rate")
        block = _block(content, position, source.rate)
        yield block
        position, content = position + len(block.samples), content[2 * len(block.samples) :]
    if len(content) > 1:  # shorter than a head
        yield _block(content, position, source.rate)
    if len(content) % 2:
        say("half a sample at its end is left out: expected 16-bit samples")


def _block(content: bytes, position: int, rate: int) -> Block:
    samples = np.frombuffer(content, "<i2", len(content) // 2) / np.float32(INT16)
    return Block(position, samples, rate)


@contextmanager
def spooled(stream: BinaryIO) -> Iterator[Path]:
    """The path of a temporary file with the rest of a stream; the file is deleted at the end.

    Decoders seek, which a pipe cannot do. In the folder for temporary files (`TMPDIR`).

    Raises:
        AudioError: a stream that cannot be read, or has no bytes.
        OSError: a full disk.
    """
    with tempfile.TemporaryDirectory(prefix="asr-") as folder:
        path = Path(folder) / "standard-input"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
        except OSError as error:
            if disk_trouble(error):
                error.filename = str(path)  # an error of `write` has no file name
                raise
            raise AudioError(
                f"{NAME}: expected a recording, got {one_line(error)}; send it by a pipe"
            ) from error
        if not path.stat().st_size:
            raise AudioError(f"{NAME}: expected a recording, got no bytes; send it by a pipe")
        yield path
