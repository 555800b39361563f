"""A training step on the same seconds of speech, as whole sentences and in pieces of them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from asr.ctc.loss import ctc_loss
from asr.features.extractor import FeatureConfig
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.padded import Padded
from asr.training.prepare import precision
from tests.bench.timing import interleave, print_ratios, threads

BATCH_SECONDS = 48
FRAMES = 100  # a second
UNITS = 15  # a second, about what readers say
MODEL = ModelConfig(strides=(2, 2), hidden=384)  # as in recipes/mini_librispeech
VOCABULARY = 288
ROUNDS = 5


def run() -> None:
    """Print the table."""
    print("\npieces: the same seconds of speech in a batch, cut shorter and shorter")
    torch.manual_seed(0)
    model = AcousticModel(FeatureConfig(), MODEL, VOCABULARY)
    contestants = {f"{s} s": step(model, s) for s in (16, 12, 8)} | {"ours": step(model, 4)}
    with threads(2):
        seconds = interleave(contestants, ROUNDS)
    print_ratios(
        f"  4 x {MODEL.hidden} bidirectional LSTM, {BATCH_SECONDS} s a batch, two threads; "
        "ours: in pieces of 4 s",
        "ms a step",
        seconds,
        lambda value: f"{1000 * value:.0f}",
    )


def step(model: AcousticModel, seconds: int) -> Callable[[], None]:
    """Forward and backward through model and loss, as training does it on this machine."""
    rows = BATCH_SECONDS // seconds
    features = Padded(
        torch.randn(rows, seconds * FRAMES, model.features.size),
        torch.full((rows,), seconds * FRAMES),
    )
    count = seconds * UNITS
    targets = Padded(torch.randint(1, VOCABULARY, (rows, count)), torch.full((rows,), count))
    short = precision("auto", print) == "bf16"

    def run_step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            log_probs = model(features)
        ctc_loss(log_probs, targets).sum().backward()
        model.zero_grad()

    return run_step
