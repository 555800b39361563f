"""Networks as ONNX graphs: equal to torch for every cell and setting with an operator.

Covers `asr/export/graph.py`, `asr/export/recurrent.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from asr.errors import ConfigError
from asr.export.network import check_exportable
from asr.export.onnx_folder import build_graph, torch_scores
from asr.features.extractor import FeatureConfig
from asr.inference.onnx_model import LogProbs, run_graph
from asr.io.onnx_session import open_graph
from asr.models.acoustic import AcousticModel
from asr.models.batch_norm import MaskedBatchNorm
from asr.models.bundle import Bundle
from asr.models.config import ModelConfig
from asr.text.normalise import TextConfig
from asr.text.tokens import Tokens

TOKENS = Tokens(("<blank>", "▁", "a", "b", "c"))
FEATURES = FeatureConfig(bands=12)


def bundle(features: FeatureConfig = FEATURES, **settings: Any) -> Bundle:
    """A small random model, whose normalisations are not those of a new one."""
    torch.manual_seed(1)
    config = ModelConfig(**{"hidden": 6, "layers": 3, "channels": (3, 4)} | settings)
    model = AcousticModel(features, config, len(TOKENS))
    for module in model.modules():
        if isinstance(module, MaskedBatchNorm):
            module.running_mean.normal_()
            module.running_variance.uniform_(0.5, 2.0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return Bundle(model.eval(), TOKENS, TextConfig())


def assert_equal(expected: list[LogProbs], found: list[LogProbs]) -> None:
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a.log_probs, b.log_probs, atol=2e-5)
        assert (a.spelled is None) == (b.spelled is None)
        if a.spelled is not None and b.spelled is not None:
            np.testing.assert_allclose(a.spelled, b.spelled, atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": "lstm"},
        {"cell": "peephole"},
        {"cell": "coupled"},
        {"cell": "gru"},
        {"cell": "rnn_tanh"},
        {"cell": "rnn_relu"},
        {"bidirectional": False, "lookahead": 4},
        {"directions": "alternating", "residual": True},
        {"pyramid": 2, "hierarchical_ctc_layer": 2},
        {"intermediate_ctc": (1, 2), "self_conditioning": True, "hierarchical_ctc_layer": 2},
        {"pooling": True},
        {"dense": 7},
        {"residual": True},
        {"residual": True, "pyramid": 1, "layers": 4},
        {"channels": (), "strides": ()},
    ],
    ids=str,
)
def test_a_graph_gives_the_scores_of_torch(settings: dict[str, Any]) -> None:
    model = bundle(**settings)
    session = open_graph(build_graph(model, waveform=False).SerializeToString())
    random = np.random.default_rng(2)
    inputs = [
        random.normal(size=(n, FEATURES.bands)).astype(np.float32) for n in (40, 1, 2, 17, 33)
    ]
    expected = torch_scores(model.model, inputs, waveform=False)
    assert_equal(expected, run_graph(session, inputs))
    alone = [row for sequence in inputs for row in run_graph(session, [sequence])]
    assert_equal(expected, alone)


def test_the_padding_has_no_effect() -> None:
    model = bundle(pyramid=1)
    session = open_graph(build_graph(model, waveform=False).SerializeToString())
    x = np.random.default_rng(3).normal(size=(2, 30, FEATURES.bands)).astype(np.float32)
    lengths = np.array([30, 13], np.int64)
    clean, _ = session.run(None, {"features": x, "lengths": lengths})
    x[1, 13:] = np.nan
    dirty, frames = session.run(None, {"features": x, "lengths": lengths})
    np.testing.assert_array_equal(clean[1, : frames[1]], dirty[1, : frames[1]])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cell": "layer_norm"}, "model.cell layer_norm"),
        ({"cell": "light_gru"}, "model.cell light_gru"),
        ({"cell": "projected", "projection": 3}, "model.cell projected"),
        ({"attention_heads": 2}, "model.attention_heads"),
        ({"conv_lstm": 2}, "model.conv_lstm"),
        ({"zoneout": 0.1}, "model.zoneout"),
        ({"chunk": 4}, "model.chunk"),
    ],
)
def test_a_network_without_operators_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check_exportable(ModelConfig(**settings))
