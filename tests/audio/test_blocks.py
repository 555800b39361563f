"""Recordings in blocks, and selected channels.

Covers `asr/audio/recordings.py`, `asr/audio/resample.py`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from asr.audio.blocks import BLOCK_SECONDS, audio_blocks, channel_count
from asr.audio.decode_pyav import pyav_blocks
from asr.audio.load import load_audio
from asr.audio.source import Block, View
from asr.errors import AudioError, AudioWarning
from tests.recordings import FORMATS, STRETCHES, chirp, film, tone, with_pyav, with_soundfile

RATE = 16000
LONG = np.tile(chirp(2.5, RATE), 10)
"""25 s."""


def two_channels(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([left, right], axis=1)


def until_error(content: bytes, **wanted: float) -> tuple[np.ndarray, str]:
    """All samples that come before the error, and the error."""
    got = [np.zeros(0, np.float32)]
    with pytest.raises(AudioError) as caught:
        got += audio_blocks(content, RATE, say=lambda _: None, **wanted)  # type: ignore[arg-type]
    return np.concatenate(got), str(caught.value)


# --- blocks ---


@pytest.mark.parametrize("rate", [16000, 11025])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3"])
def test_blocks_are_the_recording(kind: str, rate: int) -> None:
    content = with_soundfile(LONG, RATE, kind)
    blocks = list(audio_blocks(content, rate))
    assert {len(block) for block in blocks[:-1]} == {round(BLOCK_SECONDS * rate)}
    assert 0 < len(blocks[-1]) <= BLOCK_SECONDS * rate
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), load_audio(content, rate))
    part = np.concatenate(list(audio_blocks(content, rate, start=1.5, end=13.0)))
    np.testing.assert_array_equal(part, load_audio(content, rate, start=1.5, end=13.0))


def test_impossible_requests_fail_at_once() -> None:
    for wanted, message in (
        ({"rate": 10}, "target rate"),
        ({"start": -1.0}, "expected start"),
        ({"start": 2.0, "end": 1.0}, "expected end > start"),
        ({"channel": 0}, "expected a channel from 1 on, got 0"),
    ):
        with pytest.raises(AudioError, match=message):
            audio_blocks(STRETCHES["wav"], **{"rate": RATE, **wanted})  # type: ignore[arg-type]


def test_more_hours_than_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr.audio.load.MOST_HOURS", 0.001)
    content = with_soundfile(LONG, RATE, "WAV")
    with pytest.raises(AudioError, match=r"at most 0\.001 hours"):
        load_audio(content)
    assert sum(map(len, audio_blocks(content, RATE))) == len(LONG)


# --- what fails halfway ---


@pytest.mark.parametrize("bad", [np.nan, np.inf, -9.0])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_sound_before_a_bad_sample(bad: float, rate: int) -> None:
    samples = np.repeat(LONG, rate // RATE)
    samples[rate * 12 + rate // 2] = bad
    content = with_soundfile(samples, rate, "WAV", "FLOAT")
    got, error = until_error(content)
    assert "at 12.50 s: expected samples within [-1, 1], got" in error
    assert len(got) == 12.5 * RATE
    if rate == RATE:
        np.testing.assert_array_equal(got, LONG[: len(got)])
    got, error = until_error(content, start=2.0)
    assert len(got) == 10.5 * RATE
    assert "at 12.50 s" in error
    until = np.concatenate(list(audio_blocks(content, RATE, end=12.25)))
    assert len(until) == 12.25 * RATE


def test_a_disk_that_fails_halfway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a decoder that raises after good sound, in a format without another decoder."""

    def failing(*args: Any) -> Iterator[Block]:
        for block in pyav_blocks(*args):
            if block.first > 2 * block.rate:
                raise OSError(5, "Input/output error")
            yield block

    monkeypatch.setattr("asr.audio.decode_pyav.pyav_blocks", failing)
    got, error = until_error(STRETCHES["mp3"])
    assert 2 * RATE <= len(got) < 2.2 * RATE
    assert f"at {len(got) / RATE:.2f} s: expected decodable audio, got 'Input/output" in error


def test_a_recording_in_a_chain_that_fails_halfway_keeps_its_beginning() -> None:
    bad = tone(3, RATE)
    bad[RATE] = np.nan
    content = with_soundfile(bad, RATE, "AU", "FLOAT") + with_soundfile(chirp(2, RATE), RATE, "AU")
    said: list[str] = []
    samples = load_audio(content, say=said.append)
    assert len(samples) == 3 * RATE
    assert np.abs(samples[RATE:] - chirp(2, RATE)).max() < 1e-4
    assert "recording 1 of 2 in it cannot be decoded from 3.0 s on" in said[0]


# --- decoders that take over ---


def stereo_flac() -> bytes:
    noise = np.random.default_rng(0).standard_normal(len(LONG)).astype("f4") * 0.1
    return with_soundfile(two_channels(LONG, noise), RATE, "FLAC")


