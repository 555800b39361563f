"""Truncated, damaged and random bytes: audio or one line that says why not, never a crash."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.damage import damage
from asr.audio.headers import with_true_size
from asr.audio.load import audio_duration, load_audio
from asr.errors import AudioError, AudioWarning
from tests.recordings import FORMATS, STRETCHES, chirp, film, with_pyav, with_soundfile


def heard(content: bytes, **stretch: float) -> tuple[np.ndarray, list[str]]:
    """What is read of damaged content, and what is said of it."""
    said: list[str] = []
    return load_audio(content, say=said.append, **stretch), said  # type: ignore[arg-type]


def test_short_pages_of_ogg_are_read_once() -> None:
    class Counted(io.BytesIO):
        count = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.count += len(content)
            return content

    stream = Counted(film("ogg", "libopus", 48000, [(0, 20)], page_duration="20000"))
    assert damage(stream) == ""
    pages = stream.getvalue().count(b"OggS")
    assert pages > 500
    assert stream.count < len(stream.getvalue()) + 300 * pages


def test_compressed_sphere_files_are_not_cut_off() -> None:
    plain = with_soundfile(chirp(1, 16000), 16000, "NIST")
    header = plain[:1024].replace(
        b"sample_coding -s3 pcm", b"sample_coding -s26 pcm,embedded-shorten-v2.00"
    )
    assert header != plain[:1024]
    assert with_true_size(io.BytesIO(header[:1024] + plain[1024:9000]), pytest.fail)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "W64", "AIFF", "AU", "CAF", "NIST"])
def test_truncated_pcm_gives_what_is_there(kind: str) -> None:
    content = with_soundfile(chirp(3, 16000), 16000, kind)
    samples, said = heard(content[: len(content) // 2])
    assert abs(len(samples) - 24000) < 2100
    assert np.array_equal(samples, load_audio(content)[: len(samples)])
    assert len(said) == 1
    assert "cut off" in said[0]


CUT = {
    "flac": STRETCHES["flac"],
    "opus": STRETCHES["opus"],
    "mp3": STRETCHES["mp3"],
    "mp3 of one bit rate": with_pyav(chirp(3, 44100), 44100, "mp3", "libmp3lame", "mono"),
    "aac": with_pyav(chirp(3, 16000), 16000, "adts", "aac", "mono"),
    "ac3": with_pyav(chirp(3, 48000), 48000, "ac3", "ac3", "mono"),
    "eac3": with_pyav(chirp(3, 48000), 48000, "eac3", "eac3", "mono"),
    "mkv": film("matroska", "aac", 16000, [(0, 3)]),
    "webm": film("webm", "libopus", 48000, [(0, 3)], picture=3),
    "fragmented mp4": film("mp4", "aac", 16000, [(0, 3)], movflags="frag_every_frame+empty_moov"),
    "flv": film("flv", "aac", 44100, [(0, 3)]),
    "avi": film("avi", "pcm_s16le", 16000, [(0, 3)]),
}


@pytest.mark.parametrize("name", CUT)
def test_cut_off_files_give_what_can_be_decoded(name: str, tmp_path: Path) -> None:
    content = CUT[name]
    cut = content[: len(content) * 2 // 3 + 3]
    samples, said = heard(cut)
    assert 0.9 * 16000 < len(samples) < 2.6 * 16000
    whole = load_audio(content)
    inner = slice(1000, len(samples) - 2000)
    assert np.abs(samples[inner] - whole[inner]).max() < 1e-3
    assert said
    (tmp_path / "cut").write_bytes(cut)
    with pytest.warns(AudioWarning, match="cut"):
        assert abs(audio_duration(tmp_path / "cut") - len(samples) / 16000) < 1e-3


@pytest.mark.parametrize("end", [6, 20])
def test_a_long_subtitle_is_not_the_end_of_the_sound(end: int) -> None:
    cue = io.BytesIO(f"1\n00:00:00,000 --> 00:00:{end:02},000\nhello\n\n".encode())
    stream = io.BytesIO()
    film_only = io.BytesIO(film("matroska", "aac", 16000, [(0, 6)]))
    sound, text = av.open(film_only, "r"), av.open(cue, "r")
    with av.open(stream, "w", format="matroska") as out:
        tracks = [out.add_stream_from_template(given.streams[0]) for given in (text, sound)]
        for given, track in zip((text, sound), tracks, strict=True):
            for packet in given.demux():
                if packet.size:
                    packet.stream = track
                    out.mux(packet)
    content = stream.getvalue()
    samples, said = heard(content)
    assert len(samples) / 16000 == pytest.approx(6, abs=0.1)
    assert not said
    assert "cut off" in heard(content[: len(content) // 2])[1][0]


HOLES = {
    "flac": STRETCHES["flac"],
    "opus": film("ogg", "libopus", 48000, [(0, 3)], page_duration="200000"),
    "m4a": STRETCHES["m4a"],
}


@pytest.mark.parametrize("name", HOLES)
def test_a_hole_is_silent_and_what_follows_keeps_its_time(name: str) -> None:
    content = HOLES[name]
    whole = load_audio(content)
    damaged = bytearray(content)
    third = len(damaged) // 3
    damaged[third : third + third // 3] = b"\xa5" * (third // 3)
    samples, said = heard(bytes(damaged))
    assert said
    assert len(samples) == len(whole)
    same = np.abs(samples - whole) < 0.02
    assert same.mean() > 0.5
    assert same[-6000:-200].all()
    silent = np.convolve(samples == 0, np.ones(2000), "valid") == 2000
    assert silent.any()
    stretch, _ = heard(bytes(damaged), start=2.5)
    assert np.abs(stretch[500:] - samples[40500:]).max() < 1e-3


def test_flac_keeps_its_length_wherever_it_is_damaged(tmp_path: Path) -> None:
    """FFmpeg drops more than what is damaged, the last frames for one."""
    whole = load_audio(STRETCHES["flac"])
    path = tmp_path / "damaged.flac"
    for share in (0.1, 0.5, 0.9, 0.97):
        damaged = bytearray(STRETCHES["flac"])
        damaged[int(share * len(damaged))] ^= 0x55
        samples, said = heard(bytes(damaged))
        assert len(samples) == len(whole)
        assert (np.abs(samples - whole) < 0.02).mean() > 0.88
        assert said
        path.write_bytes(damaged)
        assert audio_duration(path) == 3.0
        assert len(heard(bytes(damaged), start=0.5, end=2.75)[0]) == 2.25 * 16000


def test_one_bad_packet_costs_that_packet() -> None:
    content = bytearray(film("matroska", "aac", 16000, [(0, 3)]))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    samples, said = heard(bytes(content))
    assert abs(len(samples) / 16000 - 3) < 0.1
    assert np.count_nonzero(np.abs(samples) < 1e-6) < 4096
    assert said


def test_damage_is_a_warning_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    path.write_bytes(STRETCHES["flac"][:-3000])
    with pytest.warns(AudioWarning, match=rf"^{path}: damaged"):
        load_audio(path)


def with_size(content: bytes, kind: str, size: int) -> bytes:
    """The same, with `size` as the stated number of bytes of sound."""
    changed = bytearray(content)
    if kind == "RF64":
        struct.pack_into("<Q", changed, changed.index(b"ds64") + 16, size)
    elif kind == "W64":
        at = changed.index(bytes.fromhex("64617461f3acd311"))
        struct.pack_into("<q", changed, at + 16, size + 24)
    elif kind == "CAF":
        struct.pack_into(">q", changed, changed.index(b"data") + 4, size + 4)
    elif kind == "AU":
        struct.pack_into(">I", changed, 8, size)
    elif kind == "AIFF":
        struct.pack_into(">I", changed, changed.index(b"SSND") + 4, size + 8)
    else:
        struct.pack_into("<I", changed, changed.index(b"data") + 4, size)
    return bytes(changed)


@pytest.mark.parametrize("size", [0, 1000, 20000])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF"])
def test_a_size_that_is_too_small_where_nothing_follows(
    kind: str, size: int, tmp_path: Path
) -> None:
    whole = with_soundfile(chirp(3, 16000), 16000, kind)
    content = with_size(whole, kind, size)
    samples, said = heard(content)
    assert np.array_equal(samples, load_audio(whole))
    assert bool(said) == bool(size)
    (tmp_path / "a").write_bytes(content)
    assert audio_duration(tmp_path / "a", say=print) == 3.0
    part, _ = heard(content, start=2.0, end=2.5)
    assert np.array_equal(part, samples[32000:40000])


@pytest.mark.parametrize("subtype", ["ULAW", "IMA_ADPCM", "FLOAT", "PCM_U8"])
def test_a_size_that_is_too_small_in_any_coding(subtype: str) -> None:
    whole = with_soundfile(chirp(3, 16000), 16000, "WAV", subtype)
    samples, _ = heard(with_size(whole, "WAV", 1000))
    assert np.array_equal(samples, load_audio(whole))


def test_what_follows_the_sound_is_no_sound() -> None:
    wav = STRETCHES["wav"]
    chunk = b"LIST" + struct.pack("<I", 8) + b"INFOICMT"
    for tail in (chunk, chunk + b"id3 " + struct.pack("<I", 3) + b"abc", b"TAG" + b"x" * 125):
        samples, said = heard(wav + tail)
        assert np.array_equal(samples, load_audio(wav))
        assert not said
    empty = with_soundfile(np.zeros(0), 16000, "WAV")
    with pytest.raises(AudioError, match="no samples"):
        load_audio(empty + chunk)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_of_unknown_size_as_written_to_a_pipe(size: int) -> None:
    samples, said = heard(with_size(STRETCHES["wav"], "WAV", size))
    assert len(samples) == 48000
    assert not said


def test_more_than_4_gib_in_one_wav(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    sound, second = (1 << 32) + 64000, 48000 * 2 * 2
    header = bytearray(with_soundfile(np.zeros((2, 2)), 48000, "WAV")[:44])
    struct.pack_into("<I", header, 40, sound % (1 << 32))
    with path.open("wb") as file:  # most of it takes no room
        file.write(header)
        file.seek(44 + sound - second)
        file.write(np.full(second // 2, 16384, "<i2").tobytes())
    seconds = audio_duration(path, say=print)
    assert abs(seconds - sound / second) < 1e-3
    samples, said = heard_in_file(path, seconds - 1)
    assert said
    assert np.abs(samples[1000:-1000] - 0.5).max() < 0.01


def heard_in_file(path: Path, start: float) -> tuple[np.ndarray, list[str]]:
    said: list[str] = []
    return load_audio(path, start=start, say=said.append), said


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
        samples = load_audio(content, say=lambda _: None)
    except AudioError as error:
        return str(error)
    assert samples.dtype == np.float32
    assert len(samples)
    # Of a decoder that overshoots no more than full scale by 18 dB is kept, and resampling adds a
    # little. False for NaN.
    assert np.abs(samples).max() <= 10
    return None


def test_damage_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    refused = 0
    for content in list(FORMATS.values()) * 3:
        damaged = bytearray(content)
        for position in random.integers(0, len(damaged), 20):
            damaged[position] = random.integers(256)
        refused += audio_or_error(bytes(damaged[: random.integers(len(damaged))])) is not None
    assert refused
    assert capfd.readouterr() == ("", "")


MAGIC = [b"", b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"OggS", b"NIST_1A\n   1024\n", b"\xff\xfb", b"ID3"]
MAGIC += [b"\0\0\0\x18ftypmp42", b"\x1a\x45\xdf\xa3", b"\xff\xf1"]


@settings(max_examples=100)
@given(st.sampled_from(MAGIC), st.binary(max_size=400))
def test_random_bytes_are_audio_or_an_error(magic: bytes, content: bytes) -> None:
    assert "\n" not in (audio_or_error(magic + content) or "")


@settings(max_examples=150)
@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_damaged_files_are_audio_or_an_error(name: str, data: st.DataObject) -> None:
    content = bytearray(FORMATS[name])
    reach = data.draw(st.sampled_from([100, 1000, len(content)]))  # headers break best
    position = st.integers(0, min(reach, len(content)) - 1)
    for start, patch in data.draw(st.lists(st.tuples(position, st.binary(max_size=8)), max_size=4)):
        content[start : start + data.draw(st.sampled_from([0, len(patch), 5]))] = patch
    message = audio_or_error(bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert "\n" not in (message or "")
