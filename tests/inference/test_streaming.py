"""A stream gives what the model gives for the whole utterance, however the samples come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.errors import ConfigError, StreamError
from asr.features.extractor import FeatureConfig
from asr.inference.streaming import Stream, latency
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.padded import Padded, pad

UNITS = 7
MODELS: dict[str, dict[str, Any]] = {
    "one direction": {"bidirectional": False},
    "look-ahead": {"bidirectional": False, "lookahead": 3, "cell": "gru"},
    "chunks": {"chunk": 4, "right_context": 2},
    "chunks alone": {"chunk": 5, "cell": "peephole"},
    "pooling": {"chunk": 3, "right_context": 1, "pooling": True, "strides": (2, 2), "dense": 6},
}


KINDS = ["mel", "kaldi", "nemo"]


def model(name: str, cmvn: str = "global", **more: Any) -> AcousticModel:
    torch.manual_seed(0)
    features = FeatureConfig(sample_rate=8000, bands=8, cmvn=cmvn, **more)
    shape = {"channels": (3, 2), "layers": 2, "hidden": 5, "dropout": 0.0} | MODELS[name]
    acoustic = AcousticModel(features, ModelConfig(**shape), UNITS)
    # Statistics of some audio, so that normalisation does something.
    waves = pad([0.1 * torch.randn(8000), 0.3 * torch.randn(5000)])
    acoustic.features.observe(waves)
    with torch.no_grad():
        for _ in range(3):
            acoustic(acoustic.features(waves))
        if acoustic.encoder.lookahead is not None:
            acoustic.encoder.lookahead.weight.normal_()
    return acoustic.eval()


def whole(acoustic: AcousticModel, samples: Tensor) -> Tensor:
    with torch.no_grad():
        waves = Padded(samples[None], torch.tensor([len(samples)]))
        scores: Padded = acoustic(acoustic.features(waves))
        return scores.unpad()[0]


def streamed(acoustic: AcousticModel, samples: Tensor, sizes: list[int]) -> Tensor:
    stream, position, scores = Stream(acoustic), 0, []
    for size in sizes:
        scores.append(stream.push(samples[position : position + size]))
        position += size
    scores += [stream.push(samples[position:]), stream.finish()]
    return torch.cat(scores)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from(KINDS),
    st.integers(1, 9000),
    st.lists(st.integers(0, 3000), max_size=6),
)
def test_a_stream_gives_the_scores_of_the_whole(
    name: str, kind: str, length: int, sizes: list[int]
) -> None:
    acoustic = model(name, kind=kind)
    samples = 0.2 * torch.randn(length, generator=torch.Generator().manual_seed(length))
    torch.testing.assert_close(
        streamed(acoustic, samples, sizes), whole(acoustic, samples), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("window_ms", "shift_ms"), [(25.0, 10.0), (20.125, 12.5), (9.0, 11.125)])
def test_windows_of_any_size_stream(kind: str, window_ms: float, shift_ms: float) -> None:
    # Odd windows and shifts, and windows that leave out samples.
    acoustic = model("chunks", kind=kind, window_ms=window_ms, shift_ms=shift_ms)
    for length, size in ((150, 89), (1733, 89), (2111, 700)):
        samples = 0.2 * torch.randn(length, generator=torch.Generator().manual_seed(length))
        made = streamed(acoustic, samples, [size] * (length // size))
        torch.testing.assert_close(made, whole(acoustic, samples), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_stream_gives_nothing(kind: str) -> None:
    assert streamed(model("chunks", kind=kind), torch.zeros(0), []).shape == (0, UNITS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_scores_come_within_the_latency(name: str, kind: str) -> None:
    acoustic = model(name, kind=kind)
    samples = 0.2 * torch.randn(16000)
    stream, made = Stream(acoustic), 0
    frame = 8000 * 2.0 / len(whole(acoustic, samples)) / 8000  # seconds
    for start in range(0, 16000, 400):
        made += len(stream.push(samples[start : start + 400]))
        heard = (start + 400) / 8000
        assert made * frame >= heard - latency(acoustic) - frame
        assert made * frame <= heard  # never before it is said


@pytest.mark.parametrize("name", ["chunks", "look-ahead"])
def test_what_comes_later_than_the_latency_changes_nothing(name: str) -> None:
    acoustic = model(name)
    samples = 0.2 * torch.randn(16000)
    changed = samples.clone()
    changed[8000:] += torch.randn(8000)
    before, after = whole(acoustic, samples), whole(acoustic, changed)
    same = int((1.0 - latency(acoustic)) / 2.0 * len(before))
    torch.testing.assert_close(before[:same], after[:same], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before[len(before) // 2 + 1 :], after[len(before) // 2 + 1 :])


def test_a_chunk_hears_its_context_and_no_more() -> None:
    acoustic = model("chunks")
    frames = torch.randn(1, 12, 2 * 2)  # two channels of two bands
    values = frames.clone().requires_grad_()
    y = acoustic.encoder._by_chunk(Padded(values, torch.tensor([12])))[-1].values
    # Chunks of 4 and 2 frames of context: the second chunk is frames 4 to 7, and hears 0 to 9.
    y[0, 4].square().sum().backward()
    assert values.grad is not None
    heard = values.grad[0].abs().sum(dim=1) > 0
    assert heard.tolist() == [True] * 10 + [False] * 2


def test_a_stream_refuses_what_it_cannot_take() -> None:
    stream = Stream(model("chunks"))
    with pytest.raises(StreamError, match=r"expected mono samples \[S\], got shape \[2, 100\]"):
        stream.push(torch.zeros(2, 100))
    stream.finish()
    with pytest.raises(StreamError, match="after the end"):
        stream.push(torch.zeros(10))
    with pytest.raises(StreamError, match="got a second"):
        stream.finish()


@pytest.mark.parametrize(
    ("settings_", "reason"),
    [
        ({"cmvn": "utterance"}, "lacks features.cmvn none or global"),
        ({"deltas": 1}, "lacks features.deltas 0"),
        ({"stack": 2, "stride": 2}, "lacks features.deltas 0 and no stacking"),
    ],
)
def test_features_that_need_the_whole_are_refused(settings_: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Stream(model("chunks", **settings_))


def test_models_that_need_the_whole_are_refused() -> None:
    MODELS["both directions"] = {}
    try:
        with pytest.raises(ConfigError, match=r"one direction, or model\.chunk"):
            latency(model("both directions"))
    finally:
        del MODELS["both directions"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chunk": 4, "bidirectional": False}, "a chunk only with two directions"),
        ({"right_context": 4}, "a right context only with a chunk"),
        ({"chunk": 4, "pyramid": 1}, "no pyramid"),
    ],
)
def test_configurations_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)