@pytest.mark.parametrize("channel", [None, 1, 2])
def test_a_decoder_that_takes_over_neither_repeats_nor_loses_samples(channel: int | None) -> None:
    """One packet is damaged: libsndfile salvages the rest; the end is cut: FFmpeg reads on."""
    content = stereo_flac()
    whole = np.concatenate(list(audio_blocks(content, RATE, channel=channel)))
    flipped = bytearray(content)
    flipped[len(content) * 3 // 4] ^= 0x55
    cut = content[: len(content) * 3 // 4]
    for damaged in (bytes(flipped), cut):
        said: list[str] = []
        got = np.concatenate(list(audio_blocks(damaged, RATE, channel=channel, say=said.append)))
        assert len(said) == 1
        assert said[0].startswith("damaged")
        same = np.abs(got - whole[: len(got)]) < 1e-6
        assert same[: 17 * RATE].all()
        assert same.mean() > 0.97
        assert len(got) == len(whole) if damaged is not cut else len(got) > 18 * RATE
        part = list(audio_blocks(damaged, RATE, 12.0, 24.0, channel=channel, say=said.append))
        np.testing.assert_array_equal(np.concatenate(part), got[12 * RATE : 24 * RATE])


def test_damage_is_said_once_at_the_end_and_when_closed() -> None:
    content = stereo_flac()
    damaged = content[: len(content) * 3 // 4]
    with pytest.warns(AudioWarning, match="damaged") as caught:
        blocks = list(audio_blocks(damaged, RATE))
    assert len(caught) == 1
    said: list[str] = []
    reading = audio_blocks(damaged, RATE, say=said.append)
    for _ in blocks:
        assert not said
        next(reading)
    reading.close()
    assert len(said) == 1


# --- channels ---


@pytest.mark.parametrize(
    ("container", "codec"),
    [("WAV", "FLOAT"), ("FLAC", None), ("matroska", "pcm_s32le"), ("mp4", "alac")],
)
def test_one_channel_alone(container: str, codec: str | None) -> None:
    left, right = chirp(3, RATE), tone(3, RATE) / 2
    samples = two_channels(left, right)
    if container.isupper():
        content = with_soundfile(samples, RATE, container, codec)
    else:
        content = with_pyav(samples, RATE, container, str(codec), "stereo")
    assert channel_count(content) == 2
    for channel, expected in ((1, left), (2, right)):
        got = np.concatenate(list(audio_blocks(content, RATE, channel=channel)))
        assert len(got) == len(expected)
        assert np.abs(got - expected).max() < 1e-4
    with pytest.raises(AudioError, match="expected channel 3, got a recording with 2; choose"):
        list(audio_blocks(content, RATE, channel=3))


def test_the_sign_of_a_selected_channel_stays() -> None:
    content = with_soundfile(two_channels(LONG, -LONG), RATE, "WAV", "FLOAT")
    second = np.concatenate(list(audio_blocks(content, RATE, channel=2)))
    np.testing.assert_array_equal(second, -LONG)


@pytest.mark.parametrize("name", FORMATS)
def test_the_number_of_channels(name: str) -> None:
    assert channel_count(FORMATS[name]) == (2 if "stereo" in name or name == "ogg opus" else 1)


def test_a_chain_with_a_recording_that_lacks_a_channel(tmp_path: Path) -> None:
    mono = with_soundfile(tone(1, RATE), RATE, "WAV")
    both = with_soundfile(two_channels(tone(2, RATE), chirp(2, RATE)), RATE, "WAV", "FLOAT")
    path = tmp_path / "joined.wav"
    path.write_bytes(mono + both)
    assert channel_count(path) == 2
    got = np.concatenate(list(audio_blocks(path, RATE, channel=2)))
    assert not got[:RATE].any()
    np.testing.assert_array_equal(got[RATE:], chirp(2, RATE))


def test_channels_of_what_is_no_recording(tmp_path: Path) -> None:
    for source in (b"", b"words", tmp_path / "missing.wav"):
        with pytest.raises(AudioError, match="expected"):
            channel_count(source)


# --- files are closed, signals are kept ---


def test_no_descriptor_and_no_thread_is_left(tmp_path: Path) -> None:
    paths = []
    for name in ("wav", "mp3", "m4a"):
        path = tmp_path / name
        path.write_bytes(STRETCHES[name])
        paths.append(path)
    (tmp_path / "bad").write_bytes(b"fLaC" + bytes(100))
    for path in paths:  # loads FFmpeg
        list(audio_blocks(path, RATE, say=lambda _: None))
    process = psutil.Process()
    before = process.num_fds()
    threads = process.num_threads()
    for round_ in range(30):
        for path in paths:
            reading = audio_blocks(path, RATE, say=lambda _: None)
            next(reading)
            if round_ % 2:
                reading.close()  # before its end
            else:
                list(reading)
        with pytest.raises(AudioError):
            list(audio_blocks(tmp_path / "bad", RATE))
    assert process.num_fds() <= before + 1
    for _ in range(100):  # threads take a moment to end
        time.sleep(0 if process.num_threads() <= threads + 1 else 0.05)
    assert process.num_threads() <= threads + 1


@pytest.mark.parametrize("name", ["webm", "flac"])
def test_an_interrupt_between_and_within_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = film("webm", "libopus", 48000, [(0, 12)]) if name == "webm" else stereo_flac()
    read, reads, wanted = View.read, 0, 0

    def interrupted(view: View, count: int = -1) -> bytes:
        nonlocal reads
        reads += 1
        if reads == wanted:
            os.kill(os.getpid(), signal.SIGINT)
        return read(view, count)

    monkeypatch.setattr(View, "read", interrupted)
    list(audio_blocks(content, RATE))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for wanted in range(1, reads + 1, max(1, reads // 10)):  # noqa: B007
            reads = 0
            with pytest.raises(KeyboardInterrupt):
                list(audio_blocks(content, RATE))
    finally:
        signal.signal(signal.SIGINT, before)
