from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from asr.config import parse
from asr.errors import ConfigError
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.features.filterbank import MFCC, Distortion, LogMel
from asr.features.transforms import append_deltas, normalise_utterance, stack_frames
from asr.padded import Padded
from tests.contracts import assert_contract, ragged

SMALL: dict[str, Any] = {"sample_rate": 8000, "bands": 24}
CONFIGS = [
    {},
    {"kind": "mfcc", "coefficients": 12, "cmvn": "none"},
    {"cmvn": "none", "deltas": 1},
    {"cmvn": "global", "deltas": 2, "stack": 3, "stride": 2},
    {"kind": "mfcc", "cmvn": "global", "stride": 3, "shift_ms": 12.5},
    {"kind": "mfcc", "cmvn": "utterance", "deltas": 2, "stack": 4, "window_ms": 32.0},
    {"kind": "mfcc", "cmvn": "level", "deltas": 1},
    {"cmvn": "level", "stack": 2},
]


def extractor(values: dict[str, Any]) -> FeatureExtractor:
    made = FeatureExtractor(FeatureConfig(**(SMALL | values)))
    made.observe(ragged([1000, 700], seed=9))
    return made


@pytest.mark.parametrize("values", CONFIGS, ids=str)
def test_contract_and_size(values: dict[str, Any]) -> None:
    layer = extractor(values)
    waves = ragged([901, 1, 0, 80, 411])
    assert_contract(layer, waves, layer.output_lengths, tolerance=1e-3)
    y = layer(waves)
    assert y.values.shape[2] == layer.size
    assert y.values.dtype == torch.float32


def test_the_default_is_normalised_log_mel() -> None:
    waves = ragged([3000, 2000])
    expected = normalise_utterance(LogMel(16000, 80, 25.0, 10.0)(waves))
    assert torch.equal(FeatureExtractor(FeatureConfig())(waves).values, expected.values)


def test_deltas_come_before_normalisation_and_stacking_after() -> None:
    layer = extractor({"kind": "mfcc", "deltas": 2, "stack": 3, "stride": 2})
    waves = ragged([3000, 2000])
    cepstra = MFCC(LogMel(8000, 24, 25.0, 10.0), 13)(waves)
    expected = stack_frames(normalise_utterance(append_deltas(cepstra, 2)), 3, 2)
    torch.testing.assert_close(layer(waves).values, expected.values)


def test_global_statistics_normalise_what_was_observed() -> None:
    layer = FeatureExtractor(FeatureConfig(**SMALL, cmvn="global", deltas=1))
    batches = [ragged([4000, 900], seed=1), ragged([2500], seed=2)]
    for batch in batches:
        layer.observe(batch)
    frames = torch.cat([row for batch in batches for row in layer(batch).unpad()])
    torch.testing.assert_close(frames.mean(0), torch.zeros(48), rtol=0, atol=1e-4)
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(48), rtol=0, atol=1e-2)


@pytest.mark.parametrize("values", CONFIGS, ids=str)
def test_warping_changes_the_utterances_it_is_asked_to(values: dict[str, Any]) -> None:
    layer = extractor(values)
    waves = ragged([2000, 1500])
    plain = layer(waves).unpad()
    warped = layer(waves, Distortion(torch.tensor([1.2, 1.0]))).unpad()
    assert (plain[0] - warped[0]).abs().mean() > 0.05
    torch.testing.assert_close(warped[1], plain[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("cmvn", ["none", "utterance"])
def test_observing_changes_nothing_without_global_statistics(cmvn: str) -> None:
    layer = FeatureExtractor(FeatureConfig(**SMALL, cmvn=cmvn))
    layer.observe(ragged([4000]))
    assert not layer.state_dict()


def test_only_the_statistics_are_saved() -> None:
    assert set(extractor({"cmvn": "global"}).state_dict()) == {
        "normalisation.frames",
        "normalisation.sums",
        "normalisation.squares",
    }


def test_digital_silence_gives_finite_features() -> None:
    for values in CONFIGS:
        y = extractor(values)(Padded(torch.zeros(2, 900), torch.tensor([900, 300])))
        assert y.values.isfinite().all()


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"kind": "fbank"}, "kind"),
        ({"sample_rate": 100}, "sample_rate"),
        ({"deltas": 3}, "deltas"),
        ({"stride": 0}, "stride"),
        ({"window_ms": math.nan}, "window_ms"),
        ({"band": 40}, "bands"),
        ({"kind": "mfcc", "bands": 20, "coefficients": 21}, "coefficients"),
    ],
)
def test_wrong_configurations_are_refused(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse(FeatureConfig, values, "r.yaml")
