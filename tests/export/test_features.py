"""Features as nodes of a graph: equal to those of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from asr.errors import ConfigError
from asr.export.features import add_features, check_exportable
from asr.export.graph import FLOAT, INT64, Graph
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.io.onnx_session import open_graph
from asr.padded import pad


def waves(rate: int) -> list[torch.Tensor]:
    """Noise and a tone of several lengths and levels, with digital silence in one."""
    torch.manual_seed(1)
    tone = torch.sin(torch.arange(rate) * 2 * np.pi * 440 / rate)
    mixed = torch.cat([torch.zeros(rate // 2), 0.5 * tone, 0.01 * torch.randn(rate)])
    return [mixed, 0.3 * torch.randn(rate // 3), torch.randn(401), torch.randn(1)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cmvn": "none"},
        {"cmvn": "global"},
        {"kind": "mfcc"},
        {"kind": "kaldi"},
        {"kind": "kaldi", "cmvn": "global"},
        {"kind": "kaldi", "cmvn": "level"},
        {"cmvn": "level"},
        {"kind": "nemo"},
        {"kind": "nemo", "cmvn": "none", "window_ms": 20.0625, "shift_ms": 12.5},
        {"sample_rate": 8000, "bands": 40, "window_ms": 32.0},
    ],
    ids=str,
)
def test_a_graph_gives_the_features_of_the_model(settings: dict[str, Any]) -> None:
    extractor = FeatureExtractor(FeatureConfig(**settings)).eval()
    batch = pad(waves(extractor.config.sample_rate))
    extractor.observe(batch)
    graph = Graph()
    x, frames = add_features(graph, extractor, "samples", "lengths")
    graph.named(x, "features")
    graph.named(frames, "frames")
    model = graph.model(
        {"samples": (FLOAT, ["N", "S"]), "lengths": (INT64, ["N"])},
        {"features": (FLOAT, ["N", "T", extractor.size]), "frames": (INT64, ["N"])},
        {},
    )
    session = open_graph(model.SerializeToString())
    inputs = {"samples": batch.values.numpy(), "lengths": batch.lengths.numpy()}
    found, lengths = session.run(None, inputs)
    expected = extractor(batch)
    assert lengths.tolist() == expected.lengths.tolist()
    for row, other in zip(expected.unpad(), found, strict=True):
        np.testing.assert_allclose(row.numpy(), other[: len(row)], atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [{"deltas": 1}, {"stack": 3}, {"stride": 2}],
    ids=str,
)
def test_other_features_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ConfigError, match=f"features.{name}"):
        check_exportable(FeatureConfig(**settings))
