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
from asr.inference.streaming import Stream, chunk_for, fix_chunk, latency
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.padded import Padded, pad

UNITS = 7
MODELS: dict[str, dict[str, Any]] = {
    "one direction": {"bidirectional": False},
    "look-ahead": {"bidirectional": False, "lookahead": 3, "cell": "gru"},
    "chunks": {"chunk": 4, "right_context": 2},
    "residual chunks": {"chunk": 4, "right_context": 2, "layers": 3, "residual": True},
    "chunks alone": {"chunk": 5, "cell": "peephole"},
    "conditioned": {
        "chunk": 4,
        "right_context": 2,
        "layers": 3,
        "intermediate_ctc": (1, 2),
        "self_conditioning": True,
    },
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
        if acoustic.conditioning is not None:
            acoustic.conditioning.weight.normal_()
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


@settings(max_examples=25)
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
    y = acoustic.encoder._by_chunk(Padded(values, torch.tensor([12])), 4)[-1].values
    # Chunks of 4 and 2 frames of context: the second chunk is frames 4 to 7, and hears 0 to 9.
    y[0, 4].square().sum().backward()
    assert values.grad is not None
    heard = values.grad[0].abs().sum(dim=1) > 0
    assert heard.tolist() == [True] * 10 + [False] * 2


RANGE = {"chunk": (3, 6), "right_context": 2}


def ranged() -> AcousticModel:
    MODELS["range"] = RANGE
    try:
        return model("range")
    finally:
        del MODELS["range"]


def test_a_range_streams_at_any_of_its_sizes_and_reads_recordings_whole() -> None:
    acoustic, fixed = ranged(), ranged()
    samples = 0.2 * torch.randn(5000, generator=torch.Generator().manual_seed(1))
    found = []
    for size in (3, 5, 6, None):
        stream = Stream(acoustic, size)
        scores = torch.cat([stream.push(part) for part in samples.split(700)] + [stream.finish()])
        fix_chunk(fixed, 0)
        torch.testing.assert_close(whole(acoustic, samples), whole(fixed, samples))
        fixed = ranged()
        fix_chunk(fixed, size or 3)
        assert fixed.config.chunk == fixed.encoder.config.chunk == (size or 3)
        torch.testing.assert_close(scores, whole(fixed, samples), rtol=1e-4, atol=1e-5)
        assert latency(acoustic, size) == latency(fixed)
        found.append(scores)
    assert not torch.allclose(found[0], found[1])
    torch.testing.assert_close(found[0], found[3])


def test_a_delay_gives_the_largest_chunk_in_it() -> None:
    acoustic = ranged()
    delays = {size: latency(acoustic, size) for size in range(3, 7)}
    for size, delay in delays.items():
        assert chunk_for(acoustic, delay) == chunk_for(acoustic, delay + 1e-4) == size
    assert chunk_for(acoustic, 1e9) == 6
    for short in (delays[3] - 1e-4, 0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"at least \d.\d\d s, which chunks of 3 frames have"):
            chunk_for(acoustic, short)
    for name in ("chunks", "one direction"):
        with pytest.raises(ConfigError, match=r"whose model\.chunk is a range"):
            chunk_for(model(name), 1.0)


@pytest.mark.parametrize(("name", "size"), [("range", 2), ("range", 7), ("chunks", 5)])
def test_a_stream_of_another_size_is_refused(name: str, size: int) -> None:
    acoustic = ranged() if name == "range" else model(name)
    sizes = "3 to 6" if name == "range" else "4"
    message = rf"expected a chunk of {sizes} frames \(model.chunk\), got {size}"
    for function in (Stream, latency, fix_chunk):
        with pytest.raises(ConfigError, match=message):
            function(acoustic, size)


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
        ({"chunk": (4, 8), "bidirectional": False}, "a chunk only with two directions"),
        ({"chunk": (8, 4)}, r"the lowest and the highest number of frames, such as \[8, 64\]"),
        ({"chunk": (0, 4)}, "the lowest and the highest"),
        ({"chunk": (4,)}, "the lowest and the highest"),
        ({"chunk": (4, 10001)}, "expected 0 to 10000 frames"),
        ({"chunk": "x"}, "expected 0 to 10000 frames"),
        ({"chunk": -1}, "expected 0 to 10000 frames"),
    ],
)
def test_configurations_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)
