"""Speech detectors: found where it is, at any rate, level and block size."""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import soxr

import asr.audio.vad as vad
from asr.audio.speech_regions import Region, RegionFinder
from asr.audio.vad import KINDS, RATE, SpeechDetector, best_kind, speech_detector
from asr.demo.synthesis import synthesise
from asr.errors import AudioError, ConfigError

ROOT = Path(__file__).resolve().parents[2]
SPOKEN = ((2.0, "call seven nine three"), (9.0, "turn the kitchen lights off please"))  # seconds
NOISE = 10 ** (-55 / 20)


@lru_cache(1)
def recording() -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Fourteen seconds with two sentences in faint noise, and where they are. Shape: [S]."""
    samples = np.random.default_rng(1).normal(0, NOISE, 14 * RATE).astype(np.float32)
    spans = []
    for second, text in SPOKEN:
        speech = synthesise(text, "en-us")
        speech *= 0.05 / speech.std()
        samples[round(second * RATE) :][: len(speech)] += speech
        spans.append((second, second + len(speech) / RATE))
    return samples, spans


def probabilities(detector: SpeechDetector, samples: np.ndarray, pieces: int = 1) -> np.ndarray:
    parts = [detector.push(part) for part in np.array_split(samples, pieces)]
    return np.concatenate([*parts, detector.finish()])


def regions(detector: SpeechDetector, samples: np.ndarray) -> list[Region]:
    finder = RegionFinder(detector.window_s)
    return finder.push(probabilities(detector, samples)) + finder.finish()


def seconds_of(found: list[Region]) -> float:
    return sum(region.end - region.start for region in found)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("kind", KINDS)
def test_speech_is_found_where_it_is(kind: str, rate: int) -> None:
    samples, spans = recording()
    samples = soxr.resample(samples, RATE, rate)
    detector = speech_detector(rate, kind)
    found = regions(detector, samples)
    for start, end in spans:
        within = [r for r in found if r.end > start and r.start < end]
        assert abs(within[0].start - start) < 0.4
        assert abs(within[-1].end - end) < 0.4
    assert all(any(r.end > s - 0.3 and r.start < e + 0.3 for s, e in spans) for r in found)
    windows = len(probabilities(detector, samples))
    assert windows == -(-len(samples) * RATE // rate // round(detector.window_s * RATE))


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_any_size_give_the_same(kind: str) -> None:
    samples, _ = recording()
    detector = speech_detector(RATE, kind)
    whole = probabilities(detector, samples)
    for pieces in (7, 1000):
        np.testing.assert_allclose(probabilities(detector, samples, pieces), whole, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_in_silence_and_steady_noise(kind: str) -> None:
    random = np.random.default_rng(3)
    detector = speech_detector(RATE, kind)
    assert not regions(detector, np.zeros(30 * RATE, np.float32))
    for level in (-70, -40, -20):
        noise = random.normal(0, 10 ** (level / 20), 30 * RATE).astype(np.float32)
        assert seconds_of(regions(detector, noise)) < 0.5


@pytest.mark.parametrize("kind", ["silero", "energy"])
@pytest.mark.parametrize("level", [-40, 20])
def test_the_level_hardly_matters(kind: str, level: int) -> None:
    samples, spans = recording()
    found = regions(speech_detector(RATE, kind), samples * np.float32(10 ** (level / 20)))
    spoken = sum(end - start for start, end in spans)
    assert spoken - 0.3 < seconds_of(found) < spoken + 1.2


def test_the_network_is_left_out_in_pauses_only(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, _ = recording()
    detector = speech_detector(RATE, "silero")
    run, windows = vad._Silero._run, []

    def counted(self: vad._Silero, samples: np.ndarray, gains: np.ndarray) -> np.ndarray:
        windows.append(len(gains))
        return run(self, samples, gains)

    monkeypatch.setattr(vad._Silero, "_run", counted)
    found = regions(detector, samples)
    assert sum(windows) < 0.6 * len(samples) / vad._SILERO_WINDOW
    monkeypatch.setattr(vad, "_STEADY_S", 1e9)
    everywhere = regions(detector, samples)
    assert len(found) == len(everywhere)
    for one, other in zip(found, everywhere, strict=True):
        assert abs(one.start - other.start) + abs(one.end - other.end) < 0.1


def test_the_next_recording_begins_afresh() -> None:
    samples, _ = recording()
    detector = speech_detector(8000, "energy")
    first = probabilities(detector, samples)
    detector.push(samples[:12345])
    detector.reset()
    assert np.array_equal(probabilities(detector, samples), first)
    assert not len(detector.finish())


def test_the_package_of_silero_is_not_imported() -> None:
    program = (
        "import sys, numpy; from asr.audio.vad import speech_detector\n"
        "speech_detector(16000, 'silero').push(numpy.zeros(16000, numpy.float32))\n"
        "print(sorted({'silero_vad', 'torch', 'torchaudio'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "[]\n"
    assert ended.stderr == ""


def test_the_best_kind_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: set[str] = set()
    find = vad.find_spec
    monkeypatch.setattr(vad, "find_spec", lambda name: None if name in missing else find(name))
    assert best_kind() == "silero"
    missing.add("silero_vad")
    assert best_kind() == "webrtc"
    missing.add("webrtcvad")
    assert best_kind() == speech_detector(RATE).name == "energy"
    with pytest.raises(ConfigError, match=r"^expected .* webrtcvad, got none; .*pip install"):
        speech_detector(RATE, "webrtc")


def test_a_missing_package_and_other_kinds_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    vad._silero_session.cache_clear()
    monkeypatch.setattr(vad, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"silero_vad, got none; .*\[vad\]"):
        speech_detector(RATE, "silero")
    with pytest.raises(ConfigError, match="expected a detector silero, webrtc, energy, got 'x'"):
        speech_detector(RATE, "x")
    with pytest.raises(AudioError, match="got 0"):
        speech_detector(0)


def test_a_webrtcvad_that_cannot_be_imported_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "webrtcvad.py").write_text("import pkg_resources_of_an_old_python\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "webrtcvad", raising=False)
    monkeypatch.setattr(vad, "_silero_path", lambda: None)
    assert best_kind() == "energy"
    with pytest.raises(ConfigError, match="pip install webrtcvad-wheels"):
        speech_detector(RATE, "webrtc")
