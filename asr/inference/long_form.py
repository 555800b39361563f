"""Recordings of any length as pieces to recognise, and segments from what was recognised.

A recording of up to `WHOLE_S` seconds is one piece. Of a longer one, only the speech is recognised
(`asr.inference.speech_pieces`), in memory that does not grow with its length.

S samples.
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asr.audio.blocks import audio_blocks, channel_count
from asr.audio.pcm import to_pcm
from asr.audio.piped import RawPcm
from asr.audio.samples import as_recording
from asr.audio.source import name_of
from asr.audio.vad import speech_detector
from asr.errors import AudioError, reason
from asr.inference.joining import join_words
from asr.inference.speech_pieces import Piece, speech_pieces
from asr.inference.time_formats import Word
from asr.inference.transcript import Segment
from asr.io.printable import printable_name

WHOLE_S = 30.0
"""A recording that is not longer is recognised as a whole."""

ASSUMED_LONGEST_S = 20.0  # of the training of a model whose folder does not say
SHORTEST_PIECE_S = 6.0  # of a piece of a long segment, for models of single words

Channels = Literal["mix", "each"]


@dataclass(frozen=True)
class Reading:
    """How recordings are read."""

    rate: int
    """Hz of the pieces."""
    longest: float
    """Seconds of a piece of a long recording."""
    start: float = 0.0
    end: float | None = None
    channels: Channels = "mix"
    sample_rate: int | None = None
    """Hz of samples given as arrays."""
    detector: str | None = None
    """Kind of speech detector; by default the best that is installed."""


@dataclass
class Part:
    """A piece of a recording, and its text once it is recognised."""

    number: int
    """Place of the recording among all."""
    channel: int | None
    start: float
    """Seconds from the beginning of the recording."""
    samples: np.ndarray
    """Shape: [S]; empty when they are no longer needed."""
    seconds: float
    overlap: float
    continues: bool
    whole: bool
    """Whether this is the whole recording."""
    text: str | None = None
    words: tuple[Word, ...] = ()

    @property
    def is_joined(self) -> bool:
        """Whether its words are joined with those of another piece, by their times."""
        return self.overlap > 0 or self.continues


@dataclass(frozen=True)
class Read:
    """Progress of reading: `seconds` more of a recording, each channel counted as its share."""

    number: int
    seconds: float


@dataclass(frozen=True)
class Ended:
    """A recording has been read to its end, or to where it cannot be read."""

    number: int
    source: Any
    seconds: float
    error: str | None


Event = Part | Read | Ended


def longest_piece(info: dict[str, Any]) -> float:
    """Seconds of a piece of a long recording for a model with these facts: those of the longest
    utterance of its training, and at most `WHOLE_S`."""
    seconds = info.get("longest_seconds", ASSUMED_LONGEST_S)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return ASSUMED_LONGEST_S
    return min(max(float(seconds), SHORTEST_PIECE_S), WHOLE_S)


def read_recordings(sources: Iterable[Any], reading: Reading) -> Iterator[Event]:
    """The pieces of recordings, one recording after another."""
    for number, source in enumerate(sources):
        yield from read_recording(number, source, reading)


def read_recording(number: int, source: Any, reading: Reading) -> Iterator[Event]:
    """The pieces of a recording, and its end."""
    seconds, error = 0.0, None
    try:
        opened = _opened(source, reading.sample_rate)
        channels = _channels(opened, reading.channels)
        for channel in channels:
            if isinstance(opened, io.BytesIO):
                opened.seek(0)
            blocks = _Blocks(
                audio_blocks(opened, reading.rate, reading.start, reading.end, channel)
            )
            yield from _parts(number, channel, blocks, len(channels), reading)
            seconds = max(seconds, blocks.count / reading.rate)
            error = error or blocks.error
    except AudioError as failure:
        error = str(failure)
    yield Ended(number, source, reading.start + seconds if seconds else 0.0, error)


def _opened(source: Any, sample_rate: int | None) -> Any:
    """A path, bytes, raw samples, or the content of a file or an array. Raises AudioError."""
    if isinstance(source, io.TextIOBase):
        raise AudioError("expected a file in binary mode, got one in text mode: open it with 'rb'")
    if isinstance(source, str | os.PathLike):
        source = Path(source)
        if os.path.isdir(source):  # noqa: PTH112 (False, no error, on impossible names)
            raise AudioError(f"{printable_name(source)}: expected a file, got a folder")
        return source
    if isinstance(source, bytes | bytearray | memoryview | RawPcm):
        return source
    if hasattr(source, "__array__"):
        return as_recording(source, sample_rate)
    if hasattr(source, "read"):
        return _Content(source)
    raise AudioError(
        "expected a path, bytes, an open file or an array of samples, got "
        f"{type(source).__name__}: convert it"
    )


class _Content(io.BytesIO):
    """What is left of an open file, to be read once for each channel."""

    def __init__(self, file: Any) -> None:
        try:
            content = file.read()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise AudioError(f"{name_of(file)}: expected audio, got {reason(error)}") from None
        super().__init__(content)
        self.name = name_of(file)


def _channels(opened: Any, channels: Channels) -> Sequence[int | None]:
    return [None] if channels == "mix" else range(1, channel_count(opened) + 1)


class _Blocks:
    """Blocks up to the first that cannot be read, with their number of samples and the error."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self.count = 0
        self.error: str | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for block in self._blocks:
                self.count += len(block)
                yield block
        except AudioError as error:
            self.error = str(error)


