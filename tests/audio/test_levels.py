"""Covers `asr/audio/pcm.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.levels import level_problems
from asr.audio.pcm import to_pcm
from asr.dataset.cuts import Item, whole
from asr.dataset.manifest import Utterance, read_manifest
from asr.dataset.shards import load_recording, pack
from asr.dataset.speech_dataset import SpeechDataset
from asr.dataset.validate import check_manifests
from asr.dataset.validate_text import render
from asr.text.normalise import TextConfig

RATE = 16000


def speech(seconds: float = 1.0) -> np.ndarray:
    """Noise of varying loudness with a peak of 0.5. Shape: [S]."""
    samples = np.random.default_rng(5).standard_normal(int(seconds * RATE)).cumsum()
    samples = np.diff(samples - np.convolve(samples, np.ones(160) / 160, "same"), prepend=0)
    samples *= np.sin(np.arange(len(samples)) / 1500)
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


@pytest.mark.parametrize("gain", [1.0, 3.0, 12.0, 0.05, 1e-2, 1e-4, 1e-8, 2.0**-40])
def test_no_level_loses_bits(gain: float) -> None:
    samples = (speech() * gain).astype(np.float32)
    kept = to_pcm(samples).samples
    assert np.abs(kept - samples).max() <= np.abs(samples).max() / 1000


def test_sixteen_bits_are_kept_as_they_are() -> None:
    for peak in (32768, 20000, 700, 3, 0):
        steps = np.array([0, -peak, peak - 1, 1, 2][: 5 if peak else 2], np.int16)
        np.testing.assert_array_equal(to_pcm(steps / 32768).samples, steps / 32768)


@pytest.mark.parametrize("gain", [3.0, 1.0, 1e-2, 1e-5])
def test_a_dataset_keeps_quiet_and_loud_recordings(gain: float, tmp_path: Path) -> None:
    samples = speech() * np.float32(gain)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", speech(), RATE, subtype="FLOAT")
    utterances = [Utterance(n, tmp_path / f"{n}.wav", "yes", 1.0, "s") for n in "ab"]
    data = SpeechDataset(utterances, None, TextConfig(), RATE)
    alone, joined = data.batch([whole(0), whole(0, 1)]).waves.unpad()
    assert np.abs(alone.numpy() - samples).max() <= gain / 2000
    assert np.abs(joined.numpy()[:RATE] - samples).max() <= gain / 2000
    assert np.abs(joined.numpy()[RATE:] - speech()).max() <= 1 / 2000
    coded = data.batch([Item(whole(0).stretches, codec="vorbis")]).waves.values[0].numpy()
    assert np.std(coded) == pytest.approx(np.std(samples), rel=0.3)


@pytest.mark.parametrize("gain", [12.0, 3.0, 1.0, 1e-2, 1e-4, 1e-8])
def test_shards_hold_the_samples_of_a_dataset(gain: float, tmp_path: Path) -> None:
    samples = speech() * np.float32(gain)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    row = {"id": "a", "audio": "a.wav", "text": "yes", "duration": 1.0}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    pack([tmp_path / "m.jsonl"], tmp_path / "shards")
    (u,) = read_manifest(tmp_path / "shards" / "m.jsonl")
    packed = load_recording(u.audio, RATE, u.start, u.end, u.packed)
    np.testing.assert_array_equal(packed, to_pcm(samples).samples)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (speech(), []),
        (0.019 * speech(), [("quiet audio", "peak -40 dB of full scale")]),
        (1e-3 * speech(), [("quiet audio", "peak -66 dB of full scale")]),
        (1e-4 * speech(), [("silent audio", "peak 5.0e-05")]),
        (6 * speech(), []),
        (np.sin(np.arange(16000) / 5), []),
    ],
)
def test_the_level_is_named(samples: np.ndarray, expected: list[tuple[str, str]]) -> None:
    assert level_problems(samples) == expected


@pytest.mark.parametrize("limit", [1.0, 0.25])
def test_clipped_recordings_are_named(limit: float) -> None:
    time = np.arange(RATE) / RATE
    loud = np.sin(2 * np.pi * 300 * time) * np.sin(2 * np.pi * 4 * time)
    assert level_problems(limit * loud) == []
    ((kind, detail),) = level_problems(np.clip(4 * limit * loud, -limit, limit))
    assert kind == "clipped audio"
    assert detail.endswith(f"peaks cut off at {20 * np.log10(limit):.0f} dB of full scale")


def test_check_notes_the_level_with_id_and_figure(tmp_path: Path) -> None:
    time = np.arange(RATE) / RATE
    loud = np.clip(4 * np.sin(1900 * time) * np.sin(20 * time), -1, 1)
    rows = []
    for name, samples in (("quiet", 0.01 * speech()), ("loud", loud), ("good", speech())):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
        rows.append({"id": name, "audio": f"{name}.wav", "text": "yes", "duration": 1.0})
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    report = check_manifests([manifest])
    assert report.problems == ()
    assert [(n.kind, n.id) for n in report.notes] == [
        ("quiet audio", "quiet"),
        ("clipped audio", "loud"),
    ]
    text = render(report)
    assert f"peak -46 dB of full scale in {tmp_path / 'quiet.wav'}" in text
    assert "peaks cut off at 0 dB of full scale" in text
