"""A text stream ends with the text of the whole recording; what it calls final never changes.

Covers `asr/audio/mono.py`.

Covers `asr/decoding/incremental.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import asr.inference.live
from asr.audio.vad import SpeechDetector, speech_detector
from asr.decoding.config import RescoreConfig
from asr.decoding.decoder import Decoder, DecoderConfig
from asr.errors import ConfigError, StreamError
from asr.inference.acoustics import Acoustics
from asr.inference.recognizer import Recognizer
from asr.inference.streaming import fix_chunk, latency
from asr.lm.estimate import estimate
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.padded import pad
from tests.tones import FEATURES, MODEL, RATE, one_thread, speak, untrained_bundle

TEXT = "low high up down low up"
DECODERS = ("greedy", "beam", "ngram", "lexicon", "neural")


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with one_thread():
        yield


def streaming_bundle(**settings: Any) -> Bundle:
    """A model of one direction, or with `settings`, whose random output is made to vary, so that it
    writes something."""
    torch.manual_seed(3)
    bundle = untrained_bundle()
    features = FEATURES.model_copy(update={"cmvn": "none"})
    config = MODEL.model_copy(update=settings or {"bidirectional": False})
    model = AcousticModel(features, config, len(bundle.tokens)).eval()
    seen: list[torch.Tensor] = []
    hook = model.output.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        model(model.features(pad([torch.from_numpy(speak(TEXT))])))
        hook.remove()
        logits = seen[0].reshape(-1, len(bundle.tokens))
        scale = 3 / logits.std(0)
        model.output.bias.sub_(logits.mean(0)).mul_(scale)
        model.output.weight.mul_(scale[:, None])
    return replace(bundle, model=model)


def ranged_bundle() -> Bundle:
    """A model with a range of chunk sizes."""
    return streaming_bundle(chunk=(2, 12), right_context=2)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return streaming_bundle()


def decoder(kind: str, bundle: Acoustics) -> Decoder:
    tokens = bundle.tokens
    if kind == "greedy":
        return Decoder(tokens)
    config = DecoderConfig(kind="beam", rescore=RescoreConfig(weight=0.7))
    if kind == "ngram":
        return Decoder(tokens, config, ngram=estimate(["low high", "up down"], order=2))
    if kind == "lexicon":
        return Decoder(tokens, config, lexicon=("low", "high", "up", "down"))
    if kind == "neural":
        torch.manual_seed(0)
        network = NeuralModel(NeuralConfig(hidden=4), len(tokens)).eval()
        return Decoder(tokens, config, neural=NeuralLm(network, tokens))
    return Decoder(tokens, config)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("size", [37, 800, 100_000])
def test_a_stream_ends_with_the_text_of_the_whole(kind: str, size: int, bundle: Bundle) -> None:
    recognizer = Recognizer(bundle, decoder(kind, bundle))
    steps = np.rint(speak(TEXT) * 32768).astype(np.int16)
    whole = recognizer.transcribe(steps, sample_rate=RATE).text
    assert len(whole) > 5
    texts, best = [""], [""]
    with recognizer.stream() as stream:
        for at in range(0, len(steps), size):
            result = stream.push(steps[at : at + size])
            texts.append(result.text)
            best.append(result.text + result.partial)
    assert stream.text == whole
    assert stream.finish().partial == ""
    for before, after in zip(texts, [*texts[1:], whole], strict=True):
        assert after.startswith(before)
    if size == 37:
        assert best[-1]
        assert texts[len(texts) // 2] or kind == "lexicon"


def test_samples_of_another_rate_are_resampled(bundle: Bundle) -> None:
    recognizer = Recognizer(bundle, Decoder(bundle.tokens))
    samples = np.repeat(speak(TEXT), 2)
    whole = recognizer.transcribe(samples, sample_rate=2 * RATE).text
    with recognizer.stream(sample_rate=2 * RATE) as stream:
        for piece in np.array_split(samples, 7):
            stream.push(piece)
    longest = max(len(whole), len(stream.text))
    assert abs(len(whole) - len(stream.text)) <= 0.1 * longest


def test_a_delay_chooses_the_chunks_of_streams_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def detector(rate: int) -> SpeechDetector:
        return speech_detector(rate, "energy")  # tones are no speech for the others

    monkeypatch.setattr(asr.inference.live, "speech_detector", detector)
    ranged = ranged_bundle()
    recognizer = Recognizer(ranged, Decoder(ranged.tokens))
    samples = speak(TEXT)
    whole = recognizer.transcribe(samples, RATE).text
    silence = np.random.default_rng(0).normal(0, 1e-3, RATE).astype(np.float32)
    texts, spoken = {}, []
    for size in (2, 12):
        chosen = recognizer.with_delay(latency(ranged.model, size) + 1e-6)
        assert isinstance(chosen.bundle, Bundle)
        assert chosen.bundle.chunk == size
        with chosen.stream() as stream:
            stream.push(samples)
        blocks = [silence, samples, silence]
        spoken.append([text.text for text in chosen.live(blocks) if text.is_final])
        assert chosen.transcribe(samples, RATE).text == whole
        fixed = ranged_bundle()
        fix_chunk(fixed.model, size)
        assert stream.text == Recognizer(fixed, chosen.decoder).transcribe(samples, RATE).text
        texts[size] = stream.text
    with recognizer.stream() as stream:
        stream.push(samples)
    assert stream.text == texts[2]
    assert len({whole, *texts.values()}) == 3
    assert spoken[0]
    assert spoken[0] != spoken[1]
    assert recognizer.has_delays


def test_what_cannot_be_streamed_is_refused(bundle: Bundle) -> None:
    recognizer = Recognizer(bundle, Decoder(bundle.tokens))
    for rate in (0, 10**9):
        with pytest.raises(StreamError, match="expected a sample_rate"):
            recognizer.stream(rate)
    stream = recognizer.stream()
    for samples in (np.zeros((2, 2)), np.zeros(3, np.int64), ["a"], [[1.0], [1.0, 2.0]]):
        with pytest.raises(StreamError, match="expected mono samples"):
            stream.push(samples)
    for samples in (np.array([np.inf]), np.array([np.nan]), np.full(9, 1e300), np.full(9, 3e4)):
        with pytest.raises(StreamError, match=r"expected samples within \[-1, 1\]"):
            stream.push(samples)
    stream.finish()
    with pytest.raises(StreamError, match="after the end"):
        stream.push(np.zeros(10))
    every = decoder("neural", bundle)
    every = replace(
        every, config=every.config.model_copy(update={"rescore": RescoreConfig(every_step=True)})
    )
    with pytest.raises(ConfigError, match="every_step"):
        Recognizer(bundle, every).stream()


def test_an_error_in_the_block_is_not_replaced(bundle: Bundle) -> None:
    recognizer = Recognizer(bundle, Decoder(bundle.tokens))
    with pytest.raises(KeyError), recognizer.stream():
        raise KeyError("mine")
