"""Recordings to text with a trained model."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asr.audio.piped import RawPcm
from asr.dataset.prefetch import prefetch
from asr.decoding.decoder import Decoder
from asr.errors import CheckpointError, ConfigError
from asr.inference.acoustics import Acoustics
from asr.inference.batches import Batches
from asr.inference.long_form import (
    Channels,
    Ended,
    Event,
    Part,
    Reading,
    longest_piece,
    read_recording,
    read_recordings,
    segments_of,
)
from asr.inference.progress import Seconds
from asr.inference.readers import read_by
from asr.inference.transcript import Transcript
from asr.models.files import INCLUDED_ONNX, INCLUDED_TRAINED

POOLED = 4  # times what is read ahead, in recordings whose results are pending

Source = str | Path | bytes | bytearray | memoryview | BinaryIO | np.ndarray | RawPcm
"""A recording: a path, the bytes of a file, an open binary file, an array of samples, or raw
samples from a pipe."""


def default_model() -> Path:
    """The folder of the AN4 model in the package: spelled words and numbers, American English.

    It is exported from `trained_model`, with 8-bit weights. Raises CheckpointError if the package
    was installed without it.
    """
    return _included(INCLUDED_ONNX)


def trained_model() -> Path:
    """The folder of the AN4 model in the package as `recipes/an4` trained it, which torch runs.

    Raises CheckpointError if the package was installed without it.
    """
    return _included(INCLUDED_TRAINED)


def _included(folder: Path) -> Path:
    if not folder.is_dir():
        raise CheckpointError("expected --model, got none, and no model is included here: give one")
    return folder


def is_source(value: Any) -> bool:
    """Whether this is a single recording: a path, bytes, an open file or an array."""
    single = str | os.PathLike | bytes | bytearray | memoryview
    return isinstance(value, single) or hasattr(value, "read") or hasattr(value, "__array__")


def transcribe(
    model: Acoustics,
    sources: Iterable[Source],
    decoder: Decoder | None = None,
    words: bool = False,
    sample_rate: int | None = None,
    *,
    start: float = 0.0,
    end: float | None = None,
    channels: Channels = "mix",
    progress: Callable[[float, float], None] | None = None,
) -> Iterator[Transcript]:
    """Transcribe recordings in order; one that cannot be read becomes an error entry.

    Recordings of up to 30 seconds are recognised whole; longer ones in segments of speech between
    pauses, in memory that does not grow with their length. One whose audio stops halfway has the
    text up to there, and an error.

    Args:
        decoder: by default greedy; `asr.decoding.folder.load_decoder` returns that of a model.
        words: whether each word has its time and confidence.
        sample_rate: Hz of samples given as arrays.
        start: second of each recording at which transcription begins.
        end: second at which it ends; None is the end of the recording.
        channels: "mix" transcribes the mean of all channels, "each" every channel by itself, in
            segments by time.
        progress: called with the seconds that are done, and those of all recordings. `sources` are
            then listed first.

    Recordings are read ahead, and pieces of all of them are recognised together, in batches of
    similar length.

    Raises ConfigError for other channels, or a start and end between which nothing lies.
    """
    _check(start, end, channels)
    longest = longest_piece(model.info)
    reading = Reading(model.sample_rate, longest, start, end, channels, sample_rate)
    batches = Batches(model, decoder or Decoder(model.tokens), words)
    return _transcribe(batches, sources, reading, words, progress)


def _transcribe(
    batches: Batches,
    sources: Iterable[Source],
    reading: Reading,
    words: bool,
    progress: Callable[[float, float], None] | None,
) -> Iterator[Transcript]:
    seconds = None
    if progress is not None:
        sources = list(sources)
        seconds = Seconds(sources, reading, progress)
    waiting: deque[_Recording] = deque()
    ahead = batches.read_ahead
    with _events(sources, reading, batches.readers, ahead) as events:
        for event in events:
            if not waiting or waiting[-1].ended is not None:
                waiting.append(_Recording())
            waiting[-1].add(event)
            if isinstance(event, Part):
                batches.add(event)
            if seconds is not None:
                seconds.add(event)
            if batches.is_full or len(waiting) > POOLED * ahead:
                _recognize(batches, seconds)
            elif seconds is not None:
                seconds.show(batches.seconds)
            while waiting and waiting[0].is_done:
                yield waiting.popleft().transcript(words)
    _recognize(batches, seconds)
    yield from (recording.transcript(words) for recording in waiting)


def _recognize(batches: Batches, seconds: Seconds | None) -> None:
    for _ in batches.recognise():
        if seconds is not None:
            seconds.show(batches.seconds)


def _events(
    sources: Iterable[Source], reading: Reading, readers: int, ahead: int
) -> AbstractContextManager[Iterator[Event]]:
    """The pieces of recordings, one recording after another, read ahead."""
    if readers == 1:
        return prefetch(_same, read_recordings(sources, reading), ahead)
    return read_by(readers, sources, partial(read_recording, reading=reading), ahead)


def _same(event: Event) -> Event:
    return event


@dataclass
class _Recording:
    """What is known of a recording whose result is pending."""

    parts: list[Part] = field(default_factory=list)
    ended: Ended | None = None

    def add(self, event: Event) -> None:
        if isinstance(event, Part):
            self.parts.append(event)
        elif isinstance(event, Ended):
            self.ended = event

    @property
    def is_done(self) -> bool:
        return self.ended is not None and all(part.text is not None for part in self.parts)

    def transcript(self, words: bool) -> Transcript:
        assert self.ended is not None
        source, seconds = self.ended.source, self.ended.seconds
        path = Path(source) if isinstance(source, str | os.PathLike) else None
        return Transcript(path, segments_of(self.parts, words), seconds, self.ended.error)


def _check(start: float, end: float | None, channels: str) -> None:
    if not 0 <= start < math.inf:
        raise ConfigError(f"expected start >= 0 seconds, got {start}: correct it")
    if end is not None and not end > start:
        raise ConfigError(f"expected an end after start, {start} seconds, got {end}: correct it")
    if channels not in ("mix", "each"):
        raise ConfigError(f"expected channels mix or each, got {channels!r}: give one of them")
