"""Short recordings of a tone or a chirp in every format that is read, made in memory."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

PITCH = 440.0
LEVEL = 0.5


def tone(seconds: float, rate: int) -> np.ndarray:
    return (LEVEL * np.sin(2 * np.pi * PITCH * np.arange(round(seconds * rate)) / rate)).astype(
        "f4"
    )


def chirp(seconds: float, rate: int) -> np.ndarray:
    """Every moment differs from every other, so that a wrong offset shows."""
    time = np.arange(round(seconds * rate)) / rate
    return (LEVEL * np.sin(2 * np.pi * (200 * time + 300 * time**2))).astype("f4")


def with_soundfile(samples: np.ndarray, rate: int, kind: str, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def with_pyav(samples: np.ndarray, rate: int, container: str, codec: str, layout: str) -> bytes:
    """Samples [S] or [S, C] encoded by FFmpeg."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as out:
        track = out.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(track, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(np.atleast_2d(samples.T)), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(track.format.name, layout, rate)
        for part in itertools.chain(resampler.resample(frame), resampler.resample(None)):
            out.mux(track.encode(part))
        out.mux(track.encode(None))
    return stream.getvalue()


def film(
    container: str,
    codec: str,
    rate: int,
    pieces: Sequence[tuple[float, float]],
    picture: float = 0.0,
    **options: str,
) -> bytes:
    """Pieces of a `chirp`, each with its beginning and length in seconds, beside a picture of so
    many seconds."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container, options=options) as out:
        tracks: list[Any] = []
        if picture:
            name = "libvpx" if container == "webm" else "mpeg4"
            tracks.append(out.add_stream(name, rate=10, width=32, height=32, pix_fmt="yuv420p"))
        sound: Any = out.add_stream(codec, rate=rate, layout="mono")
        for number in range(round(picture * 10)):
            image = av.VideoFrame(32, 32, "yuv420p")
            image.pts, image.time_base = number, Fraction(1, 10)
            out.mux(tracks[0].encode(image))
        for track in tracks:
            out.mux(track.encode(None))
        size = sound.codec_context.frame_size or 1024
        resampler = av.AudioResampler(sound.format.name, "mono", rate, frame_size=size)
        for start, seconds in pieces:
            frame = av.AudioFrame.from_ndarray(chirp(seconds, rate)[None], "fltp", "mono")
            frame.sample_rate, frame.pts = rate, round(start * rate)
            frame.time_base = Fraction(1, rate)
            for part in resampler.resample(frame):
                out.mux(sound.encode(part))
        for part in resampler.resample(None):
            out.mux(sound.encode(part))
        out.mux(sound.encode(None))
    return stream.getvalue()


def sphere(samples: np.ndarray, rate: int, byte_format: str) -> bytes:
    header = (
        f"NIST_1A\n   1024\nsample_count -i {len(samples)}\nsample_rate -i {rate}\n"
        f"sample_n_bytes -i 2\nsample_byte_format -s2 {byte_format}\nchannel_count -i 1\n"
        "sample_coding -s3 pcm\nend_head\n"
    )
    kind = "<i2" if byte_format == "01" else ">i2"
    return header.encode().ljust(1024) + samples.astype(kind).tobytes()


def litter(folder: Path) -> None:
    """Beside every file one such as a Mac leaves on other people's disks."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\xff")


def stereo(samples: np.ndarray) -> np.ndarray:
    return np.stack([samples, samples], axis=1)


FORMATS = {
    "wav 8 kHz": with_soundfile(tone(0.5, 8000), 8000, "WAV"),
    "wav 24-bit 44.1 kHz stereo": with_soundfile(stereo(tone(0.5, 44100)), 44100, "WAV", "PCM_24"),
    "wav float": with_soundfile(tone(0.5, 22050), 22050, "WAV", "FLOAT"),
    "wav mu-law": with_soundfile(tone(0.5, 8000), 8000, "WAV", "ULAW"),
    "wav 8-bit": with_soundfile(tone(0.5, 11025), 11025, "WAV", "PCM_U8"),
    "flac": with_soundfile(tone(0.5, 16000), 16000, "FLAC"),
    "ogg vorbis": with_soundfile(tone(0.5, 32000), 32000, "OGG", "VORBIS"),
    "ogg opus": with_soundfile(stereo(tone(0.5, 48000)), 48000, "OGG", "OPUS"),
    "mp3": with_soundfile(tone(0.5, 44100), 44100, "MP3"),
    "mp3 stereo 22.05 kHz": with_soundfile(stereo(tone(0.5, 22050)), 22050, "MP3"),
    "sphere": with_soundfile(tone(0.5, 16000), 16000, "NIST"),
    "mp4 aac stereo": with_pyav(stereo(tone(0.5, 44100)), 44100, "mp4", "aac", "stereo"),
    "m4a aac": with_pyav(tone(0.5, 16000), 16000, "ipod", "aac", "mono"),
    "m4a alac": with_pyav(tone(0.5, 48000), 48000, "ipod", "alac", "mono"),
    "webm opus": with_pyav(tone(0.5, 48000), 48000, "webm", "libopus", "mono"),
    "aac": with_pyav(tone(0.5, 24000), 24000, "adts", "aac", "mono"),
    "mov pcm stereo": with_pyav(stereo(tone(0.5, 48000)), 48000, "mov", "pcm_s16le", "stereo"),
    "mkv pcm 32-bit": with_pyav(tone(0.5, 48000), 48000, "matroska", "pcm_s32le", "mono"),
    "mov pcm 8-bit": with_pyav(tone(0.5, 8000), 8000, "mov", "pcm_u8", "mono"),
}

"""Half a second of `tone`."""

STRETCHES = {
    "wav": with_soundfile(chirp(3, 16000), 16000, "WAV"),
    "flac": with_soundfile(chirp(3, 16000), 16000, "FLAC"),
    "vorbis": with_soundfile(chirp(3, 16000), 16000, "OGG", "VORBIS"),
    "opus": with_soundfile(chirp(3, 16000), 16000, "OGG", "OPUS"),
    "sphere": with_soundfile(chirp(3, 16000), 16000, "NIST"),
    "mp3": with_soundfile(chirp(3, 16000), 16000, "MP3"),
    "m4a": with_pyav(chirp(3, 16000), 16000, "ipod", "aac", "mono"),
}
"""Three seconds of `chirp`."""
