"""Covers `asr/audio/decode_soundfile.py`, `asr/audio/decode_pyav.py`, `asr/audio/source.py`,
`asr/audio/files.py`, `asr/audio/samples.py`.
"""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from asr.audio.files import AUDIO_SUFFIXES, find_audio
from asr.audio.load import audio_duration, load_audio, write_wav
from asr.audio.source import View
from asr.errors import AudioError
from tests.recordings import FORMATS, LEVEL, PITCH, STRETCHES, chirp, sphere, tone, with_soundfile


def assert_tone(samples: np.ndarray, rate: int, seconds: float) -> None:
    """Length, frequency and level are those of `tone`; codecs may add some 80 ms at the ends."""
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) / rate - seconds) < 0.09
    middle = samples[rate // 10 : len(samples) - rate // 10].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(spectrum.argmax() * rate / len(middle) - PITCH) < 2 * rate / len(middle)
    assert abs(np.sqrt(2 * np.mean(middle**2)) / LEVEL - 1) < 0.05


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_length_pitch_and_level(name: str, rate: int) -> None:
    assert_tone(load_audio(FORMATS[name], rate), rate, 0.5)


@pytest.mark.parametrize("name", FORMATS)
def test_duration_agrees_with_the_samples(name: str, tmp_path: Path) -> None:
    path = tmp_path / "audio"
    path.write_bytes(FORMATS[name])
    assert abs(audio_duration(path) - len(load_audio(path)) / 16000) < 0.03


@pytest.mark.parametrize("name", ["wav 8 kHz", "flac", "mp3", "m4a aac"])
@pytest.mark.parametrize("suffix", [".raw", ".wav", ".mp4", ""])
def test_content_decides_and_not_the_suffix(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"audio{suffix}"
    path.write_bytes(FORMATS[name])
    assert np.array_equal(load_audio(path), load_audio(FORMATS[name]))


@pytest.mark.parametrize("name", ["flac", "mp3"])
def test_every_kind_of_source_gives_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "audio"
    path.write_bytes(FORMATS[name])
    expected = load_audio(FORMATS[name])
    stream = io.BytesIO(b"before" + FORMATS[name])
    stream.seek(6)
    with path.open("rb") as file:
        for source in (path, str(path), file, stream):
            assert np.array_equal(load_audio(source), expected)


@pytest.mark.parametrize("byte_format", ["01", "10"])
def test_sphere_written_by_hand_is_exact(byte_format: str) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 4000).astype(np.int16)
    loaded = load_audio(sphere(samples, 16000, byte_format))
    assert np.array_equal(loaded, samples.astype(np.float32) / 32768)


def test_channels_are_averaged() -> None:
    samples = np.stack([np.full(100, 0.5), np.full(100, -0.25), np.zeros(100)], axis=1)
    wav = with_soundfile(samples, 16000, "WAV", "FLOAT")
    assert np.allclose(load_audio(wav), 0.25 / 3)


@pytest.mark.parametrize("file_rate", [8000, 11025, 44100, 48000])
def test_resampling_keeps_the_waveform(file_rate: int) -> None:
    wav = with_soundfile(tone(1, file_rate), file_rate, "WAV", "FLOAT")
    inner = slice(1000, 15000)  # the filter rings at the ends
    assert np.abs(load_audio(wav)[inner] - tone(1, 16000)[inner]).max() < 1e-3


def test_resampling_removes_what_would_alias() -> None:
    high = np.sin(2 * np.pi * 7000 * np.arange(16000) / 16000)  # above half of 8000 Hz
    loaded = load_audio(with_soundfile(high, 16000, "WAV", "FLOAT"), 8000)
    assert np.abs(loaded[500:-500]).max() < 1e-3


@pytest.mark.parametrize("name", STRETCHES)
def test_a_stretch_is_what_the_whole_has_there(name: str) -> None:
    whole = load_audio(STRETCHES[name])
    for start, end in ((0.0, 0.5), (0.0, None), (1.25, 2.0), (2.5, None), (2.5, 60.0)):
        part = load_audio(STRETCHES[name], start=start, end=end)
        stop = None if end is None else round(end * 16000)
        assert np.abs(part - whole[round(start * 16000) : stop]).max() < 1e-6


def test_a_stretch_at_another_rate() -> None:
    wav = with_soundfile(chirp(3, 44100), 44100, "WAV")
    part = load_audio(wav, start=1.0, end=1.5)
    assert len(part) == 8000
    assert np.abs(part[500:-500] - load_audio(wav)[16500:23500]).max() < 1e-3


@pytest.mark.parametrize("name", STRETCHES)
def test_a_stretch_past_the_end_is_an_error(name: str) -> None:
    for start in (4.0, 1e300):
        with pytest.raises(AudioError, match="no samples from"):
            load_audio(STRETCHES[name], start=start)


@pytest.mark.parametrize(
    ("start", "end"),
    [(-1.0, None), (float("nan"), None), (float("inf"), None), (1.0, 1.0), (0.0, float("nan"))],
)
def test_impossible_stretches(start: float, end: float | None) -> None:
    with pytest.raises(AudioError, match=r"expected (start|end) >"):
        load_audio(STRETCHES["wav"], start=start, end=end)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 32768.0])
def test_samples_that_are_no_sound(bad: float) -> None:
    samples = tone(0.1, 16000)
    samples[50] = bad
    with pytest.raises(AudioError, match=r"expected samples within \[-1, 1\]"):
        load_audio(with_soundfile(samples, 16000, "WAV", "FLOAT"))


