"""Decoding by FFmpeg, through PyAV: mp3, mp4, m4a, webm, aac and other formats with audio.

Samples are placed at their timestamps, so that times agree with those of a player. A track that
begins late, a gap, and a packet that cannot be decoded are filled with silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from asr.audio.channels import Mix
from asr.audio.source import Block, Stream
from asr.audio.tracks import choose_track, frame_channels, open_pyav

Say = Callable[[str], None]
Timed = tuple[Any, Fraction | None]  # a decoded frame, and its seconds since time zero

# Containers whose header states the total duration; for others, FFmpeg estimates it.
_TIMED_CONTAINERS = ("mov", "matroska", "flv", "asf", "avi")
# Containers without timestamps: FFmpeg counts samples, at the first frame's rate.
_UNTIMED_CONTAINERS = ("mp3", "aac", "ac3", "eac3")
# Containers whose clock may restart: a long jump there is another recording, not a pause.
_BROADCASTS = ("mpegts", "mpeg")
# Usually of constant bit rate, so that all packets have the same size.
_SIZED_FRAMES = ("mp1", "mp2", "mp3", "ac3", "eac3")

# Containers in which a gap means that data was not received.
_LOSSY = (*_BROADCASTS, "ogg")

# A track's duration in Matroska's tags, such as 00:01:00.024000000.
_TAGGED = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")
_MISSING = 0.5  # seconds by which an intact file may be shorter than stated
_JITTER = 0.05  # seconds; encoder delays and rounded timestamps are not gaps
_LONGEST_GAP = 24 * 3600.0  # seconds; a longer gap is a damaged timestamp
_LONGEST_BROADCAST_GAP = 10.0  # the same as FFmpeg's -dts_delta_threshold
_OUT_OF_ORDER = 1.0  # seconds; pictures that depend on later ones are stored after these
_MOST_UNTIMED = 64  # frames without a timestamp that are held until one has a timestamp
_MOST_ERRORS = 1000  # read errors per file, so that reading always ends


@dataclass
class _Damage:
    """What was lost while a file was read; times in seconds since time zero."""

    packets: int = 0
    decoded: int = 0
    undecodable: int = 0
    first: float = 0.0
    reason: Exception | None = None
    cut_off: bool = False
    corrupt: bool = False
    """Whether the last packet is; one in the middle is a gap."""
    short: int = 0
    last_is_short: bool = False
    missing: float = 0.0
    last: float = 0.0
    shown: float = 0.0
    """The end of the last subtitle."""
    clock: float | None = None
    """The latest end of a packet of the picture, since its clock has jumped."""
    picture: float = 0.0
    """How long the picture lasted, without jumps of its clock."""
    fresh: bool = False
    """Whether something was lost since the last frame."""

    def follow_picture(self, end: float) -> None:
        """Take note of a packet of the picture that ends at `end`. Packets may be out of order."""
        step = end if self.clock is None else end - self.clock
        if self.clock is None or 0 < step <= _LONGEST_BROADCAST_GAP:
            self.picture += step
        elif -_OUT_OF_ORDER <= step <= 0:
            return
        self.clock = end


def pyav_blocks(
    stream: Stream, say: Say, channel: int | None = None, mix: Mix | None = None
) -> Generator[Block, None, None]:
    """All of one audio track from time zero on, as consecutive blocks. The track is the one that a
    player chooses, or the first one with sound if that one is silent. Its channels become one by
    `mix`, or else by `mix_of`, which may choose one `channel`.

    Time zero is the start of the earliest track; in mp4, the start of the movie. `say` reports what
    cannot be decoded, when the blocks end or the caller closes the generator.
    """
    chosen = choose_track(stream, say, channel, mix)
    with open_pyav(stream) as container:
        track = container.streams.audio[chosen.place]
        zero = _zero(container, stream)
        damage = _Damage()
        try:
            frames = _frames(container, track, zero, damage)
            yield from _placed(_timed(frames), container.format.name, damage, chosen.mix)
            if not damage.decoded and damage.reason is not None:
                raise damage.reason
            stated = _stated_end(container, track, zero)
            if container.streams.subtitles and not _ends(container):
                damage.last = max(damage.last, damage.shown)  # one of them may be the last
            if damage.last + _MISSING < stated:
                say(f"cut off: {damage.last:.1f} s of the {stated:.1f} s stated in its header")
            elif damage.cut_off or damage.corrupt or (damage.last_is_short and damage.short == 1):
                say(f"cut off at {damage.last:.1f} s")
        finally:
            if damage.missing:
                say(f"{damage.missing:.1f} s of sound are missing; silence replaces them")
            if damage.undecodable and damage.decoded:
                say(
                    f"{damage.undecodable} of {damage.packets} packets cannot be decoded, the first"
                    f" at {damage.first:.1f} s; silence replaces them"
                )


def _zero(container: Any, stream: Stream) -> Fraction:
    """The timestamp in seconds that counts as the beginning."""
    start = container.start_time or 0
    if start > _JITTER * av.time_base and container.format.name.startswith("mov"):
        # An edit list can put a pause before the only track. Without one, the timestamps are those
        # of a live stream, which was joined at some time.
        with open_pyav(stream, {"ignore_editlist": "1"}) as plain:
            start = plain.start_time or 0
    return Fraction(start, av.time_base)


def _stated_end(container: Any, track: Any, zero: Fraction) -> float:
    """Seconds from time zero to the end of the longest track, from the header; 0 if the header does
    not state it."""
    name = container.format.name
    if not container.duration or not name.startswith((*_TIMED_CONTAINERS, "mp3")):
        return 0.0
    if container.streams.subtitles and (ends := _ends(container)):
        return float(max(ends) - zero)
    duration = Fraction(container.duration, av.time_base)
    if name == "mp3":  # stated in its first frame, or estimated from the bit rate
        estimate = 8 * container.size / (track.bit_rate or 1)
        return float(duration) if duration > 1.05 * estimate else 0.0
    if name.startswith("mov"):  # first track's start to last track's end
        duration += Fraction(container.start_time or 0, av.time_base)
    return float(duration - zero)


def _ends(container: Any) -> list[Fraction]:
    """Seconds at which the tracks of sound and picture end, from the header; [] if it does not
    state all of them. A subtitle may last longer, and the container's duration includes it."""
    found = []
    for track in (*container.streams.audio, *container.streams.video):
        stated = _TAGGED.fullmatch(track.metadata.get("DURATION", ""))
        if track.duration is not None:
            found.append(((track.start_time or 0) + track.duration) * track.time_base)
        elif stated:
            hours, minutes, seconds = map(Fraction, stated.groups())
            found.append(3600 * hours + 60 * minutes + seconds)
        else:
            return []
    return found


