"""Covers `asr/augment/waveform.py`, `asr/augment/specaugment.py`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.augment.config import AugmentConfig
from asr.augment.specaugment import LONGEST_MASK_SHARE, draw_distortion, spec_augment
from asr.augment.waveform import perturb_gain, perturb_speed
from asr.config import parse
from asr.errors import ConfigError
from asr.padded import Padded, pad
from tests.contracts import GARBAGE, assert_contract, assert_ignores_padding, ragged, refilled

RATE = 16000


def test_speed_is_torchaudios_resampling() -> None:
    lengths, speeds = [3000, 2500, 0, 2900, 10], [0.9, 1.1, 0.9, 1.0, 1.15]
    waves = ragged(lengths)
    played = perturb_speed(refilled(waves, torch.nan), speeds, lengths)
    for own, row, speed in zip(played.unpad(), waves.values, speeds, strict=True):
        ticks = round(20 * speed)
        expected = torchaudio.functional.resample(row, ticks, 20, lowpass_filter_width=12)
        torch.testing.assert_close(own, expected[: len(own)], rtol=0, atol=1e-6)
    assert torch.equal(played.zeroed().values, played.values)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.sampled_from([0.8, 0.9, 0.95, 1.0, 1.1, 1.25])),
        min_size=1,
        max_size=4,
    ).filter(lambda cases: any(samples for samples, _ in cases))
)
def test_lengths_are_those_of_the_speed(cases: list[tuple[int, float]]) -> None:
    lengths, speeds = [n for n, _ in cases], [speed for _, speed in cases]
    waves = perturb_speed(ragged(lengths), speeds)
    expected = [math.ceil(round(n / speed, 6)) for n, speed in cases]
    assert waves.lengths.tolist() == expected
    assert waves.values.shape == (len(cases), max(expected))
    assert not waves.values[~waves.mask()].any()


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_pitch_follows_speed_and_level_stays(speed: float) -> None:
    hertz = 1000.0
    tone = 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(RATE) / RATE)
    (played,) = perturb_speed(pad([tone]), [speed]).unpad()
    middle = played[2000:10000]
    spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle))).abs()
    loudest = float(spectrum.argmax()) * RATE / len(middle)
    assert loudest == pytest.approx(hertz * speed, abs=RATE / len(middle))
    assert float(middle.square().mean().sqrt()) == pytest.approx(0.5 / math.sqrt(2), rel=0.01)


def test_each_utterance_is_played_at_its_own_speed_whatever_its_batch() -> None:
    speeds = [1.1, 1.0, 0.9, 1.1]
    waves = ragged([700, 900, 301, 1], seed=3)
    together = perturb_speed(waves, speeds).unpad()
    for row, speed, played in zip(waves.unpad(), speeds, together, strict=True):
        torch.testing.assert_close(perturb_speed(pad([row]), [speed]).unpad()[0], played)
    assert torch.equal(together[1], waves.unpad()[1])
    for garbage in GARBAGE:
        again = perturb_speed(refilled(waves, garbage, spare=40), speeds).unpad()
        for a, b in zip(again, together, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_speed_contract(speed: float) -> None:
    def play(x: Padded) -> Padded:
        return perturb_speed(x, [speed] * len(x.lengths))

    # At speed 1 nothing is touched, the padding included; the width follows the longest utterance.
    assert_ignores_padding(play, ragged([500, 1, 333]))


def test_speeds_are_rounded_to_a_twentieth() -> None:
    waves = ragged([1000])
    assert torch.equal(perturb_speed(waves, [0.91]).values, perturb_speed(waves, [0.9]).values)
    assert torch.equal(perturb_speed(waves, [1.01]).values, waves.values)


@pytest.mark.parametrize("speeds", [[], [0.0], [1.0, -1.0], [0.01], [0.98], [math.nan], [math.inf]])
def test_speeds_that_cannot_be_played_are_refused(speeds: list[float]) -> None:
    with pytest.raises(ConfigError, match="speeds"):
        parse(AugmentConfig, {"speeds": speeds}, "r.yaml")


def test_gain_changes_the_level_of_each_utterance_within_bounds() -> None:
    torch.manual_seed(0)
    louder = perturb_gain(pad([torch.ones(3)] * 500), 6.0).values
    assert torch.equal(louder[:, 0], louder[:, 2])
    decibels = 20 * louder[:, 0].log10()
    assert -6.0001 <= float(decibels.min()) < -5.5
    assert 5.5 < float(decibels.max()) <= 6.0001
    waves = ragged([30, 1, 20])
    assert_ignores_padding(lambda x: perturb_gain(x, 6.0), waves)
    assert torch.equal(perturb_gain(waves, 0.0).values, waves.values)


def test_warps_lie_on_both_sides_of_one() -> None:
    torch.manual_seed(0)
    drawn = draw_distortion(500, AugmentConfig(vtlp=0.2), torch.device("cpu"))
    warps = drawn.warp
    assert warps is not None
    assert drawn.gains is None
    assert warps.shape == (500,)
    assert 0.8 <= float(warps.min()) < 0.82
    assert 1.18 < float(warps.max()) <= 1.2
    assert draw_distortion(500, AugmentConfig(vtlp=0.0), torch.device("cpu")).warp is None


def test_the_equaliser_has_gains_of_the_deviation_asked_for() -> None:
    torch.manual_seed(0)
    gains = draw_distortion(500, AugmentConfig(equaliser_db=6.0), torch.device("cpu")).gains
    assert gains is not None
    assert gains.shape == (500, 4)
    assert float(gains.mean()) == pytest.approx(0.0, abs=0.5)
    assert float(gains.std()) == pytest.approx(6.0, abs=0.3)


configs = st.builds(
    AugmentConfig,
    time_masks=st.integers(0, 3),
    time_mask_frames=st.integers(1, 40),
    frequency_masks=st.integers(0, 3),
    frequency_mask_bands=st.integers(1, 12),
)


@settings(max_examples=100)
@given(configs, st.lists(st.integers(0, 120), min_size=1, max_size=4), st.integers(0, 2**31))
def test_masks_are_rectangles_within_bounds(
    config: AugmentConfig, lengths: list[int], seed: int
) -> None:
    F = 10
    torch.manual_seed(seed)
    masked = spec_augment(pad([torch.ones(length, F) for length in lengths]), config)
    assert masked.lengths.tolist() == lengths
    assert not masked.values[~masked.mask()].any()
    for row in masked.unpad():
        hidden = row == 0
        assert bool((hidden | (row == 1)).all())
        frames, bands = hidden.all(dim=1), hidden.all(dim=0)
        assert torch.equal(hidden, frames[:, None] | bands[None, :])
        widest = min(config.time_mask_frames, math.floor(len(row) * LONGEST_MASK_SHARE))
        if not bool(bands.all()):
            assert int(frames.sum()) <= config.time_masks * widest
            assert _stretches(frames) <= config.time_masks
        if not bool(frames.all()):
            assert int(bands.sum()) <= config.frequency_masks * config.frequency_mask_bands
            assert _stretches(bands) <= config.frequency_masks


def _stretches(hidden: torch.Tensor) -> int:
    edges = torch.cat([torch.zeros(1, dtype=torch.bool), hidden])
    return int((edges[1:] & ~edges[:-1]).sum())


def test_every_width_and_place_comes_up() -> None:
    config = AugmentConfig(
        time_masks=1, time_mask_frames=3, frequency_masks=1, frequency_mask_bands=2
    )
    torch.manual_seed(0)
    masked = spec_augment(pad([torch.ones(20, 5)] * 2000), config).values == 0
    frames, bands = masked.all(dim=2), masked.all(dim=1)
    assert set(frames.sum(dim=1).tolist()) == {0, 1, 2, 3}
    assert set(bands.sum(dim=1).tolist()) == {0, 1, 2}
    assert bool(frames.any(dim=0).all())
    assert bool(bands.any(dim=0).all())


def test_masks_are_the_mean_where_one_is_given() -> None:
    x = ragged([50, 80], 20)
    mean = torch.arange(40.0).view(2, 1, 20)
    torch.manual_seed(0)
    zero = spec_augment(x, AugmentConfig()).values
    torch.manual_seed(0)
    filled = spec_augment(x, AugmentConfig(), mean).values
    hidden = zero != x.values
    assert hidden.any()
    expected = torch.where(hidden, mean, x.values)
    assert torch.equal(filled[x.mask()], expected[x.mask()])


def test_a_single_feature_is_never_hidden_whole() -> None:
    x = pad([torch.ones(20, 1)] * 50)
    masked = spec_augment(x, AugmentConfig(time_masks=0, frequency_masks=4)).values
    assert torch.equal(masked, x.values)


def test_utterances_of_a_batch_get_different_masks() -> None:
    torch.manual_seed(0)
    masked = spec_augment(pad([torch.ones(100, 40)] * 8), AugmentConfig()).values
    assert len({tuple(row.flatten().tolist()) for row in masked}) == 8


def test_the_seed_decides() -> None:
    x = ragged([50, 80], 20)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(spec_augment(x, AugmentConfig()).values)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_no_masks_change_nothing() -> None:
    x = ragged([50, 80], 20)
    assert torch.equal(
        spec_augment(x, AugmentConfig(time_masks=0, frequency_masks=0)).values, x.values
    )


def test_spec_augment_contract() -> None:
    x = ragged([50, 0, 33, 1], 20)
    assert_ignores_padding(lambda x: spec_augment(x, AugmentConfig()), x)
    still = AugmentConfig(time_masks=0, frequency_masks=0)
    assert_contract(lambda x: spec_augment(x, still), x, zero_padding=False)


@pytest.mark.parametrize(
    "values",
    [
        {"time_masks": -1},
        {"time_mask_frames": 0},
        {"frequency_mask_bands": 0},
        {"concatenate_prob": 1.5},
        {"vtlp": -0.1},
        {"gain_db": -1.0},
    ],
)
def test_wrong_configurations_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        parse(AugmentConfig, values, "r.yaml")