def test_samples_above_full_scale_are_kept() -> None:
    samples = 3 * tone(0.1, 16000)
    loaded = load_audio(with_soundfile(samples, 16000, "WAV", "FLOAT"))
    np.testing.assert_array_equal(loaded, samples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (with_soundfile(np.zeros(0), 16000, "WAV"), "no samples"),
        (with_soundfile(np.zeros(0), 16000, "NIST"), "no samples"),
        (with_soundfile(np.zeros(1), 48000, "WAV")[:-2], "no samples"),
        (b"These are not sounds but words.\n" * 50, "from the decoder"),
        (bytes(5000), "from the decoder"),
        (b"RIFF", "from the decoder"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.wav\n", "from the decoder"),
        (b"ffconcat version 1.0\nfile a.wav\n", "from the decoder"),
    ],
    ids=["empty", "wav0", "sphere0", "sample", "text", "zeros", "magic", "playlist", "concat"],
)
def test_files_without_sound_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(0.1, 16000), 16000)
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    for read in (load_audio, audio_duration):
        with pytest.raises(AudioError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: expected ")
        assert "\n" not in str(caught.value)


def test_a_video_without_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "silent.mp4"), "w") as out:
        track = out.add_stream("mpeg4", rate=5, width=16, height=16, pix_fmt="yuv420p")
        out.mux(track.encode(av.VideoFrame(16, 16, "yuv420p")))
        out.mux(track.encode(None))
    with pytest.raises(AudioError, match="audio track, got none"):
        load_audio(tmp_path / "silent.mp4")


def test_paths_to_nothing(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.wav", tmp_path, "a\0b.wav", "a" * 5000, "two\nlines.wav"):
        with pytest.raises(AudioError, match="expected") as caught:
            load_audio(path)
        assert "\n" not in str(caught.value)


def test_streams_that_fail_or_are_text() -> None:
    for stream in (io.StringIO("words"), open(__file__, encoding="utf-8")):  # noqa: PTH123, SIM115
        with stream, pytest.raises(AudioError, match="expected"):
            load_audio(stream)  # type: ignore[arg-type]


def test_write_wav_keeps_16_bit_samples(tmp_path: Path) -> None:
    pcm = np.arange(-32768, 32768)
    write_wav(tmp_path / "new" / "a.wav", pcm / 32768, 8000)
    assert soundfile.info(tmp_path / "new" / "a.wav").subtype == "PCM_16"
    assert np.array_equal(load_audio(tmp_path / "new" / "a.wav", 8000) * 32768, pcm)


def test_write_wav_clips(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([2.0, -2.0], np.float32), 16000)
    assert load_audio(tmp_path / "a.wav").tolist() == [32767 / 32768, -1.0]


@pytest.mark.parametrize("bad", [np.array([np.nan]), np.zeros((5, 2)), np.zeros(5, np.int16)])
def test_write_wav_refuses(bad: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="expected finite floating-point samples"):
        write_wav(tmp_path / "a.wav", bad, 16000)
    assert not list(tmp_path.iterdir())


def test_write_wav_to_an_impossible_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AudioError, match="expected a writable path"):
        write_wav(tmp_path / "file" / "a.wav", np.zeros(5), 16000)


def test_find_audio(tmp_path: Path) -> None:
    for name in ("b/2.WAV", "b/1.flac", "b/notes.txt", "a/deep/3.m4a", "odd.dat"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "folder.wav").mkdir()
    found = find_audio([tmp_path / "odd.dat", tmp_path, str(tmp_path / "b")])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["odd.dat", "a/deep/3.m4a", "b/1.flac", "b/2.WAV"]
    for missing in (tmp_path / "missing", "a" * 5000, "a\0b"):
        with pytest.raises(AudioError, match="expected a recording or a folder"):
            find_audio([missing])


def test_suffixes_are_lower_case_with_a_dot() -> None:
    assert all(s.startswith(".") and s == s.lower() for s in AUDIO_SUFFIXES)


def test_real_sphere_files(shared_data: Path) -> None:
    paths = find_audio([shared_data / "an4" / "wav" / "an4test_clstk" / "fcaw"])
    assert paths
    for path in paths:
        count = int(path.read_bytes().split(b"sample_count -i ")[1].split()[0])
        pcm = np.frombuffer(path.read_bytes()[1024:], "<i2")
        samples = load_audio(path)
        assert len(samples) == count == round(audio_duration(path) * 16000)
        assert np.array_equal(samples * 32768, pcm)


def test_real_telephone_wav(shared_data: Path) -> None:
    path = find_audio([shared_data / "waves_yesno"])[0]
    assert soundfile.info(path).samplerate == 8000
    samples = load_audio(path)
    assert abs(len(samples) / 16000 - audio_duration(path)) < 1e-3
    assert 0.01 < np.abs(samples).max() <= 1
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    assert spectrum[len(spectrum) // 2 + len(spectrum) // 40 :].sum() < 1e-4 * spectrum.sum()


@pytest.mark.parametrize("name", ["webm opus", "flac"])
def test_an_interrupt_while_a_decoder_reads_is_not_lost(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads, wanted = View.read, 0, 0

    def interrupted(view: View, count: int = -1) -> bytes:
        nonlocal reads
        reads += 1
        if reads == wanted:
            os.kill(os.getpid(), signal.SIGINT)
        return read(view, count)

    monkeypatch.setattr(View, "read", interrupted)
    load_audio(FORMATS[name])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for wanted in range(1, reads + 1):  # noqa: B007 - `interrupted` looks at it
            reads = 0
            with pytest.raises(KeyboardInterrupt):
                load_audio(FORMATS[name])
    finally:
        signal.signal(signal.SIGINT, before)
