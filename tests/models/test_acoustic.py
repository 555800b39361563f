from __future__ import annotations

from typing import Any

import pytest
import torch

from asr.config import parse
from asr.ctc.loss import ctc_loss
from asr.errors import ConfigError
from asr.features.extractor import FeatureConfig
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.padded import Padded, pad
from tests.contracts import Chain, assert_contract, assert_ignores_padding, ragged, refilled

FEATURES = FeatureConfig(sample_rate=8000, bands=16)
CONFIG = ModelConfig(channels=(3, 2), strides=(2, 1), layers=2, hidden=4, dropout=0.0)
UNITS = 6


def model(features: FeatureConfig = FEATURES, config: ModelConfig = CONFIG) -> AcousticModel:
    torch.manual_seed(0)
    return AcousticModel(features, config, UNITS)


@pytest.mark.parametrize("cmvn", ["utterance", "global", "none"])
def test_contract_from_waveforms_to_log_probabilities(cmvn: str) -> None:
    acoustic = model(FeatureConfig(sample_rate=8000, bands=16, cmvn=cmvn))
    acoustic.features.observe(ragged([2000], seed=4))
    whole = Chain(acoustic.features, acoustic)
    waves = ragged([1100, 1, 0, 700])
    assert_contract(whole, waves, acoustic.output_lengths, zero_padding=False, tolerance=1e-4)


def test_contract_from_features_to_log_probabilities() -> None:
    acoustic = model()
    x = ragged([13, 1, 20, 0], 16)
    assert_contract(acoustic, x, acoustic.encoder.output_lengths, zero_padding=False)


def test_dropout_ignores_padding() -> None:
    assert_ignores_padding(
        model(config=CONFIG.model_copy(update={"dropout": 0.5})), ragged([9, 4], 16)
    )


def test_outputs_are_log_probabilities_in_float32() -> None:
    acoustic = model()
    features = acoustic.features(ragged([1600, 900]))
    with torch.autocast("cpu", torch.bfloat16):
        low = acoustic(features)
    for y in (acoustic(features), low):
        assert y.values.dtype == torch.float32
        assert y.values.shape[2] == UNITS
        torch.testing.assert_close(y.values.logsumexp(2), torch.zeros(y.values.shape[:2]))


def test_output_lengths_count_features_and_strides() -> None:
    # 8 kHz and 10 ms: 80 samples a frame, of which every second is kept.
    samples = torch.tensor([0, 1, 79, 80, 160, 8000])
    assert model().output_lengths(samples).tolist() == [0, 1, 1, 1, 2, 51]


def test_every_parameter_of_the_model_learns_from_the_loss() -> None:
    acoustic = model()
    waves = refilled(ragged([2000, 1500, 900]), torch.nan)
    targets = pad([torch.tensor([1, 2, 2]), torch.tensor([3]), torch.tensor([5, 4])])
    ctc_loss(acoustic(acoustic.features(waves)), targets).sum().backward()
    for name, parameter in acoustic.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # Batch norm cancels the bias of the convolution before it.
        if not name.endswith("convolution.bias"):
            assert parameter.grad.any(), name


def test_parameter_count_by_hand() -> None:
    convolutions = (9 * 1 * 3 + 3) + (9 * 3 * 2 + 2)
    norms = 2 * 3 + 2 * 2 + 2 * 8 + 2 * 8  # of 3 and 2 channels, of 2 * 4 bands, of 2 * 4 cells
    lstms = 2 * 2 * (4 * 4 * (8 + 4) + 4 * 4)
    assert model().parameter_count() == convolutions + norms + lstms + 8 * UNITS + UNITS


def test_the_default_configuration_shortens_time_three_times() -> None:
    config = ModelConfig(hidden=8, layers=1)
    acoustic = AcousticModel(FeatureConfig(), config, UNITS)
    y = acoustic(Padded(torch.zeros(1, 101, 80), torch.tensor([101])))
    assert y.values.shape == (1, 34, UNITS)


def spelling_model(**settings: Any) -> AcousticModel:
    return model(config=CONFIG.model_copy(update={"hierarchical_ctc_layer": 1} | settings))


