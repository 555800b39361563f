from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from asr.audio.load import write_wav
from asr.augment import waveform
from asr.augment.config import AugmentConfig, NoiseConfig, ReverbConfig
from asr.augment.noise import (
    NO_NOISE,
    Sounds,
    add_noise,
    degrade,
    load_sounds,
    lower_rate,
    power,
    reverberate,
    telephone,
)
from asr.augment.waveform import change_tempo
from asr.errors import ConfigError
from asr.padded import Padded, pad
from tests.contracts import refilled

RATE = 16000
NOTHING = Sounds(RATE, NO_NOISE)
QUIET = NoiseConfig(prob=0)
ALL = AugmentConfig(
    noise=NoiseConfig(prob=1), reverb=ReverbConfig(prob=1), telephone_prob=1, lower_rate_prob=1
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def tones(*hertz: float, seconds: float = 0.5) -> Padded:
    time = torch.arange(int(seconds * RATE)) / RATE
    return pad([0.5 * torch.sin(2 * torch.pi * h * time) for h in hertz])


def level(waves: Padded, hertz: float, row: int = 0) -> float:
    """Amplitude of one frequency in an utterance."""
    values = waves.unpad()[row]
    time = torch.arange(len(values)) / RATE
    return float(2 * torch.abs((values * torch.exp(-2j * torch.pi * hertz * time)).mean()))


def noise(seconds: float = 1.0) -> Sounds:
    return Sounds(RATE, (1000 * torch.randn(int(seconds * RATE))).short())


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_noise_is_as_far_below_as_asked(snr: float) -> None:
    waves = tones(440, 880)
    config = NoiseConfig(prob=1, snr_db=(snr, snr))
    noisy = add_noise(waves, config, noise(0.2))  # shorter than the speech: over again
    added = Padded(noisy.values - waves.values, waves.lengths)
    measured = 10 * torch.log10(power(waves) / power(added))
    assert measured.tolist() == pytest.approx([snr, snr], abs=0.01)


def test_a_share_of_the_utterances_is_left_alone() -> None:
    waves = tones(*([440.0] * 200), seconds=0.05)
    for config in (
        AugmentConfig(noise=NoiseConfig(prob=0.3)),
        AugmentConfig(noise=QUIET, reverb=ReverbConfig(prob=0.3)),
        AugmentConfig(noise=QUIET, telephone_prob=0.3),
        AugmentConfig(noise=QUIET, lower_rate_prob=0.3),
    ):
        changed = degrade(waves, config, noise()).values != waves.values
        assert 0.15 < changed.any(dim=1).float().mean() < 0.45
    assert degrade(waves, AugmentConfig(noise=QUIET), noise()) is waves


def test_a_room_rings_on_and_is_as_loud() -> None:
    click = torch.zeros(RATE)
    click[100:200] = 0.5 * torch.sin(torch.arange(100) * 0.3)
    waves = pad([click])
    config = ReverbConfig(prob=1, rt60=(0.5, 0.5))
    wet = reverberate(waves, config, NOTHING)
    assert power(wet).item() == pytest.approx(power(waves).item(), rel=1e-3)
    ends = wet.values[0, 200:].reshape(-1, 790).square().mean(dim=1)
    # 60 dB in half a second: 6 dB in 50 ms, which are 800 samples.
    steps = 10 * torch.log10(ends[:8] / ends[1:9])
    assert steps.mean().item() == pytest.approx(6.0, abs=1.0)


def test_recorded_rooms_begin_with_their_direct_sound(tmp_path: Path) -> None:
    response = np.zeros(800)
    response[[300, 500]] = 0.8, 0.4
    (tmp_path / "rooms").mkdir()
    write_wav(tmp_path / "rooms" / "hall.wav", response, RATE)
    config = ReverbConfig(prob=1, folder=tmp_path / "rooms")
    sounds = load_sounds(AugmentConfig(reverb=config), RATE)
    click = torch.zeros(2000)
    click[100] = 1.0
    wet = reverberate(pad([click]), config, sounds).values[0]
    assert wet.abs().topk(2).indices.tolist() == [100, 300]
    assert (wet[300] / wet[100]).item() == pytest.approx(0.5, abs=1e-3)


def test_a_telephone_passes_the_middle_only() -> None:
    waves = tones(100, 1000, 6000)
    heard = telephone(waves, 1.0, RATE)
    assert level(heard, 100, 0) < 0.05
    assert level(heard, 1000, 1) == pytest.approx(0.5, rel=0.05)
    assert level(heard, 6000, 2) < 0.05


def test_a_telephone_has_no_noise_above_its_band() -> None:
    torch.manual_seed(0)
    heard = telephone(Padded(0.1 * torch.randn(1, RATE), torch.tensor([RATE])), 1.0, RATE)
    power = torch.fft.rfft(heard.values[0]).abs().square()
    assert power[4500:].mean() < 1e-6 * power[500:3000].mean()


def test_a_lower_rate_has_no_frequencies_above_its_half() -> None:
    waves = tones(1000, 3500, 5000, 7000)
    heard = lower_rate(waves, 1.0, [8000], RATE)
    assert [level(heard, hertz, row) for row, hertz in enumerate((1000, 3500, 5000, 7000))] == [
        pytest.approx(0.5, rel=0.02),
        pytest.approx(0.5, rel=0.05),
        pytest.approx(0.0, abs=1e-3),
        pytest.approx(0.0, abs=1e-3),
    ]
    many = tones(*([5000.0] * 60), seconds=0.05)
    kept = lower_rate(many, 1.0, [8000, 16000], RATE).values.square().mean(dim=1) > 0.05
    assert 0.25 < kept.float().mean() < 0.75
    some = lower_rate(many, 0.3, [8000], RATE).values.square().mean(dim=1) > 0.05
    assert 0.5 < some.float().mean() < 0.9
    assert lower_rate(many, 0.0, [8000], RATE) is many


@pytest.mark.parametrize("tempo", [0.8, 1.25])
def test_tempo_changes_the_length_and_not_the_pitch(tempo: float) -> None:
    waves = tones(440, 1000, seconds=1.0)
    played = change_tempo(waves, [tempo, 1.0], RATE)
    assert played.lengths.tolist() == [round(RATE / tempo), RATE]
    assert torch.equal(played.unpad()[1], waves.unpad()[1])
    middle = Padded(played.values[:1, 2000:10000], torch.tensor([8000]))
    # A phase vocoder smears a tone a little, and moves it nowhere.
    assert level(middle, 440) > 0.25
    assert level(middle, 440 * tempo) < 0.05
    short = pad([torch.ones(100)])
    assert torch.equal(change_tempo(short, [tempo], RATE).values, short.values)


def test_tempo_of_a_batch_is_that_of_each_utterance(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    lengths = [8000, 100, 4321, 513, 6400, 700]
    waves = refilled(pad([0.1 * torch.randn(length) for length in lengths]), math.nan)
    tempos = [0.8, 0.9, 1.1, 0.9, 1.0, 1.25]
    singly = change_tempo(waves, tempos, RATE)
    monkeypatch.setattr(waveform, "_stretched_singly", waveform._stretched)
    together = change_tempo(waves, tempos, RATE, lengths)
    assert torch.equal(singly.lengths, together.lengths)
    torch.testing.assert_close(together.values, singly.values, rtol=0, atol=1e-5)


def test_garbage_in_the_padding_changes_nothing() -> None:
    clean = pad([torch.randn(3000), torch.randn(8000)])
    dirty = Padded(clean.values.clone(), clean.lengths)
    dirty.values[0, 3000:] = torch.nan
    for tempos in ([1.0, 1.0], [0.9, 1.1]):
        results = []
        for waves in (clean, dirty):
            torch.manual_seed(1)
            stretched = change_tempo(waves, tempos, RATE)
            results.append(degrade(stretched, ALL, noise()))
        for one, other in zip(results[0].unpad(), results[1].unpad(), strict=True):
            assert torch.equal(one, other)
            assert torch.isfinite(one).all()


def test_the_same_seed_gives_the_same_noise() -> None:
    waves, sounds = tones(440, 880), noise()
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(degrade(waves, ALL, sounds).values)
    assert torch.equal(*found)
    assert not torch.equal(degrade(waves, ALL, sounds).values, found[0])


def test_silence_stays_silent_and_nothing_breaks() -> None:
    waves = Padded(torch.zeros(2, 4000), torch.tensor([4000, 0]))
    for sounds in (noise(), NOTHING):  # noise is so far below speech, and here is none
        heard = degrade(waves, ALL, sounds)
        assert heard.values[0].abs().max() < 1e-6


def test_noise_is_kept_in_16_bits_without_a_loss(tmp_path: Path) -> None:
    samples = np.arange(-32768, 32768, 37, dtype=np.float32) / 32768
    write_wav(tmp_path / "hiss.wav", samples, RATE)
    sounds = load_sounds(AugmentConfig(noise=NoiseConfig(folder=tmp_path)), RATE)
    assert sounds.noise.dtype == torch.int16
    assert torch.equal(sounds.noise / 32768, torch.from_numpy(samples))


def test_folders_without_recordings_are_reported(tmp_path: Path) -> None:
    for name in ("noise", "reverb"):
        config = AugmentConfig.model_validate({name: {"folder": tmp_path / "absent"}})
        with pytest.raises(ConfigError, match=rf"augment\.{name}\.folder, got none in"):
            load_sounds(config, RATE)
    with pytest.raises(ValidationError, match="snr_db from low to high"):
        NoiseConfig(snr_db=(20, 5))
    with pytest.raises(ValidationError, match="rt60 from low to high"):
        ReverbConfig(rt60=(0.7, 0.1))
