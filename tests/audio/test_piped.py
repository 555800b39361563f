"""Recordings from a pipe: files that are kept on disk meanwhile, and raw samples."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from asr.audio.blocks import audio_blocks, channel_count
from asr.audio.load import load_audio
from asr.audio.piped import RawPcm, spooled
from asr.errors import AudioError
from tests.recordings import STRETCHES, chirp, with_soundfile

RATE = 16000
STEPS = (chirp(12, RATE) * 32767).astype("<i2")
SAMPLES = STEPS / np.float32(32768)


def piped(content: bytes) -> io.BufferedReader:
    """The reading end of a pipe that gets the content from another thread, in odd pieces."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for at in range(0, len(content), 10_001):
                pipe.write(content[at : at + 10_001])

    threading.Thread(target=write).start()
    return os.fdopen(reading, "rb")


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "m4a"])
def test_a_file_from_a_pipe(name: str) -> None:
    with piped(STRETCHES[name]) as stream, spooled(stream) as path:
        np.testing.assert_array_equal(load_audio(path), load_audio(STRETCHES[name]))
    assert not path.exists()
    assert not path.parent.exists()


def test_the_temporary_file_goes_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with contextlib.suppress(KeyboardInterrupt), spooled(io.BytesIO(b"some bytes")):
        assert len(list(tmp_path.rglob("standard-input"))) == 1
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_nothing_from_a_pipe() -> None:
    empty = spooled(io.BytesIO())
    with pytest.raises(AudioError, match=r"^<standard input>: expected a recording, got no bytes"):
        empty.__enter__()


@pytest.mark.parametrize("rate", [16000, 8000])
def test_raw_samples(rate: int) -> None:
    expected = load_audio(with_soundfile(STEPS, RATE, "WAV"), rate)
    with piped(STEPS.tobytes()) as stream:
        got = np.concatenate(list(audio_blocks(RawPcm(stream, RATE), rate)))
    np.testing.assert_array_equal(got, expected)
    part = np.concatenate(
        list(audio_blocks(RawPcm(io.BytesIO(STEPS.tobytes()), RATE), RATE, 1.0, 2.5, channel=1))
    )
    np.testing.assert_array_equal(part, SAMPLES[RATE : 5 * RATE // 2])


def test_raw_samples_come_before_the_end() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        thread = threading.Thread(target=pipe.write, args=(STEPS[: 10 * RATE].tobytes(),))
        thread.start()
        block = next(audio_blocks(RawPcm(stream, RATE), RATE))  # the pipe is still open
        thread.join()
    np.testing.assert_array_equal(block, SAMPLES[: 10 * RATE])


@pytest.mark.parametrize("content", [b"\x00\x40", b"\x00\x40" * 2, b"\x00\x40" * 5000])
def test_half_a_sample_at_the_end(content: bytes) -> None:
    said: list[str] = []
    source = RawPcm(io.BytesIO(content + b"\x01"), RATE)
    samples = np.concatenate(list(audio_blocks(source, RATE, say=said.append)))
    np.testing.assert_array_equal(samples, [0.5] * (len(content) // 2))
    assert said == ["half a sample at its end is left out: expected 16-bit samples"]


def test_what_is_no_raw_sound() -> None:
    for content, message in (
        (b"", "<standard input>: expected audio, got no samples"),
        (b"\x01", "got no samples"),
        (STRETCHES["wav"], "expected raw 16-bit samples, got an audio file; leave out the rate"),
    ):
        with pytest.raises(AudioError, match=message):
            list(audio_blocks(RawPcm(io.BytesIO(content), RATE), RATE))
    with pytest.raises(AudioError, match="expected channel 1 of raw samples, got 2"):
        list(audio_blocks(RawPcm(io.BytesIO(bytes(50)), RATE), RATE, channel=2))
    with pytest.raises(AudioError, match="expected a rate of 1000 to 1000000 Hz, got 16"):
        RawPcm(io.BytesIO(), 16)
    assert channel_count(RawPcm(io.BytesIO(), RATE)) == 1


def test_a_full_disk_for_temporary_files_is_named() -> None:
    class Full(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught, spooled(Full()):  # type: ignore[arg-type]
        pytest.fail("nothing is read")
    assert str(caught.value.filename).endswith("standard-input")


def test_what_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(STRETCHES["wav"])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match="can be read, got no permission to read it"):
        load_audio(path, 16000)
