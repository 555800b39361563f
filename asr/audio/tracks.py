"""The audio tracks of a container that FFmpeg reads, and the choice of the one to decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from asr.audio.channels import MOST_SECONDS, Mix, mix_of
from asr.audio.levels import SILENT_PEAK
from asr.audio.source import Stream, View
from asr.errors import AudioError

# Self-contained containers only: no playlists, which could name other files or addresses.
_PYAV_FORMATS = (
    "mov,mp4,m4a,3gp,matroska,webm,mp3,aac,ogg,flac,wav,w64,nistsphere,aiff,au,caf,asf,amr,flv,"
    "avi,mpegts,mpeg,ac3,eac3,dts,wv,ape,tta,dss,mxf,rm,voc"
)
_KINDS = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_DEFAULT = Disposition.default


@dataclass(frozen=True)
class Track:
    """Its index among the audio tracks, and how its channels become one."""

    place: int
    mix: Mix


def open_pyav(stream: Stream, options: dict[str, str] | None = None) -> Any:
    whole = stream if isinstance(stream, View) else View(stream)
    whole.seek(0)
    container = av.open(whole, options={"format_whitelist": _PYAV_FORMATS, **(options or {})})
    if not container.streams.audio:
        container.close()
        raise AudioError("expected an audio track, got none; give a recording with sound")
    return container


def choose_track(
    stream: Stream, say: Callable[[str], None], channel: int | None = None, mix: Mix | None = None
) -> Track:
    """The track that a player chooses, or the first one with sound if that one is silent, with a
    `mix` for its channels (`mix_of` by default).

    `say` reports the other tracks, which are not read, and inverted channels.
    """
    chosen, channels = _chosen(stream, say)
    if mix is None:
        alone = channels == [1]
        mix = mix_of([np.ones((1, 1))] if alone else _beginning(stream, chosen), channel, say)
    return Track(chosen, mix)


def track_channels(stream: Stream) -> int:
    """The number of channels of the track that is read, from the header."""
    chosen, channels = _chosen(stream, lambda _: None)
    return channels[chosen]


def _chosen(stream: Stream, say: Callable[[str], None]) -> tuple[int, list[int]]:
    """The index of the track that is read, and the channels of each track."""
    with open_pyav(stream) as container:
        tracks = container.streams.audio
        order = sorted(range(len(tracks)), key=lambda i: not tracks[i].disposition & _DEFAULT)
        decoders = [track.codec_context for track in tracks]  # None: FFmpeg has none
        channels = [decoder.layout.nb_channels if decoder else 0 for decoder in decoders]
    chosen = order[0]
    if len(order) > 1:
        chosen = next((place for place in order if _has_sound(stream, place)), chosen)
        say(
            f"{len(order)} audio tracks: "
            + (f"track {order[0] + 1} is silent, " if chosen != order[0] else "")
            + f"track {chosen + 1} is read"
        )
    return chosen, channels


def frame_channels(frame: Any) -> np.ndarray:
    """The samples of a decoded frame, full scale 1. Shape: float [C, S]."""
    kind, channels = _KINDS[frame.format.name.removesuffix("p")], frame.layout.nb_channels
    if frame.format.is_planar:
        # Not `to_ndarray`: of eight planes, PyAV 18 finds nine, and reads memory that is none.
        planes = frame.planes[:channels]
        values = np.stack([np.frombuffer(plane, kind, frame.samples) for plane in planes])
    else:  # interleaved
        values = np.frombuffer(frame.planes[0], kind, frame.samples * channels)
        values = values.reshape(-1, channels).T.copy()
    if values.dtype.kind == "u":
        values = values.astype(np.float32) - 128.0
        values /= 128.0
    elif values.dtype.kind == "i":
        values = values / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
    return values


def _frames(stream: Stream, place: int) -> Iterator[Any]:
    """The frames of a track that can be decoded."""
    with open_pyav(stream) as container:
        try:
            for packet in container.demux(container.streams.audio[place]):
                try:
                    yield from packet.decode()
                except av.FFmpegError:
                    continue
        except av.FFmpegError:
            return  # the damage is reported when the track is read


def _has_sound(stream: Stream, place: int) -> bool:
    return any(
        np.abs(frame_channels(frame)).max(initial=0) >= SILENT_PEAK
        for frame in _frames(stream, place)
    )


def _beginning(stream: Stream, place: int) -> Iterator[np.ndarray]:
    """The first `MOST_SECONDS` of a track, without digital silence. Shape: each [C, S]."""
    seconds, channels = 0.0, 0
    for frame in _frames(stream, place):
        samples = frame_channels(frame)
        channels = channels or len(samples)
        if len(samples) == channels and samples.any():
            yield samples
            seconds += samples.shape[1] / frame.sample_rate
        if seconds >= MOST_SECONDS:
            return
