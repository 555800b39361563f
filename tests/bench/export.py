"""A model of 4x320 cells, one utterance at a time on one thread.

In torch, as an exported graph, and with 8-bit weights, beside onnxruntime alone.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr.decoding.rows import as_rows
from asr.export.onnx_folder import export_onnx
from asr.features.extractor import FeatureConfig
from asr.inference.acoustics import Acoustics
from asr.inference.onnx_model import Floats, OnnxModel, load_onnx
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, save_bundle
from asr.models.config import ModelConfig
from asr.text.normalise import TextConfig
from asr.text.tokens import Tokens
from tests.bench.timing import interleave, print_table, threads, verdict

SECONDS = (2, 4, 8)
ROUNDS = 7
FASTER = 2.5  # times, of int8 against torch
CALLS = 1.1  # times the time of onnxruntime alone


def run() -> None:
    """Print the milliseconds of each, and compare the outputs."""
    torch.manual_seed(0)
    tokens = Tokens(("<blank>", "▁", *"abcdefghijklmnopqrstuvwxyz"))
    network = ModelConfig(layers=4, hidden=320)
    model = AcousticModel(FeatureConfig(), network, len(tokens))
    bundle = Bundle(model, tokens, TextConfig())
    bundle.model.eval()
    random = np.random.default_rng(0)
    waves = [
        (0.1 * random.standard_normal(s * bundle.sample_rate)).astype(np.float32) for s in SECONDS
    ]
    with tempfile.TemporaryDirectory() as folder:
        models = {}
        save_bundle(Path(folder) / "model", bundle)
        for name in ("float32", "int8"):
            out = Path(folder) / name
            export_onnx(Path(folder) / "model", out, int8=name == "int8")
            models[name] = load_onnx(out)
    contestants = {
        "torch": partial(_score, bundle, waves),
        "exported, float32": partial(_score, models["float32"], waves),
        "exported, int8": partial(_score, models["int8"], waves),
        "onnxruntime alone, int8": partial(_run, models["int8"], [_inputs(w) for w in waves]),
    }
    with threads(1):
        seconds = interleave(contestants, ROUNDS)
        expected = contestants["torch"]()
        apart = {name: _difference(expected, contestants[name]()) for name in contestants}
    print_table(
        f"export: 4x320 cells, {SECONDS} seconds one by one, one thread, median of {ROUNDS}",
        ["", "ms", "of torch", "difference, nats"],
        [
            [name, f"{1000 * s:.0f}", f"{s / seconds['torch']:.2f}", f"{apart[name]:.1e}"]
            for name, s in seconds.items()
        ],
    )
    faster = seconds["torch"] / seconds["exported, int8"]
    verdict("torch over int8", faster, f">= {FASTER:g}", faster >= FASTER)
    calls = seconds["exported, int8"] / seconds["onnxruntime alone, int8"]
    verdict("int8 over onnxruntime alone", calls, f"<= {CALLS:g}", calls <= CALLS)


def _score(model: Acoustics, waves: list[Floats]) -> list[Floats]:
    with torch.inference_mode():
        return [as_rows(model.score([wave])[0])[0] for wave in waves]


def _inputs(wave: Floats) -> dict[str, Any]:
    return {"samples": wave[None], "lengths": np.array([len(wave)])}


def _run(model: OnnxModel, inputs: list[dict[str, Any]]) -> list[Floats]:
    return [model.session.run(None, values)[0][0] for values in inputs]


def _difference(expected: list[Floats], found: list[Floats]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