@pytest.mark.parametrize(
    "settings", [{}, {"chunk": 3}, {"pyramid": 1}, {"attention_heads": 2}, {"lookahead": 1}]
)
def test_the_spelling_layer_reads_an_earlier_layer(settings: dict[str, Any]) -> None:
    acoustic = spelling_model(**settings).eval()
    x = ragged([13, 1, 20], 16)
    written, spelled = acoustic.forward_and_spell(x)
    assert spelled is not None
    assert torch.equal(written.values, acoustic(x).values)
    first = acoustic.encoder.layer_outputs(x)[0]
    expected = torch.log_softmax(acoustic.spelling(first.values), dim=2)  # type: ignore[misc]
    assert torch.equal(spelled.values, expected)
    assert torch.equal(spelled.lengths, first.lengths)
    garbage = acoustic.forward_and_spell(refilled(x, torch.nan))[1]
    assert garbage is not None
    torch.testing.assert_close(garbage.zeroed().values, spelled.zeroed().values)


def test_a_model_without_a_spelling_layer_spells_nothing() -> None:
    acoustic = model()
    assert acoustic.forward_and_spell(ragged([9], 16))[1] is None
    assert not any(name.startswith("spelling") for name in acoustic.state_dict())


def conditioned_model(**settings: Any) -> AcousticModel:
    """Self-conditioned after layers 1 and 2, by weights as after some training."""
    wide = {"layers": 3, "intermediate_ctc": (1, 2), "self_conditioning": True}
    acoustic = model(config=CONFIG.model_copy(update=wide | settings))
    assert acoustic.conditioning is not None
    with torch.no_grad():
        acoustic.conditioning.weight.normal_()
    return acoustic


def test_posteriors_condition_the_next_layer() -> None:
    acoustic = conditioned_model().eval()
    x = ragged([13, 1, 20], 16)
    written, spelled, earlier, _ = acoustic.outputs(x)
    assert spelled is None
    assert torch.equal(written.values, acoustic(x).values)
    assert torch.equal(written.values, acoustic.forward_and_spell(x)[0].values)
    encoder, y = acoustic.encoder, acoustic.encoder.front(x)
    for number, scores in enumerate([*earlier, written]):
        y = encoder.layers[number](encoder.norms[number](y))
        torch.testing.assert_close(scores.values, acoustic.scores(y).values)
        assert acoustic.conditioning is not None
        y = Padded(y.values + acoustic.conditioning(acoustic.scores(y).values.exp()), y.lengths)


def test_conditioning_begins_without_effect() -> None:
    conditioned = model(config=CONFIG.model_copy(update={"intermediate_ctc": (1,)}))
    plain = model()
    assert conditioned.state_dict().keys() == plain.state_dict().keys()
    settings = {"intermediate_ctc": (1,), "self_conditioning": True}
    conditioned = model(config=CONFIG.model_copy(update=settings))
    x = ragged([9], 16)
    assert torch.equal(conditioned.eval()(x).values, plain.eval()(x).values)


@pytest.mark.parametrize("settings", [{}, {"chunk": 3, "right_context": 1}, {"pyramid": 2}])
def test_contract_of_self_conditioning(settings: dict[str, Any]) -> None:
    acoustic = conditioned_model(**settings)
    x = ragged([13, 1, 20, 0], 16)
    assert_contract(acoustic, x, acoustic.encoder.output_lengths, zero_padding=False)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"layers": 2, "hierarchical_ctc_layer": 3},
            "hierarchical_ctc_layer among the 2 .*, got 3",
        ),
        (
            {"layers": 3, "intermediate_ctc": [1, 3]},
            "intermediate_ctc in order, each once and before the last of the 3 layers, got .1, 3.",
        ),
        ({"intermediate_ctc": [2, 1]}, "in order, .*, got .2, 1."),
        ({"intermediate_ctc": [1, 1]}, "each once .*, got .1, 1."),
        ({"self_conditioning": True}, "self_conditioning only with intermediate_ctc"),
        ({"cell": "lstn"}, "cell: .*expected a cell among rnn_tanh.*got 'lstn'"),
        ({"cell": "projected", "projection": 320}, "fewer features than hidden"),
        ({"cell": "light_gru", "chunk": 8}, "no chunk with the cell light_gru"),
        ({"channels": [8]}, "as many strides as channels"),
        ({"strides": [2, 5]}, "strides from 1 to 4"),
        ({"strides": [0, 2]}, "strides from 1 to 4"),
        ({"channels": [0, 8]}, "1 to 8192 channels"),
        ({"layers": 0}, "layers"),
        ({"dropout": 1.0}, "dropout"),
        ({"hiden": 1}, "'hidden'"),
    ],
)
def test_wrong_configurations_are_refused_in_one_line(
    values: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        parse(ModelConfig, values, "r.yaml")
    assert "\n" not in str(caught.value)
