"""A server of live sockets, of a model that streams and of one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np

import asr.inference.live
from asr.audio.vad import SpeechDetector, speech_detector
from asr.decoding.decoder import Decoder
from asr.inference.recognizer import Recognizer
from asr.serving.config import ServeConfig
from asr.serving.engine import Engine
from asr.serving.limits import Limits
from asr.serving.server import listen
from tests.inference.test_text_stream import streaming_bundle
from tests.serving.running import Running, running
from tests.tones import RATE, speak

TEXTS = ("low high up", "down down low")


@dataclass(frozen=True)
class LiveServer:
    """A server that answers, with its models."""

    running: Running
    wyoming_port: int

    @property
    def models(self) -> dict[str, Recognizer]:
        return self.running.engine.models

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.running.port}"

    @contextmanager
    def limited(self, **changes: Any) -> Iterator[None]:
        """Other limits for the clients that connect within the block."""
        engine = self.running.engine
        before = engine.limits
        engine.limits = replace(before, **changes)
        try:
            yield
        finally:
            engine.limits = before

    def finals(self, model: str, samples: np.ndarray) -> list[str]:
        """The texts of the utterances in samples at `RATE`."""
        return [text.text for text in self.models[model].live([samples], RATE) if text.is_final]


@contextmanager
def live_server(whole: Recognizer) -> Iterator[LiveServer]:
    """A server of the models `tones` and `streaming` until the end of the block."""

    def energy(rate: int) -> SpeechDetector:  # tones are no speech for the other detectors
        return speech_detector(rate, "energy")

    bundle = streaming_bundle()
    models = {"tones": whole, "streaming": Recognizer(bundle, Decoder(bundle.tokens))}
    engine = Engine(models, Limits(decoders=1, idle_s=1.0, live_idle_s=10.0))
    with (
        listen("127.0.0.1", 0) as wyoming,
        mock.patch.object(asr.inference.live, "speech_detector", energy),
        running(engine, ServeConfig(wyoming=wyoming)) as started,
    ):
        yield LiveServer(started, wyoming.getsockname()[1])


def talk(pause: float = 1.0) -> np.ndarray:
    """Utterances between pauses. Shape: [S], int16 at `RATE`."""
    random = np.random.default_rng(0)
    silence = random.normal(0, 0.005, round(pause * RATE))
    pieces = [silence]
    for seed, text in enumerate(TEXTS):
        pieces += [speak(text, seed), silence]
    return np.rint(np.concatenate(pieces) * 32767).astype(np.int16)
