"""Truncated, damaged and random bytes: audio or one line that says why not, never a crash."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import audio_duration, load_audio
from asr.errors import AudioError
from tests.recordings import FORMATS, STRETCHES


def test_truncated_pcm_gives_what_is_there() -> None:
    for whole in (STRETCHES["wav"], STRETCHES["sphere"]):
        half = load_audio(whole[: len(whole) // 2])
        assert abs(len(half) - 24000) < 1024
        assert np.array_equal(half, load_audio(whole)[: len(half)])


def test_compressed_audio_with_a_hole_is_an_error() -> None:
    for name in ("flac", "opus", "mp3", "m4a"):
        whole = STRETCHES[name]
        third = len(whole) // 3
        with pytest.raises(AudioError, match=r"^<\d+ bytes>: expected"):
            load_audio(whole[:third] + b"\xa5" * third + whole[2 * third :])
    with pytest.raises(AudioError, match="lost sync"):
        load_audio(STRETCHES["flac"][: len(STRETCHES["flac"]) // 2])


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_of_unknown_size_as_written_to_a_pipe(size: int) -> None:
    wav = bytearray(STRETCHES["wav"])
    at = wav.index(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", size)
    if size:
        assert len(load_audio(bytes(wav))) == 48000
    else:
        with pytest.raises(AudioError, match="no samples"):
            load_audio(bytes(wav))


def test_flac_of_unknown_length(tmp_path: Path) -> None:
    flac = bytearray(STRETCHES["flac"])
    flac[21] &= 0xF0  # STREAMINFO: the low 36 bits of bytes 18 to 25 count the samples
    flac[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(flac)
    assert np.array_equal(load_audio(bytes(flac)), load_audio(STRETCHES["flac"]))
    assert audio_duration(tmp_path / "a.flac") == 3.0


def audio_or_error(content: bytes) -> str | None:
    """The message where the content is no audio; anything but audio or a message is a failure."""
    try:
        samples = load_audio(content)
    except AudioError as error:
        return str(error)
    assert samples.dtype == np.float32
    assert len(samples)
    assert np.abs(samples).max() <= 1  # false for NaN
    return None


def test_damage_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    refused = 0
    for content in list(FORMATS.values()) * 3:
        damaged = bytearray(content)
        for position in random.integers(0, len(damaged), 20):
            damaged[position] = random.integers(256)
        refused += audio_or_error(bytes(damaged[: random.integers(len(damaged))])) is not None
    assert refused > len(FORMATS)
    assert capfd.readouterr() == ("", "")


MAGIC = [b"", b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"OggS", b"NIST_1A\n   1024\n", b"\xff\xfb", b"ID3"]
MAGIC += [b"\0\0\0\x18ftypmp42", b"\x1a\x45\xdf\xa3", b"\xff\xf1"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=400))
def test_random_bytes_are_audio_or_an_error(magic: bytes, content: bytes) -> None:
    assert "\n" not in (audio_or_error(magic + content) or "")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_damaged_files_are_audio_or_an_error(name: str, data: st.DataObject) -> None:
    content = bytearray(FORMATS[name])
    reach = data.draw(st.sampled_from([100, 1000, len(content)]))  # headers break best
    position = st.integers(0, min(reach, len(content)) - 1)
    for start, patch in data.draw(st.lists(st.tuples(position, st.binary(max_size=8)), max_size=4)):
        content[start : start + data.draw(st.sampled_from([0, len(patch), 5]))] = patch
    message = audio_or_error(bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert "\n" not in (message or "")