def _parts(
    number: int, channel: int | None, blocks: _Blocks, channels: int, reading: Reading
) -> Iterator[Event]:
    """The pieces of a recording or a channel. Conversations are cut into segments in any case."""
    told = 0
    whole = WHOLE_S * reading.rate if channels == 1 else -1
    for piece in _pieces(blocks, whole, reading):
        if piece is not None:
            yield _part(number, channel, piece, blocks.count <= whole, reading)
        yield Read(number, (blocks.count - told) / reading.rate / channels)
        told = blocks.count


def _pieces(blocks: _Blocks, whole: float, reading: Reading) -> Iterator[Piece | None]:
    iterator, head = iter(blocks), []
    for block in iterator:
        head.append(block)
        if blocks.count > whole:
            detector = speech_detector(reading.rate, reading.detector)
            rest = itertools.chain(head, iterator)
            del head
            yield from speech_pieces(rest, reading.rate, reading.longest, detector)
            return
    if head:
        yield Piece(0.0, np.concatenate(head))


def _part(number: int, channel: int | None, piece: Piece, whole: bool, reading: Reading) -> Part:
    samples = to_pcm(piece.samples).samples  # rounded as in a dataset
    seconds = len(samples) / reading.rate
    start = reading.start + piece.start
    return Part(number, channel, start, samples, seconds, piece.overlap, piece.continues, whole)


# --- from recognised pieces to segments ---


def segments_of(parts: Sequence[Part], timed: bool) -> tuple[Segment, ...]:
    """The segments of a recording, by their start, from its recognised pieces in order; with words
    if they are `timed`. Segments without text are left out, unless they are the recording."""
    found: list[Segment] = []
    for _, group in itertools.groupby(parts, key=lambda part: part.channel):
        pieces: list[Part] = []
        for part in group:
            pieces.append(part)
            if not part.continues:
                found += _segment(pieces, timed)
                pieces = []
        found += _segment(pieces, timed)
    return tuple(sorted(found, key=lambda segment: segment.start))


def _ended(words: Sequence[Word], at: float) -> int:
    """The number of words at the beginning that end by this time."""
    return sum(1 for _ in itertools.takewhile(lambda word: word.end <= at, words))


def _segment(pieces: Sequence[Part], timed: bool) -> list[Segment]:
    if not pieces:
        return []
    first, last = pieces[0], pieces[-1]
    text, words = first.text or "", first.words
    settled: list[Word] = []  # what no later piece changes; else joining would take time squared
    for before, after in itertools.pairwise(pieces):
        ended = max(_ended(words, after.start) - 1, 0)
        settled += words[:ended]
        words = join_words(words[ended:], after.words, after.start, before.start + before.seconds)
    words = (*settled, *words)
    if len(pieces) > 1:
        text = " ".join(word.text for word in words)
    if not text and not first.whole:
        return []
    end = last.start + last.seconds
    return [
        Segment(round(first.start, 3), round(end, 3), text, words if timed else (), first.channel)
    ]
