"""Times are those of a player, and files that were joined are read whole.

Covers `asr/audio/chained.py`, `asr/audio/headers.py`, `asr/audio/tracks.py`.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from asr.audio.load import audio_duration, load_audio
from asr.errors import AudioError, AudioWarning
from tests.recordings import chirp, film, stereo, tone, with_pyav, with_soundfile


def read_alike(content: bytes, folder: Path) -> np.ndarray:
    """The samples, which are the same from bytes, a file and a stream, in parts and by duration."""
    said: list[str] = []
    whole = load_audio(content, say=said.append)
    path = folder / "audio"
    path.write_bytes(content)
    assert np.array_equal(load_audio(path, say=said.append), whole)
    assert np.array_equal(load_audio(io.BytesIO(content), say=said.append), whole)
    assert abs(audio_duration(path, say=said.append) - len(whole) / 16000) < 1e-3
    for start, end in ((0.25, 0.75), (3.5, 4.5)):
        for source in (content, path):
            part = load_audio(source, start=start, end=end, say=said.append)
            expected = whole[round(start * 16000) : round(end * 16000)]
            assert len(part) == len(expected)
            assert np.abs(part[500:-500] - expected[500:-500]).max() < 2e-3
    assert not said
    return whole


def onset(samples: np.ndarray) -> float:
    return float(np.flatnonzero(np.abs(samples) > 0.05)[0] / 16000)


# --- joined files ---


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None), ("WAV", None), ("AIFF", None)]
    + [(kind, None) for kind in ("RF64", "W64", "CAF", "AU", "NIST")],
)
def test_joined_files_of_other_rates_and_channels(
    kind: str, subtype: str | None, tmp_path: Path
) -> None:
    first = with_soundfile(chirp(3, 16000), 16000, kind, subtype)
    second = with_soundfile(stereo(tone(2, 48000)), 48000, kind, subtype)
    whole = read_alike(first + second + first, tmp_path)
    assert len(whole) == 8 * 16000
    alone = load_audio(first)
    assert np.array_equal(whole[:48000], alone)
    assert np.array_equal(whole[-48000:], alone)
    assert np.abs(whole[48000:80000] - load_audio(second)).max() < 1e-6


def test_a_chain_of_different_codecs(tmp_path: Path) -> None:
    parts = [
        with_soundfile(chirp(3, 16000), 16000, "OGG", "VORBIS"),
        with_soundfile(tone(2, 48000), 48000, "OGG", "OPUS"),
        with_pyav(chirp(1, 16000), 16000, "ogg", "flac", "mono"),
    ]
    assert len(read_alike(b"".join(parts), tmp_path)) == 6 * 16000


JOINED = {
    "mp3": ("mp3", "libmp3lame", 44100),
    "aac": ("adts", "aac", 48000),
    "ac3": ("ac3", "ac3", 48000),
    "webm": ("webm", "libopus", 48000),
    "mkv": ("matroska", "aac", 44100),
    "mp4": ("mp4", "aac", 44100),
    "ts": ("mpegts", "aac", 48000),
    "flv": ("flv", "aac", 44100),
    "avi": ("avi", "pcm_s16le", 44100),
}


@pytest.mark.parametrize("name", JOINED)
def test_joined_files_that_ffmpeg_reads(name: str, tmp_path: Path) -> None:
    container, codec, rate = JOINED[name]
    first = with_pyav(chirp(3, rate), rate, container, codec, "mono")
    second = with_pyav(tone(2, rate), rate, container, codec, "mono")
    whole = load_audio(first + second, say=lambda _: None)
    assert abs(len(whole) / 16000 - 5) < 0.2
    assert np.sqrt(np.mean(whole[-16000:-4000] ** 2)) > 0.3
    path = tmp_path / "audio"
    path.write_bytes(first + second)
    assert abs(audio_duration(path, say=lambda _: None) - len(whole) / 16000) < 1e-3


def test_a_tag_in_the_middle_of_an_mp3() -> None:
    part = with_pyav(chirp(3, 44100), 44100, "mp3", "libmp3lame", "mono")
    tag = b"ID3\4\0\0\0\0\1\0" + bytes(128)
    whole = load_audio(part + tag + part, say=lambda _: None)
    assert abs(len(whole) / 16000 - 6) < 0.2


def test_a_recording_in_a_chain_that_is_damaged_costs_itself() -> None:
    damaged = with_soundfile(chirp(3, 16000), 16000, "OGG", "VORBIS").replace(b"vorbis", b"vorbXs")
    with pytest.warns(AudioWarning, match="recording 1 of 2 in it cannot be decoded"):
        samples = load_audio(damaged + with_soundfile(tone(2, 48000), 48000, "OGG", "OPUS"))
    assert len(samples) == 32000


def test_the_last_seconds_of_vorbis() -> None:
    """libsndfile seeks a packet too far in the last page."""
    content = with_soundfile(chirp(8, 16000), 16000, "OGG", "VORBIS")
    whole = load_audio(content)
    assert np.abs(load_audio(content, start=6.4, end=6.7) - whole[102400:107200]).max() < 1e-6


# --- time ---

LATE = [(5.0, 2.0)]
GAP = [(0.0, 2.0), (5.0, 2.0)]
FILMS = {
    "mp4": ("mp4", "aac", 16000),
    "mov": ("mov", "pcm_s16le", 16000),
    "3gp": ("3gp", "aac", 16000),
    "mkv": ("matroska", "aac", 16000),
    "mkv pcm": ("matroska", "pcm_s16le", 16000),
    "webm": ("webm", "libopus", 48000),
    "ts": ("mpegts", "aac", 48000),
    "mpeg": ("mpeg", "mp2", 48000),
}


@pytest.mark.parametrize("name", FILMS)
def test_sound_that_begins_after_the_picture(name: str, tmp_path: Path) -> None:
    whole = read_alike(film(*FILMS[name], LATE, picture=9), tmp_path)
    assert abs(onset(whole) - 5) < 0.03
    assert abs(len(whole) / 16000 - 7) < 0.1
    assert not whole[: 16000 * 4].any()


@pytest.mark.parametrize("picture", [0.0, 9.0])
@pytest.mark.parametrize("name", ["mp4", "mkv", "mkv pcm", "webm"])
def test_a_gap_in_the_sound(name: str, picture: float, tmp_path: Path) -> None:
    whole = read_alike(film(*FILMS[name], GAP, picture=picture), tmp_path)
    assert abs(len(whole) / 16000 - 7) < 0.1
    assert not whole[16000 * 3 : 16000 * 4].any()
    assert abs(3 + onset(whole[16000 * 3 :]) - 5) < 0.1


def test_a_gap_in_a_broadcast_is_named() -> None:
    for length in (5.0, 60.0):
        content = film("mpegts", "aac", 48000, [(0, 2), (length, 2)], picture=length + 3)
        with pytest.warns(AudioWarning, match="of sound are missing"):
            assert abs(len(load_audio(content)) / 16000 - length - 2) < 0.1


@pytest.mark.parametrize("jump", [30.0, 1000.0, -5.0])
@pytest.mark.parametrize("picture", [0.0, 10.0])
def test_a_jump_of_the_clock_is_no_silence(picture: float, jump: float) -> None:
    sound, starts = [(2.0, 8.0)], (60.0, 70.0 + jump)
    parts = [
        film("mpegts", "aac", 48000, sound, picture=picture, output_ts_offset=str(start))
        for start in starts
    ]
    samples = load_audio(b"".join(parts), say=lambda _: None)
    # Time begins with the picture; after the jump, the sound goes on where it was.
    assert abs(len(samples) / 16000 - (18 if picture else 16)) < 0.5


@pytest.mark.parametrize("jump", [30.0, 1000.0])
def test_other_tracks_of_sound_show_no_gap(jump: float) -> None:
    stream = io.BytesIO()
    with av.open(stream, "w", format="mpegts") as out:
        tracks = [out.add_stream("mp2", rate=16000, layout="mono") for _ in range(2)]
        for second in range(20):
            for track, late in zip(tracks[::-1], (0.0, 0.3), strict=True):
                frame = av.AudioFrame.from_ndarray(chirp(1, 16000)[None], "fltp", "mono")
                frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
                frame.pts = round(16000 * (second + late + (jump if second >= 10 else 0)))
                for part in av.AudioResampler("s16", "mono", 16000).resample(frame):
                    out.mux(track.encode(part))
        for track in tracks:
            out.mux(track.encode(None))
    samples = load_audio(stream.getvalue(), say=lambda _: None)
    assert abs(len(samples) / 16000 - 20) < 0.7


def test_an_edit_list_before_the_only_track(tmp_path: Path) -> None:
    whole = read_alike(film("ipod", "aac", 16000, LATE), tmp_path)
    assert abs(onset(whole) - 5) < 0.03


@pytest.mark.parametrize("container", ["matroska", "mpegts", "flv"])
def test_a_stream_that_was_joined_late_begins_at_zero(container: str) -> None:
    samples = load_audio(film(container, "aac", 44100, [(3600.0, 2.0)]))
    assert abs(len(samples) / 16000 - 2) < 0.1


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_sound_before_the_picture_adds_no_silence(container: str) -> None:
    content = film(container, "aac", 48000, [(-0.5, 2.0)], picture=3)
    assert onset(load_audio(content)) < 0.05


# --- length ---


@pytest.mark.parametrize("count", [1, 4])
def test_more_than_the_longest_recording(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.audio.load.MOST_HOURS", 0.01)
    path = tmp_path / "bomb.flac"
    part = with_soundfile(np.zeros(16000 * 60 // count, "i2"), 16000, "FLAC")
    path.write_bytes(part * count)
    with pytest.raises(AudioError, match=r"expected at most 0.01 hours of sound at once"):
        load_audio(path)
    assert audio_duration(path) == 60
    assert len(load_audio(path, start=50, end=51)) == 16000


def test_a_timestamp_claims_no_memory() -> None:
    content = film("matroska", "aac", 16000, [(0, 1), (20 * 3600, 1)])
    with pytest.raises(AudioError, match="hours of sound at once"):
        load_audio(content)
