"""A process that decodes uploads, so that a hostile file can only harm this process.

The server starts it, sends a file or samples, and gets the events of `read_recordings`: pieces to
recognise, and the end. Messages on both pipes are two sizes, a JSON object and bytes. The process
opens no file, and ends with its input.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from asr.errors import AudioWarning
from asr.inference.long_form import Ended, Event, Part, Read, Reading, read_recordings

HEAD = struct.Struct(">IQ")
"""The sizes of the JSON object and of the bytes after it."""


def pack(values: dict[str, Any], content: bytes | memoryview = b"") -> list[bytes | memoryview]:
    """A message, to be written in order."""
    text = json.dumps(values).encode()
    return [HEAD.pack(len(text), len(content)), text, content]


def pack_event(event: Event) -> list[bytes | memoryview]:
    """An event of reading, without its source."""
    values = asdict(event)
    if isinstance(event, Part):
        del values["samples"], values["words"]
        return pack({"part": values}, event.samples.astype("<f4").tobytes())
    if isinstance(event, Ended):
        del values["source"]
        return pack({"ended": values})
    return pack({"read": values})


def unpack_event(values: dict[str, Any], content: bytes) -> Event:
    """The event of a message."""
    ((kind, fields),) = values.items()
    if kind == "part":
        return Part(**fields, samples=np.frombuffer(content, "<f4").astype(np.float32))
    return Ended(**fields, source=None) if kind == "ended" else Read(**fields)


def main() -> None:
    """Serve requests from standard input until its end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server ends this process
        signal.signal(number, signal.SIG_IGN)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders print
    _limit_memory(int(sys.argv[1]))
    _warm_up()
    _write(answers, pack({"ready": True}))
    while head := requests.read(HEAD.size):
        size, count = HEAD.unpack(head)
        values, content = json.loads(requests.read(size)), requests.read(count)
        _answer(values, content, answers)


def _answer(values: dict[str, Any], content: bytes, answers: BinaryIO) -> None:
    reading = Reading(**values["reading"])
    source = np.frombuffer(content, "<f4") if values["samples"] else content
    try:
        for event in read_recordings([source], reading):
            _write(answers, pack_event(event))
    except MemoryError:
        error = "expected a recording that takes less memory to decode: convert it to wav or flac"
        _write(answers, pack_event(Ended(0, None, 0.0, error)))


def _write(answers: BinaryIO, message: list[bytes | memoryview]) -> None:
    for part in message:
        answers.write(part)
    answers.flush()


def _warm_up() -> None:
    """Load the decoders, and the detector of speech."""
    import warnings

    warnings.simplefilter("ignore", AudioWarning)
    silence = np.zeros(16000, np.float32)
    for _ in read_recordings([silence], Reading(16000, 20.0, sample_rate=16000)):
        pass


def _limit_memory(size: int) -> None:
    """Let this process have so many bytes of memory at most, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
