"""Streaming networks as graphs: chunk by chunk the scores of `asr.inference.streaming`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from asr.errors import ConfigError
from asr.export.quantise import quantised
from asr.export.sherpa_graphs import device_features, run_chunks
from asr.export.streaming import build_streaming_graph, chunks_of, tail_seconds
from asr.features.extractor import FeatureConfig
from asr.inference.onnx_model import open_graph
from asr.inference.streaming import Stream, fix_chunk
from asr.models.bundle import Bundle
from asr.padded import pad
from tests.export.test_network import bundle

RATE = 16000


def streaming_bundle(features: dict[str, Any] | None = None, **settings: Any) -> Bundle:
    """A small random model with features of a device, and a text that varies."""
    config = FeatureConfig.model_validate({"kind": "nemo", "cmvn": "global"} | (features or {}))
    made = bundle(config, **settings)
    model, waves = made.model, pad([noise(2.0, config.sample_rate)])
    model.features.observe(waves)
    with torch.no_grad():
        model.output.weight.mul_(30)
        model.output.bias.sub_(model(model.features(waves)).values.mean(dim=(0, 1)))
    return made


def noise(seconds: float, rate: int = RATE) -> torch.Tensor:
    """Noise whose level rises and falls."""
    torch.manual_seed(2)
    time = torch.arange(int(seconds * rate)) / rate
    return 0.1 * torch.randn(len(time)) * torch.sin(9 * time).abs()


def session_of(model: onnx.ModelProto) -> Any:
    return open_graph(model.SerializeToString())


@pytest.mark.parametrize(
    "settings",
    [
        {"chunk": 8, "right_context": 4},
        {"chunk": 2, "right_context": 1, "strides": (3, 1)},
        {"chunk": 5, "cell": "peephole"},
        {"chunk": 1, "right_context": 3, "residual": True, "cell": "gru"},
        {"chunk": 4, "right_context": 2, "pooling": True, "strides": (3, 2), "cell": "coupled"},
        {"chunk": 3, "channels": (), "strides": (), "dense": 7},
        # The first chunks are shorter than what the convolutions need of the past.
        {"chunk": 1, "channels": (3, 3, 2), "strides": (2, 2, 1)},
        {"chunk": 4, "right_context": 2, "intermediate_ctc": (1, 2), "self_conditioning": True},
        {"bidirectional": False, "cell": "rnn_tanh"},
        {"bidirectional": False, "lookahead": 5, "hierarchical_ctc_layer": 1},
    ],
    ids=str,
)
def test_chunks_give_the_scores_of_a_stream(settings: dict[str, Any]) -> None:
    source = streaming_bundle(**settings)
    wave = noise(2.0)
    stream = Stream(source.model)
    expected = torch.cat([stream.push(part) for part in wave.split(1234)]).numpy()
    features = device_features(source.model, wave.numpy())
    found = run_chunks(source.model, session_of(build_streaming_graph(source)), features)
    sizes = chunks_of(source.model)
    assert len(found) == (len(features) - sizes.window - 1) // sizes.shift * sizes.frames + (
        sizes.frames
    )
    length = min(len(found), len(expected))
    assert length > 20
    np.testing.assert_allclose(found[:length], expected[:length], atol=1e-4)


def test_streams_of_different_age_share_a_call() -> None:
    source = streaming_bundle(chunk=4, right_context=2)
    session, sizes = session_of(build_streaming_graph(source)), chunks_of(source.model)
    features = device_features(source.model, noise(1.0).numpy())
    alone = run_chunks(source.model, session, features)
    names = [value.name for value in session.get_inputs()]

    def call(starts: list[int], caches: list[np.ndarray]) -> list[np.ndarray]:
        x = np.stack([features[start : start + sizes.window].T for start in starts])
        values = [x, np.full(len(starts), sizes.window), *caches]
        scores, _, *after = session.run(None, dict(zip(names, values, strict=True)))
        return [scores, *after]

    fresh = [
        np.zeros([1, *value.shape[1:]], np.int64 if "int64" in value.type else np.float32)
        for value in session.get_inputs()[2:]
    ]
    _, *older = call([0], fresh)
    both = [np.concatenate(pair) for pair in zip(older, fresh, strict=True)]
    second, first = call([sizes.shift, 0], both)[0]
    np.testing.assert_allclose(first, alone[: sizes.frames], atol=1e-4)
    np.testing.assert_allclose(second, alone[sizes.frames : 2 * sizes.frames], atol=1e-4)


def test_8_bits_change_little() -> None:
    source = streaming_bundle(chunk=4, right_context=2, hidden=32)
    graph = build_streaming_graph(source)
    features = device_features(source.model, noise(2.0).numpy())
    exact, rough = (
        run_chunks(source.model, session_of(made), features) for made in (graph, quantised(graph))
    )
    assert (exact.argmax(axis=1) == rough.argmax(axis=1)).mean() > 0.8
    assert np.abs(exact - rough).max() > 0


def test_silence_of_the_stated_length_completes_a_stream() -> None:
    source = streaming_bundle(chunk=7, right_context=5)
    session = session_of(build_streaming_graph(source))
    for seconds in np.arange(0.5, 1.5, 0.04).tolist():
        wave = noise(seconds)
        silence = torch.zeros(round(tail_seconds(source.model) * RATE))
        features = device_features(source.model, torch.cat([wave, silence]).numpy())
        needed = int(source.model.output_lengths(torch.tensor(len(wave))))
        assert len(run_chunks(source.model, session, features)) >= needed


def test_a_range_needs_one_size() -> None:
    source = streaming_bundle(chunk=(3, 8), right_context=2)
    with pytest.raises(ConfigError, match=r"one chunk size to stream, got model.chunk \[3, 8\]"):
        build_streaming_graph(source)
    fix_chunk(source.model, 5)
    wave = noise(1.0)
    stream = Stream(streaming_bundle(chunk=(3, 8), right_context=2).model, 5)
    expected = stream.push(wave).numpy()
    features = device_features(source.model, wave.numpy())
    found = run_chunks(source.model, session_of(build_streaming_graph(source)), features)
    length = min(len(found), len(expected))
    assert length > 10
    np.testing.assert_allclose(found[:length], expected[:length], atol=1e-4)


def test_chunks_with_lookahead_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.chunk or model.lookahead, got both"):
        build_streaming_graph(streaming_bundle(chunk=4, lookahead=2))
