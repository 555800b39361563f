"""Raw PCM from a pipe as it comes: 16-bit little-endian samples of one channel.

S samples.
"""

from __future__ import annotations

import itertools
import os
import select
from collections.abc import Iterator

import numpy as np

from asr.audio.decode_soundfile import SOUNDFILE_MAGIC
from asr.audio.pcm import INT16
from asr.errors import AudioError

BLOCK_S = 0.1  # seconds of a block at most
_POLL_S = 0.1
_HEAD = 8  # bytes that tell an audio file
_LEFT = 1 << 16  # bytes that are still read after `stop`: what a pipe holds


class PcmInput:
    """Samples from a file descriptor."""

    def __init__(self, descriptor: int, rate: int) -> None:
        """Raises AudioError for a terminal."""
        if os.isatty(descriptor):
            raise AudioError(
                "expected samples on standard input, got a terminal; send them by a pipe, as in:"
                f" arecord -f S16_LE -r {rate} -t raw | asr transcribe --live - --rate {rate}"
            )
        self._descriptor, self._rate = descriptor, rate
        self._stopped = False

    def stop(self) -> None:
        """Let `blocks` end after what the pipe holds. A signal handler may call it."""
        self._stopped = True

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples within [-1, 1] until the end of the input or `stop`. Shape: each [S], float32.

        Raises AudioError if the input begins like a file with a header, such as a wav.
        """
        content, begun = b"", False
        for part in itertools.chain(self._parts(), [b""]):
            content += part
            if not begun and part and len(content) < _HEAD:
                continue
            if not begun and content.startswith(SOUNDFILE_MAGIC):
                raise AudioError(
                    "expected raw 16-bit samples on standard input, got an audio file; leave"
                    " out --live, or decode it, as in: ffmpeg -i FILE -f s16le -ac 1"
                    f" -ar {self._rate} - | asr transcribe --live - --rate {self._rate}"
                )
            begun, whole = True, len(content) - len(content) % 2
            if whole:
                yield np.frombuffer(content[:whole], "<i2") / np.float32(INT16)
            content = content[whole:]

    def _parts(self) -> Iterator[bytes]:
        left, size = _LEFT, max(2, round(BLOCK_S * self._rate) * 2)
        while left > 0:
            ready, _, _ = select.select([self._descriptor], [], [], 0 if self._stopped else _POLL_S)
            if not ready:
                if self._stopped:
                    return
                continue
            part = os.read(self._descriptor, size)
            if not part:
                return
            left -= len(part) if self._stopped else 0
            yield part
