"""The recordings in a file, one after another, each read by the decoder that can read it.

libsndfile comes first where it knows the format. Where it fails, FFmpeg continues at the position
reached, or, in FLAC with a known length, libsndfile after the damage. FFmpeg's libraries are loaded
when it is first needed.

Letters: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import soundfile

from asr.audio.chained import Link, links
from asr.audio.channels import Mix
from asr.audio.decode_soundfile import (
    file_mix,
    is_complete,
    open_soundfile,
    salvaged_blocks,
    soundfile_blocks,
)
from asr.audio.headers import with_true_size
from asr.audio.resample import TooLongError, check_length, check_rate, resampled
from asr.audio.source import Block, Request, Span, Stream, reason_of
from asr.errors import AudioError

Say = Callable[[str], None]


@dataclass
class _Place:
    """What is known of one recording while it is read."""

    seconds: float = 0.0
    """Its length; up to its end, the end of what has been decoded."""
    promised: float = 0.0
    """The length that its header states, if a decoder may lose its end; else 0."""


def samples_of(stream: Stream, request: Request, say: Say) -> Iterator[np.ndarray]:
    """All wanted samples in a file, in pieces of any size. Shape: each float32 [S].

    Raises almost any exception on damaged bytes, after the samples before the damage.
    """
    if request.channel is not None and request.channel > (count := channels_of(stream)):
        raise AudioError(
            f"expected channel {request.channel}, got a recording with {count}; choose another"
        )

    def read(link: Link, begin: float, place: _Place) -> Iterator[np.ndarray]:
        span = request.span
        if span.end is None or begin < span.end:
            yield from _samples(link, replace(request, span=span.after(begin)), place, say)

    count = 0
    for piece in _all_links(stream, read, say):
        count += len(piece)
        check_length(count / request.rate, request)
        yield piece


def seconds_of(stream: Stream, say: Say) -> float:
    """Seconds of all recordings in a file, from the header if that is exact, else by decoding."""

    def measure(link: Link, _: float, place: _Place) -> Iterator[np.ndarray]:
        place.seconds = _duration(link, say)
        yield from ()

    seconds = _all_links(stream, measure, say)
    while True:
        try:
            next(seconds)
        except StopIteration as end:
            return float(end.value)


def channels_of(stream: Stream) -> int:
    """The channels of a file, from its header; of several recordings, the most."""
    counts, errors = [0], []
    found = links(stream)
    for link in found:
        try:
            counts.append(_channels(link))
        except Exception as error:
            errors.append(error)
    if len(errors) == len(found):
        raise errors[-1]
    return max(counts)


def stated_seconds_of(stream: Stream) -> float:
    """Seconds of the first recording in a file as its header states or FFmpeg estimates them; 0 if
    unknown."""
    stream = with_true_size(stream, lambda _: None)
    file = open_soundfile(stream)
    if file is not None:
        with file:
            return float(file.frames / file.samplerate)
    import av

    from asr.audio.tracks import open_pyav

    with open_pyav(stream) as container:
        return float((container.duration or 0) / av.time_base)


def _all_links(
    stream: Stream, read: Callable[[Link, float, _Place], Iterator[np.ndarray]], say: Say
) -> Generator[np.ndarray, None, float]:
    """What `read` yields of each recording in a file, and the seconds of all. `read` takes the
    seconds before it, and keeps its own. A recording that cannot be decoded is left out alone."""
    found = links(stream)
    seconds, failed = 0.0, 0
    for number, link in enumerate(found, start=1):
        place = _Place()
        try:
            yield from read(link, seconds, place)
        except Exception as error:
            failed += 1
            if isinstance(error, TooLongError) or failed == len(found):
                raise
            since = f" from {place.seconds:.1f} s on" if place.seconds else ""
            say(
                f"recording {number} of {len(found)} in it cannot be decoded{since}:"
                f" {reason_of(error)}"
            )
        seconds += place.seconds
    return seconds


# --- one recording ---


def _samples(link: Link, request: Request, place: _Place, say: Say) -> Iterator[np.ndarray]:
    """The wanted samples of one recording. If the end that its header promises is lost, silence
    replaces it: the recording keeps its length."""
    span, count = request.span, 0

    def still() -> int | None:
        """The samples that are missing up to the promised end."""
        if not place.promised:
            return None
        end = min(place.promised, span.end or place.promised)
        first, stop = Span(span.start, end).frames(request.rate)
        return max(stop - first - count, 0)

    for piece in resampled(_blocks(link, request, place, say), request):
        piece = piece[: still()]
        count += len(piece)
        yield piece
    while count and (lack := still()):
        silence = np.zeros(min(lack, 10 * request.rate), np.float32)
        count += len(silence)
        yield silence
    place.seconds = place.promised or place.seconds


def _blocks(link: Link, request: Request, place: _Place, say: Say) -> Generator[Block, None, None]:
    """The decoded blocks of one recording, at least those of the wanted span."""
    stream, file = _opened(link, say)
    if file is None:
        yield from _counted(_ffmpeg_blocks(stream, request.channel, None, None, say), place)
        return
    span, last = request.span, None
    with file:
        first, stop = (min(frame, file.frames) for frame in span.frames(file.samplerate))
        check_length((stop - first) / file.samplerate, request)
        mix = file_mix(file, request.channel, say)
        try:
            for last in _counted(soundfile_blocks(file, span, mix), place):
                yield last
            place.seconds = file.frames / file.samplerate
            return
        except (soundfile.SoundFileError, EOFError) as error:
            if file.frames:
                say(f"damaged ({reason_of(error)}): only the intact part is read")
            promised = _promised(stream)
    if promised and file.format == "FLAC":
        rest = salvaged_blocks(stream, span, mix)
        yield from _after(last, rest)
        place.seconds = promised
        return
    place.promised = promised
    rest = _ffmpeg_blocks(stream, request.channel, mix if last else None, file, say)
    yield from _counted(_after(last, rest), place)


def _counted(blocks: Generator[Block, None, None], place: _Place) -> Generator[Block, None, None]:
    with closing(blocks):
        for block in blocks:
            place.seconds = block.end
            yield block


def _after(
    last: Block | None, blocks: Generator[Block, None, None]
) -> Generator[Block, None, None]:
    """The blocks of another decoder, which begins anew, without what was read up to `last`."""
    with closing(blocks):
        for block in blocks:
            rest = block if last is None else block.after(last)
            if len(rest.samples):
                yield rest


def _ffmpeg_blocks(
    stream: Stream,
    channel: int | None,
    mix: Mix | None,
    file: soundfile.SoundFile | None,
    say: Say,
) -> Generator[Block, None, None]:
    """What PyAV decodes, also of a `file` that is too damaged for soundfile; nothing if that file
    is empty."""
    if file is not None and not file.frames and file.format != "OGG":
        return
    import av

    from asr.audio.decode_pyav import pyav_blocks

    try:
        yield from pyav_blocks(stream, say, channel, mix)
    except av.FFmpegError:
        if file is None or file.frames:
            raise


def _promised(stream: Stream) -> float:
    """Seconds stated in the header if the last of these samples exists; else 0."""
    file = open_soundfile(stream)
    if file is None:
        return 0.0
    with file:
        check_rate(file.samplerate)
        return float(file.frames / file.samplerate) if is_complete(file) else 0.0


def _duration(link: Link, say: Say) -> float:
    stream, file = _opened(link, say)
    if file is not None:
        file.close()
        seconds = _promised(stream)
        if seconds:
            return seconds
    blocks = _ffmpeg_blocks(stream, None, None, file, say)
    return max((block.end for block in blocks), default=0.0)


def _channels(link: Link) -> int:
    stream, file = _opened(link, lambda _: None)
    if file is None:
        from asr.audio.tracks import track_channels

        return track_channels(stream)
    with file:
        return int(file.channels)


def _opened(link: Link, say: Say) -> tuple[Stream, soundfile.SoundFile | None]:
    """A recording with its true size, opened by libsndfile if that decodes it."""
    if link.damage:
        say(link.damage)
        return link.stream, None  # libsndfile would shorten the sound by each hole
    stream = with_true_size(link.stream, say)
    return stream, open_soundfile(stream)