def _packets(container: Any, track: Any, damage: _Damage) -> Iterator[Any]:
    """Packets of the sound, and of all that shows where a cut-off file ends: the picture, other
    tracks of sound and subtitles."""
    others = (*container.streams.video, *container.streams.audio, *container.streams.subtitles)
    tracks = [track, *(other for other in others if other.index != track.index)]
    for _ in range(_MOST_ERRORS):
        try:
            yield from container.demux(tracks)
            return
        except av.FFmpegError as error:
            damage.cut_off, damage.fresh, damage.reason = True, True, damage.reason or error


def _frames(container: Any, track: Any, zero: Fraction, damage: _Damage) -> Iterator[Timed]:
    # Of several pictures, each may have a clock of its own.
    picture = next((video.index for video in container.streams.video), None)
    for packet in _packets(container, track, damage):
        when = None if packet.pts is None else packet.pts * packet.time_base - zero
        if when is not None and packet.size:
            end = float(when + (packet.duration or 0) * packet.time_base)
            if packet.stream.type == "subtitle":
                damage.last, damage.shown = max(damage.last, float(when)), max(damage.shown, end)
            else:
                damage.last = max(damage.last, end)
            if packet.stream.index == picture:
                damage.follow_picture(end)
        if packet.stream.index != track.index:
            continue
        damage.packets += packet.size > 0
        damage.corrupt = packet.is_corrupt if packet.size else damage.corrupt
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if packet.size:
                damage.first = damage.first if damage.undecodable else float(when or damage.last)
                damage.undecodable += 1
                damage.fresh, damage.reason = True, damage.reason or error
            continue
        damage.decoded += len(frames)
        for frame in frames:
            time = None if frame.pts is None else frame.pts * frame.time_base - zero
            yield frame, time
        if frames and packet.size:
            damage.last_is_short = _is_short(packet, frames[-1])
            damage.short += damage.last_is_short


def _is_short(packet: Any, frame: Any) -> bool:
    """Whether a packet has fewer bytes than its bit rate demands. With an average bit rate all
    packets may be short; otherwise only the last packet of a cut-off file is."""
    codec = packet.stream.codec_context
    if not codec.name.startswith(_SIZED_FRAMES) or not codec.bit_rate:
        return False
    size: int = frame.samples * codec.bit_rate // (8 * frame.sample_rate)
    return packet.size < size


def _timed(frames: Iterable[Timed]) -> Iterator[Timed]:
    """The same frames; a frame without a timestamp, as in damaged FLAC, gets it from the next frame
    with one."""
    waiting: list[Any] = []
    for frame, time in frames:
        waiting.append(frame)
        if time is None and len(waiting) < _MOST_UNTIMED:
            continue
        lasting = [Fraction(other.samples, other.sample_rate) for other in waiting]
        for number, other in enumerate(waiting):
            yield other, None if time is None else time - sum(lasting[number:-1], Fraction())
        waiting = []
    yield from ((frame, None) for frame in waiting)


def _placed(frames: Iterable[Timed], container: str, damage: _Damage, mix: Mix) -> Iterator[Block]:
    """Each frame at its timestamp, with silence in the gaps."""
    longest_gap = _LONGEST_BROADCAST_GAP if container in _BROADCASTS else _LONGEST_GAP
    # `position` is the next sample, `lack` the number of samples that are missing before a frame by
    # its timestamp, `shift` is added to all timestamps after an implausible jump, and timestamps
    # are not `believed` once the rate changes in a container where they do not follow it.
    position, rate, shift, believed = 0, 0, Fraction(), True
    for frame, time in frames:
        if frame.sample_rate != rate:
            believed = not rate or container not in _UNTIMED_CONTAINERS
            position = round(position * frame.sample_rate / rate) if rate else 0
            rate = frame.sample_rate
        lack = 0 if time is None or not believed else round((time + shift) * rate) - position
        # While the picture continues, silence of any length is a gap.
        most = longest_gap + max(0.0, damage.picture - position / rate)
        if not -_JITTER * rate <= lack <= (most if position else _LONGEST_GAP) * rate:
            shift, lack = shift - Fraction(lack, rate), 0
        if lack > _JITTER * rate or (lack > 0 and damage.fresh):
            damage.missing += lack / rate if position and container in _LOSSY else 0
            # A broadcast zero, so that a wrong timestamp cannot allocate much memory.
            yield Block(position, np.broadcast_to(np.float32(0), (lack,)), rate)
            position += lack
        damage.fresh = False
        samples = mix(frame_channels(frame))
        yield Block(position, samples, rate)
        position += len(samples)
