"""Noise, and a development set in other surroundings, made from recordings of tones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.load import load_audio
from asr.dataset.manifest import Utterance, read_manifest
from asr.experiments import surroundings
from asr.inference.transcribe import trained_model
from asr.models.bundle import load_bundle
from tests.recordings import tone


@pytest.fixture
def speech(tmp_path: Path) -> list[Utterance]:
    made = []
    for i, text in enumerate(["YES", "SIX TEN"]):
        path = tmp_path / f"an{i}-ann-b.wav"
        soundfile.write(path, np.pad(tone(1.0, 16000), 8000), 16000)
        made.append(Utterance(path.stem, path, text, 2.0, "ann"))
    return made


def test_the_noises_and_dev_are_the_same_each_time(
    tmp_path: Path, speech: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "SECONDS", 4)
    aligner = load_bundle(trained_model())
    for out in (tmp_path / "a", tmp_path / "b"):
        surroundings.write_noise(out / "noise", speech, 1)
        surroundings.write_dev(out / "dev", speech, out / "noise", aligner, 1)
    noises = sorted((tmp_path / "a" / "noise").glob("*.wav"))
    assert len(noises) == 10
    for path in noises:
        noise = load_audio(path, 16000)
        assert len(noise) == 4 * 16000
        assert np.abs(noise).max() == pytest.approx(surroundings.PEAK, abs=1e-3)
    files = list((tmp_path / "a").rglob("*.wav"))
    assert len(files) == 10 + 5  # two recordings far away, and three words
    for path in files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    dev = list(read_manifest(tmp_path / "a" / "dev" / "dev.jsonl"))
    assert [(u.text, u.extra["surroundings"]) for u in dev] == [
        ("YES", "recorded"),
        ("YES", "far"),
        ("yes", "word"),
        ("SIX TEN", "recorded"),
        ("SIX TEN", "far"),
        ("six", "word"),
        ("ten", "word"),
    ]
    assert dev[0].audio == speech[0].audio
    assert len({u.id for u in dev}) == 7
    assert {u.speaker for u in dev} == {"ann"}
    assert all(u.duration == pytest.approx(2.0) for u in dev if u.extra["surroundings"] == "far")
    assert all(0 < u.duration < 2.0 for u in dev if u.extra["surroundings"] == "word")


def test_colours_fall_by_octaves() -> None:
    random = np.random.default_rng(0)
    for slope in (0, 6):
        power = np.abs(np.fft.rfft(surroundings._coloured(slope, random))) ** 2
        hertz = np.fft.rfftfreq(surroundings.SECONDS * surroundings.RATE, 1 / surroundings.RATE)
        low, high = (power[(hertz > f) & (hertz < 1.2 * f)].mean() for f in (500, 4000))
        assert 10 * np.log10(low / high) == pytest.approx(3 * slope, abs=0.7)
