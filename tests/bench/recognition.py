"""Recognition of pieces of a long recording in one large batch: samples in memory to greedy text.

On a CPU the same with a small model and few pieces, so that the benchmark itself stays sound.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from asr.decoding.decoder import Decoder
from asr.features.extractor import FeatureConfig
from asr.inference.word_times import recognize_texts
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.models.config import ModelConfig
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig, build_tokens
from tests.bench.timing import interleave, print_table, verdict

PIECES, SECONDS = 1000, 10.0
LAYERS, HIDDEN = 5, 512
SMALL_PIECES, SMALL_LAYERS, SMALL_HIDDEN = 6, 2, 32  # on a CPU
GOAL = 40_000  # seconds of audio in a second
ROUNDS = 3


def run() -> None:
    """Print how fast a batch becomes text, and how much of that the scores take."""
    gpu = torch.cuda.is_available()
    pieces, layers, hidden = (
        (PIECES, LAYERS, HIDDEN) if gpu else (SMALL_PIECES, SMALL_LAYERS, SMALL_HIDDEN)
    )
    where = torch.cuda.get_device_name() if gpu else "the CPU, a small size"
    title = f"recognition: {pieces} pieces of {SECONDS:g} s, {layers}x{hidden}, on {where}"
    speeds = measure(pieces, layers, hidden)
    rows = [[name, f"{speed:,.0f}"] for name, speed in speeds.items()]
    print_table(title, ["", "times real time"], rows)
    if gpu:
        speed = speeds["text"]
        verdict("samples to text, times real time", speed, f">= {GOAL:,}", speed >= GOAL)


def measure(pieces: int, layers: int, hidden: int) -> dict[str, float]:
    """Seconds of audio in a second: log-probabilities alone, and with the text."""
    torch.manual_seed(0)
    tokens = build_tokens(["abcdefghijklmnopqrstuvwxyz '"], TokenConfig())
    config = ModelConfig(layers=layers, hidden=hidden)
    model = AcousticModel(FeatureConfig(), config, len(tokens))
    bundle, decoder = Bundle(model, tokens, TextConfig()), Decoder(tokens)
    random = np.random.default_rng(0)
    count = round(SECONDS * bundle.sample_rate)
    waves = [random.normal(0, 0.1, count).astype(np.float32) for _ in range(pieces)]

    def scores() -> None:
        bundle.score(waves)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    text = partial(recognize_texts, bundle, decoder, waves, [False] * pieces)
    seconds = interleave({"log-probabilities": scores, "text": text}, ROUNDS)
    return {name: pieces * SECONDS / value for name, value in seconds.items()}
