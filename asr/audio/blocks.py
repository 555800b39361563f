"""Any recording as blocks of mono float32 samples at one rate, in memory that does not grow with
its length. `load_audio` joins them.

soundfile reads wav, flac, ogg/opus, NIST SPHERE and similar formats; PyAV reads the rest (mp3, mp4,
m4a, webm, aac, ...) and damaged files. The first bytes decide which one, never the suffix. PyAV
reads mp3 because libsndfile's decoder seeks inexactly there and writes messages to stderr.

A damaged file yields all that can be decoded, with silence for the rest, and an `AudioWarning`.

Letters: S samples.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from asr.audio.piped import RawPcm, raw_blocks
from asr.audio.recordings import channels_of, samples_of, stated_seconds_of
from asr.audio.resample import resampled
from asr.audio.samples import RATE_RANGE, RATES
from asr.audio.source import Request, Span, name_of, open_source, reason_of
from asr.errors import AudioError, AudioWarning

T = TypeVar("T")
Say = Callable[[str], None]

BLOCK_SECONDS = 10.0
"""The length of all blocks but the last one."""


def audio_blocks(
    source: str | Path | bytes | BinaryIO | RawPcm,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
    say: Say | None = None,
) -> Generator[np.ndarray, None, None]:
    """The samples of a recording, or of its seconds `start` to `end`, in blocks of 10 s.

    The samples are those of `load_audio`, which has the details. Any thread may take the blocks, a
    thread at a time. Decoding takes place in a thread of its own if the main thread takes them,
    while it waits: decoders would lose a KeyboardInterrupt. Close the generator to close the file
    before its end.

    Args:
        source: a file, its bytes, or a binary stream, which is read to its end at first; or raw
            samples, which are read as they arrive.
        rate: Hz of the result.
        channel: the one that is read, from 1; the default is the mix of all.
        say: reports damage, once, after the last block or when the generator is closed; the default
            is an `AudioWarning`.

    Shape: each float32 [S], S at least 1.

    Raises:
        AudioError: missing or undecodable file, no samples, no such channel, samples that are not
            finite or have a peak above 8. If that is found halfway, all blocks before it have
            been yielded, and the message gives the second.
    """
    return request_blocks(source, request_for(source, rate, start, end, channel), say)


def channel_count(source: str | Path | bytes | BinaryIO | RawPcm) -> int:
    """The number of channels in a recording, from its header: of the track that is read, and of
    several recordings in one file the most.

    Raises:
        AudioError: missing or undecodable file.
    """
    return 1 if isinstance(source, RawPcm) else guarded(source, channels_of)


def stated_seconds(path: str | Path) -> float:
    """The length of a recording, for progress: as its header states or FFmpeg estimates it from the
    bit rate. Nothing is decoded. 0 if it is unknown or the file cannot be read; of several
    recordings in one file, the first one counts."""
    try:
        seconds = guarded(path, stated_seconds_of)
    except AudioError:
        return 0.0
    return seconds if 0 < seconds < math.inf else 0.0


# --- for `load_audio` ---


def request_for(
    source: Any,
    rate: int,
    start: float,
    end: float | None,
    channel: int | None = None,
    longest: float = math.inf,
) -> Request:
    """The request for a part of a recording, of `longest` seconds at most. Raises AudioError for
    impossible numbers."""
    name = name_of(source)
    if rate not in RATES:
        raise AudioError(f"{name}: expected a target rate of {RATE_RANGE}, got {rate}")
    if not 0 <= start < math.inf:
        raise AudioError(f"{name}: expected start >= 0 seconds, got {start}; correct the manifest")
    if end is not None and not end > start:
        raise AudioError(
            f"{name}: expected end > start, got start {start} and end {end} seconds;"
            " correct the manifest"
        )
    if channel is not None and channel < 1:
        raise AudioError(f"{name}: expected a channel from 1 on, got {channel}")
    return Request(rate, Span(start, end), channel, longest)


def request_blocks(
    source: Any, request: Request, say: Say | None
) -> Generator[np.ndarray, None, None]:
    """`audio_blocks` for a request."""
    name, problems, count = name_of(source), list[str](), 0
    start = request.span.start
    decoding = _decoded(source, request, problems.append)
    try:
        # A read of a pipe can wait long, and can be interrupted.
        beside = nullcontext(_call) if isinstance(source, RawPcm) else _beside_signals()
        with closing(decoding), beside as run:
            while (block := run(lambda: next(decoding, None))) is not None:
                count += len(block)
                yield block
        if not count:
            where = f" from {start} s on" if start else ""
            raise AudioError(
                f"expected audio, got no samples{where}; record it again or leave it out"
            )
    except Exception as error:
        when = f"at {start + count / request.rate:.2f} s: " if count else ""
        raise _audio_error(f"{name}: {when}", error) from (error.__cause__ or error)
    finally:
        if count:
            report(name, problems, say)


def guarded(source: Any, read: Callable[[BinaryIO], T]) -> T:
    """`read` applied to the opened source; every failure becomes one AudioError."""

    def opened() -> T:
        with open_source(source) as stream:
            return read(stream)

    try:
        with _beside_signals() as run:
            return run(opened)
    except Exception as error:
        raise _audio_error(f"{name_of(source)}: ", error) from (error.__cause__ or error)


def report(name: str, problems: list[str], say: Say | None) -> None:
    """All that is wrong with a recording, in one line."""
    if problems and say is not None:
        say("; ".join(problems))
    elif problems:
        warnings.warn(AudioWarning(name, "; ".join(problems)), stacklevel=3)


def _audio_error(prefix: str, error: Exception) -> AudioError:
    """The decoders raise almost any exception on damaged bytes."""
    if isinstance(error, AudioError):
        return AudioError(f"{prefix}{error}")
    return AudioError(
        f"{prefix}expected decodable audio, got '{reason_of(error)}' from the decoder;"
        " convert it again from the original or leave it out"
    )


@contextmanager
def _beside_signals() -> Iterator[Callable[[Callable[[], T]], T]]:
    """How to call a function of a decoder: in a thread that no signal interrupts.

    Decoders call Python to read a stream, and ignore exceptions raised there: a KeyboardInterrupt
    would be lost, and the read would count as empty.
    """

    def quietly(function: Callable[[], T]) -> T:
        with np.errstate(all="ignore"):  # infinite samples are found later
            return function()

    if threading.current_thread() is not threading.main_thread():
        yield quietly
        return
    with ThreadPoolExecutor(1) as thread:
        # The executor does not wait for a thread whose start was interrupted: it decodes nothing.
        thread.submit(int).result()
        yield lambda function: thread.submit(quietly, function).result()


def _call(function: Callable[[], T]) -> T:
    return function()


def _decoded(source: Any, request: Request, say: Say) -> Generator[np.ndarray, None, None]:
    if isinstance(source, RawPcm):
        if request.channel not in (None, 1):
            raise AudioError(f"expected channel 1 of raw samples, got {request.channel}")
        yield from _gathered(resampled(raw_blocks(source, say), request), request.rate)
        return
    with open_source(source) as stream:
        yield from _gathered(samples_of(stream, request, say), request.rate)


def _gathered(pieces: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Pieces of any size as blocks of `BLOCK_SECONDS`. After an exception, the last block comes
    first."""
    size, kept, count = round(BLOCK_SECONDS * rate), list[np.ndarray](), 0
    failure: Exception | None = None
    try:
        for piece in pieces:
            for at in range(-count, len(piece), size):
                part = piece[max(at, 0) : at + size]
                kept.append(part)
                count += len(part)
                if count == size:
                    yield np.concatenate(kept)
                    kept, count = [], 0
    except Exception as error:
        failure = error
    if count:
        yield np.concatenate(kept)
    if failure is not None:
        raise failure
