"""Long recordings: memory that does not grow with the length, seeking, and the stated length.

Covers `asr/audio/blocks.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.blocks import audio_blocks, stated_seconds
from asr.audio.load import audio_duration, load_audio
from tests.recordings import FORMATS, STRETCHES, chirp, film, tone, with_pyav, with_soundfile

RATE = 16000
SECONDS = {".wav": 1200, ".flac": 1200, ".mp3": 600}  # mp3 is decoded in small frames
GROWTH = """
import sys
import psutil
from asr.audio.blocks import audio_blocks

process = psutil.Process()
list(audio_blocks(sys.argv[1], 16000, end=1.0))
count, peak = 0, 0
before = process.memory_info().rss
for block in audio_blocks(sys.argv[1], 16000):
    count += len(block)
    peak = max(peak, process.memory_info().rss)
print(count, peak - before)
"""


def long_file(path: Path) -> Path:
    """The same 20 s again and again."""
    count = SECONDS[path.suffix] // 20
    if path.suffix == ".mp3":
        mp3 = film("mp3", "libmp3lame", RATE, [(0, 19.98)], write_xing="0", id3v2_version="0")
        path.write_bytes(mp3 * count)
        return path
    part = (np.tile(chirp(2, RATE), 10) * 32767).astype("i2")
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(count):
            file.write(part)
    return path


@pytest.fixture(scope="module", params=["wav", "flac", "mp3"])
def long(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_file(tmp_path_factory.mktemp("long") / f"a.{request.param}")


def test_memory_does_not_grow_with_the_length(long: Path) -> None:
    """All samples would take 77 MB, those of the mp3 38 MB."""
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(long)],
        check=True, capture_output=True, text=True, env=dict(os.environ),
    )  # fmt: skip
    count, growth = map(int, done.stdout.split())
    assert abs(count / RATE / SECONDS[long.suffix] - 1) < 0.01
    assert growth < 15e6


def test_the_end_of_a_long_wav_is_sought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(2 * RATE * 1200))
        file.writeframes((tone(1, RATE) * 32767).astype("<i2").tobytes())
    whole, read = soundfile.SoundFile.read, []

    def counted(file: soundfile.SoundFile, frames: int, **how: object) -> np.ndarray:
        read.append(frames)
        samples: np.ndarray = whole(file, frames, **how)
        return samples

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    samples = np.concatenate(list(audio_blocks(path, RATE, start=1200)))
    assert sum(read) == RATE
    assert np.abs(samples - tone(1, RATE)).max() < 1e-4


@pytest.mark.parametrize("name", FORMATS)
def test_the_stated_length(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(FORMATS[name])
    assert abs(stated_seconds(path) - 0.5) < 0.15


def test_the_stated_length_of_a_long_file(long: Path) -> None:
    assert abs(stated_seconds(long) / SECONDS[long.suffix] - 1) < 0.01


def test_a_length_estimated_from_the_bit_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.aac"
    path.write_bytes(with_pyav(chirp(6, RATE), RATE, "adts", "aac", "mono") * 10)
    assert 30 < stated_seconds(path) < 120


def test_a_length_that_is_unknown(tmp_path: Path) -> None:
    flac = bytearray(STRETCHES["flac"])
    flac[21] &= 0xF0  # STREAMINFO: the low 36 bits of bytes 18 to 25 count the samples
    flac[22:26] = bytes(4)
    for content in (b"", b"words", with_soundfile(np.zeros(0), RATE, "WAV"), bytes(flac)):
        path = tmp_path / "a"
        path.write_bytes(content)
        assert stated_seconds(path) == 0
    assert stated_seconds(tmp_path / "missing.wav") == stated_seconds(tmp_path) == 0


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("mp4", "aac", 44100), ("matroska", "aac", 44100), ("webm", "libopus", 48000)],
)
def test_the_sound_of_a_video(container: str, codec: str, rate: int, tmp_path: Path) -> None:
    path = tmp_path / f"film.{container}"
    path.write_bytes(film(container, codec, rate, [(0.0, 11.0)], picture=11.0))
    blocks = list(audio_blocks(path, RATE))
    assert len(blocks) == 2
    samples = np.concatenate(blocks)
    assert abs(len(samples) / RATE - 11) < 0.1
    np.testing.assert_array_equal(samples, load_audio(path))
    assert abs(stated_seconds(path) - audio_duration(path)) < 0.2
    inner = slice(RATE, RATE * 5)  # chirps to 3 kHz
    assert np.corrcoef(samples[inner], chirp(11, RATE)[inner])[0, 1] > 0.9
