"""The same recording at another level has the same features, and what is loud for a moment does
not hide the rest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from asr.audio.files import find_audio
from asr.audio.load import load_audio
from asr.dataset.manifest import Utterance
from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.decoder import Decoder
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.features.filterbank import FLOOR_BELOW_LEVEL_DB, LogMel, speech_level
from asr.inference.decode import decode_dataset
from asr.inference.transcribe import trained_model, transcribe
from asr.models.bundle import load_bundle
from asr.padded import Padded, pad
from asr.text.normalise import TextConfig

CONFIGS: list[dict[str, Any]] = [
    {},
    {"kind": "mfcc", "deltas": 2},
    {"sample_rate": 8000, "bands": 40, "stack": 3, "stride": 3},
    {"cmvn": "level"},
    {"cmvn": "level", "kind": "kaldi"},
]
GAINS = [3.0, 0.3, 0.03, 1e-3, 1e-5, 1e-8, 8.0]


def syllables(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    """Bursts of coloured noise over a noise floor 50 dB below. Shape: [S]."""
    random = np.random.default_rng(seed)
    white = random.standard_normal(int(seconds * rate))
    coloured = np.convolve(white, 0.9 ** np.arange(50), mode="same")
    time = np.arange(len(white)) / rate
    loudness = np.maximum(np.sin(2 * np.pi * 3 * time), 0) ** 2
    quiet = 10 ** (-50 / 20) * random.standard_normal(len(white))
    return torch.from_numpy(0.05 * (loudness * coloured + quiet)).float()


@pytest.mark.parametrize("values", CONFIGS, ids=str)
@pytest.mark.parametrize("gain", GAINS)
def test_features_are_the_same_at_any_level(values: dict[str, Any], gain: float) -> None:
    extractor = FeatureExtractor(FeatureConfig(**values))
    rate = extractor.config.sample_rate
    waves = pad([syllables(1.0, rate), syllables(0.4, rate, 1), torch.zeros(rate // 2)])
    # Each at a level of its own, so that nothing is shared within a batch.
    gains = torch.tensor([[gain], [1 / gain], [1.0]])
    changed = extractor(Padded(waves.values * gains, waves.lengths))
    torch.testing.assert_close(changed.values, extractor(waves).values, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("cmvn", ["none", "global"])
def test_without_normalisation_by_utterance_the_floor_is_absolute(cmvn: Any) -> None:
    extractor = FeatureExtractor(FeatureConfig(cmvn=cmvn))
    wave = syllables(1.0, 16000)
    expected = LogMel(16000, 80, 25.0, 10.0)(pad([1e-3 * wave])).values
    torch.testing.assert_close(extractor(pad([1e-3 * wave])).values, expected)


def test_silence_around_speech_changes_nothing_relative_to_the_level() -> None:
    """With statistics of the utterance, it changes everything."""
    wave = syllables(1.0, 16000)
    wider = torch.cat([torch.zeros(4800), wave, torch.zeros(8000)])
    moved = {}
    for cmvn in ("level", "utterance"):
        extractor = FeatureExtractor(FeatureConfig.model_validate({"cmvn": cmvn}))
        extractor.observe(pad([wave]))
        inside = extractor(pad([wider])).values[:, 32:128]
        moved[cmvn] = float((inside - extractor(pad([wave])).values[:, 2:98]).abs().max())
    assert moved["level"] < 0.01
    assert moved["utterance"] > 0.3


def floor(wave: torch.Tensor) -> float:
    """In dB: what the digital silence behind an utterance is raised to."""
    log_mel = LogMel(16000, 80, 25.0, 10.0, relative_floor=True)
    values = log_mel(pad([torch.cat([wave, torch.zeros(1600)])])).values
    return 10 * float(values.min()) / math.log(10)


def test_the_floor_lies_below_the_level() -> None:
    wave = syllables(1.0, 16000)
    log_mel = LogMel(16000, 80, 25.0, 10.0, relative_floor=True)
    power = log_mel(pad([wave])).values.exp()
    level = speech_level(Padded(power, torch.tensor([power.shape[1]])), log_mel.centres)
    below = 10 * math.log10(float(level)) - floor(wave)
    assert below == pytest.approx(FLOOR_BELOW_LEVEL_DB, abs=2)


def test_what_is_loud_for_a_moment_hides_nothing() -> None:
    wave = syllables(20.0, 16000)
    slammed, clicked = wave.clone(), wave.clone()
    slammed[50000:54000] += 20 * syllables(0.25, 16000, 3) + 0.5 * torch.randn(4000)
    clicked[70000] = 1.0
    assert abs(floor(slammed) - floor(wave)) < 3
    assert abs(floor(clicked) - floor(wave)) < 0.1


def test_an_offset_or_digital_silence_is_no_sound() -> None:
    wave = syllables(2.0, 16000)
    assert abs(floor(wave + 0.5) - floor(wave)) < 2
    assert abs(floor(torch.cat([torch.zeros(300000), wave])) - floor(wave)) < 1
    faint = 1e-6 * torch.randn(300000)  # what a codec makes of digital silence
    assert abs(floor(torch.cat([faint, wave])) - floor(wave)) < 1


def test_the_level_is_that_of_the_utterance_alone() -> None:
    log_mel = LogMel(16000, 80, 25.0, 10.0)
    waves = [syllables(1.0, 16000), 0.01 * syllables(0.3, 16000, 1), torch.zeros(1600)]
    for wave, together in zip(waves, log_mel(pad(waves)).unpad(), strict=True):
        torch.testing.assert_close(log_mel(pad([wave])).values[0], together)


def test_the_shipped_model_writes_the_same_at_any_level(shared_data: Path, tmp_path: Path) -> None:
    bundle = load_bundle(trained_model())
    folder = shared_data / "an4" / "wav" / "an4test_clstk" / "fcaw"
    recordings = [load_audio(path) for path in find_audio([folder])[:3]]
    rows = []
    for gain in (1.0, 3.0, 0.1, 0.003, 1e-6):
        for number, samples in enumerate(recordings):
            path = tmp_path / f"{number}-{gain}.wav"
            soundfile.write(path, samples * np.float32(gain), 16000, subtype="FLOAT")
            rows.append(Utterance(path.stem, path, "", len(samples) / 16000))
    texts = [t.text for t in transcribe(bundle, [row.audio for row in rows])]
    assert all(texts[:3])
    assert texts == texts[:3] * 5
    data = SpeechDataset(rows, None, TextConfig(), 16000)
    decoded = decode_dataset(bundle.model, data, Decoder(bundle.tokens))
    assert list(map(decoded.get, (row.id for row in rows))) == texts
