from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from asr.audio.channels import channel_weights, inverted
from asr.audio.load import load_audio
from tests.recordings import with_soundfile

RATE = 16000


def bursts(seconds: float, seed: int) -> np.ndarray:
    """Noise that comes and goes, with a pause at its beginning. Shape: [S]."""
    samples = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    time = np.arange(len(samples)) / RATE
    return (0.1 * samples * np.sin(2 * time) ** 2 * (time > 0.2)).astype(np.float32)


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


SPEECH = bursts(3.0, 1)
NOTHING = np.zeros_like(SPEECH)
HISS = 1e-4 * np.random.default_rng(2).standard_normal(len(SPEECH)).astype(np.float32)


def matroska(*tracks: np.ndarray, codec: str = "pcm_s16le") -> bytes:
    """Each track [C, S] in one file. The first is the default one."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as file:
        for samples in tracks:
            layout = {1: "mono", 2: "stereo", 8: "7.1"}[len(samples)]
            file.add_stream(codec, rate=RATE, layout=layout)
        for track, samples in zip(file.streams.audio, tracks, strict=True):
            pcm = np.ascontiguousarray((samples.T * 32767).astype(np.int16)).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout=track.layout.name)
            frame.sample_rate, frame.pts = RATE, 0
            file.mux(track.encode(frame))
            file.mux(track.encode(None))
    return stream.getvalue()


def encoded(kind: str, channels: list[np.ndarray]) -> bytes:
    samples = np.stack(channels)
    if kind == "matroska":
        return matroska(samples)
    return with_soundfile(samples.T, RATE, kind)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "matroska"])
@pytest.mark.parametrize("quiet", [NOTHING, HISS], ids=["silent", "hiss"])
@pytest.mark.parametrize("place", [0, 5])
def test_speech_in_one_of_eight_channels_keeps_its_level(
    kind: str, quiet: np.ndarray, place: int
) -> None:
    channels = [quiet] * 8
    channels[place] = SPEECH
    loaded = load_audio(encoded(kind, channels))
    assert np.abs(loaded - SPEECH).max() < 0.01
    assert level(loaded) == pytest.approx(level(SPEECH), rel=0.02)


@pytest.mark.filterwarnings("ignore::asr.errors.AudioWarning")
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "matroska"])
@pytest.mark.parametrize("share", [1.0, 0.5, -1.0])
def test_an_inverted_channel_does_not_cancel_speech(kind: str, share: float) -> None:
    channels = [SPEECH, -share * SPEECH + HISS]
    loaded = load_audio(encoded(kind, channels))
    assert level(loaded) == pytest.approx((1 + abs(share)) / 2 * level(SPEECH), rel=0.02)


@pytest.mark.filterwarnings("ignore::asr.errors.AudioWarning")
@pytest.mark.parametrize("kind", ["WAV", "matroska"])
def test_a_stretch_is_mixed_as_the_whole(kind: str) -> None:
    # What is inverted, silent or of one speaker alone in the stretch does not matter.
    first, second = SPEECH.copy(), -SPEECH
    first[RATE:] *= -1
    second[: RATE // 2] = 0
    content = encoded(kind, [first, second, *[NOTHING] * 6])
    whole = load_audio(content)
    for start, end in [(0.0, 0.5), (0.25, 1.5), (1.0, 3.0)]:
        part = load_audio(content, start=start, end=end)
        np.testing.assert_array_equal(part, whole[int(start * RATE) : int(end * RATE)])


def test_inverted_channels_are_told() -> None:
    told: list[str] = []
    load_audio(encoded("WAV", [SPEECH, -SPEECH]), say=told.append)
    load_audio(encoded("matroska", [SPEECH, -SPEECH]), say=told.append)
    load_audio(encoded("WAV", [SPEECH, SPEECH]), say=told.append)
    assert told == ["channel 2 is inverted; this is corrected"] * 2
    assert inverted(np.array([1.0, -1.0, -1.0])) == "channels 2, 3 are inverted; this is corrected"


def test_two_speakers_and_two_microphones_are_a_mean() -> None:
    other = bursts(3.0, 7)
    for second in (other, SPEECH, 0.3 * SPEECH + 0.3 * other, -0.3 * SPEECH + other):
        loaded = load_audio(with_soundfile(np.stack([SPEECH, second], 1), RATE, "WAV", "FLOAT"))
        np.testing.assert_array_equal(loaded, (SPEECH + second) / 2)


def test_a_constant_offset_says_nothing_of_a_channel() -> None:
    loud_offset = [SPEECH + 0.5, 0.7 - SPEECH]
    assert channel_weights([np.stack(loud_offset)]).tolist() == [0.5, -0.5]


def test_what_is_no_sound_has_even_weights() -> None:
    for piece in (np.zeros((4, 10)), np.full((4, 10), np.nan), np.full((4, 10), np.inf)):
        with np.errstate(all="ignore"):
            assert channel_weights([piece]).tolist() == [0.25] * 4
    assert len(channel_weights([])) == 0


def test_no_more_than_some_seconds_of_a_long_recording_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Speech for three seconds in two minutes, at their end.
    long = np.zeros((120 * RATE, 2), np.float32)
    long[-len(SPEECH) :, 0], long[-len(SPEECH) :, 1] = SPEECH, -SPEECH
    soundfile.write(tmp_path / "long.wav", long, RATE)
    told: list[str] = []
    loaded = load_audio(tmp_path / "long.wav", start=117.0, say=told.append)
    assert level(loaded) == pytest.approx(level(SPEECH), rel=0.02)
    assert told


@pytest.mark.parametrize("silent", [0.0, 1e-5])
def test_the_track_with_sound_is_read_where_the_first_is_silent(silent: float) -> None:
    told: list[str] = []
    quiet = np.full((1, len(SPEECH)), silent, np.float32)
    loaded = load_audio(matroska(quiet, SPEECH[None]), say=told.append)
    assert np.abs(loaded - SPEECH).max() < 0.01
    assert told == ["2 audio tracks: track 1 is silent, track 2 is read"]


def test_of_several_tracks_with_sound_the_first_is_read_and_others_are_told() -> None:
    told: list[str] = []
    loaded = load_audio(matroska(SPEECH[None], bursts(3.0, 7)[None]), say=told.append)
    assert np.abs(loaded - SPEECH).max() < 0.01
    assert told == ["2 audio tracks: track 1 is read"]
    np.testing.assert_array_equal(loaded, load_audio(matroska(SPEECH[None]), say=told.append))
    assert len(told) == 1


def test_eight_channels_on_planes_of_their_own() -> None:
    """In a process of its own, since PyAV's own conversion ends it."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="matroska") as file:
        track = file.add_stream("aac", rate=RATE, layout="7.1")
        pcm = np.repeat((SPEECH * 32767).astype(np.int16), 8)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="7.1")
        frame.sample_rate, frame.pts = RATE, 0
        resampler = av.AudioResampler("fltp", "7.1", RATE)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(track.encode(part))
        file.mux(track.encode(None))
    made = stream.getvalue()
    program = (
        "import sys; from asr.audio.load import load_audio; "
        f"print(len(load_audio(sys.stdin.buffer.read(), {RATE})))"
    )
    ended = subprocess.run([sys.executable, "-c", program], input=made, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert abs(int(ended.stdout) - len(SPEECH)) < 0.1 * RATE


def test_a_longer_track_beside_the_read_one_is_no_damage(
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert len(load_audio(matroska(SPEECH[None, :RATE], SPEECH[None]), RATE)) >= RATE
    assert not [str(one.message) for one in recwarn if "cut off" in str(one.message)]
