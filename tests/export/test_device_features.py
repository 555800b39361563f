"""The slots of sherpa-onnx compute the features of the kinds that are meant for them.

Covers `asr/features/kaldi.py`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from asr.export.graph import FLOAT, INT64, Graph
from asr.features.kaldi import FLOOR, FramedLogMel
from asr.padded import pad
from tests.features.test_kaldi import TOLERANCE, speech_like

sherpa = pytest.importorskip("sherpa_onnx")

RATE, F = 16000, 80
LOWEST, RANGE, DIGITS = -32.0, 64.0, 3  # of values written as digits to the base of 256
VOCABULARY = 1 + DIGITS * 256


def write_tokens(path: Path, blank: int) -> str:
    symbols = [f"t{i} {i}" for i in range(VOCABULARY) if i != blank]
    path.write_text("\n".join([*symbols, f"<blk> {blank}"]) + "\n")
    return str(path)


def digits_of_features(metadata: dict[str, str]) -> onnx.ModelProto:
    """A model whose tokens are the digits of its features: a text then tells them all."""
    graph = Graph()
    scaled = graph.add("Sub", "x", graph.constant(LOWEST))
    scaled = graph.add("Mul", scaled, graph.constant(256**DIGITS / RANGE))
    whole = graph.add("Cast", scaled, to=INT64)
    digits = []
    for place in range(DIGITS):
        power = graph.constant(256 ** (DIGITS - 1 - place), np.int64)
        digit = graph.add("Mod", graph.add("Div", whole, power), graph.constant(256, np.int64))
        # Other tokens at every place: no two neighbours are alike, which CTC would merge.
        token = graph.add("Add", digit, graph.constant(1 + 256 * place, np.int64))
        digits.append(graph.add("Unsqueeze", token, graph.ints(3)))
    tokens = graph.add("Reshape", graph.add("Concat", *digits, axis=3), graph.ints(0, -1))
    depth, ends = graph.constant(VOCABULARY, np.int64), graph.constant([0.0, 1.0])
    graph.named(graph.add("OneHot", tokens, depth, ends, axis=-1), "log_probs")
    count = graph.constant(DIGITS * F, np.int64)
    graph.named(graph.add("Mul", "x_lens", count), "log_probs_len")
    inputs: dict[str, Any] = {"x": (FLOAT, ["N", "T", F]), "x_lens": (INT64, ["N"])}
    outputs: dict[str, Any] = {
        "log_probs": (FLOAT, ["N", "L", VOCABULARY]),
        "log_probs_len": (INT64, ["N"]),
    }
    return graph.model(inputs, outputs, metadata)


def test_kaldi_is_what_the_slot_of_fire_red_computes(tmp_path: Path) -> None:
    metadata = {
        "model_type": "fire-red-asr-2-ctc",
        "subsampling_factor": "1",
        "cmvn_mean": ",".join(["0"] * F),
        "cmvn_inv_stddev": ",".join(["1"] * F),
    }
    onnx.save(digits_of_features(metadata), str(tmp_path / "model.onnx"))
    recognizer = sherpa.OfflineRecognizer.from_fire_red_asr_ctc(
        str(tmp_path / "model.onnx"), write_tokens(tmp_path / "tokens.txt", blank=0)
    )
    wave = speech_like(RATE, 0.3)
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE, wave.numpy())
    recognizer.decode_stream(stream)
    tokens = np.array([int(token[1:]) for token in stream.result.tokens]).reshape(-1, F, DIGITS)
    places = 256 ** np.arange(DIGITS - 1, -1, -1)
    values = ((tokens - 1) % 256 @ places + 0.5) * RANGE / 256**DIGITS + LOWEST
    made = FramedLogMel("kaldi", RATE, F, 25.0, 10.0)(pad([wave])).values[0].numpy()
    # Samples are larger there. The floor is then lower, so that a graph can apply ours.
    expected = np.maximum(values - 2 * math.log(32768), math.log(FLOOR))
    assert (expected == math.log(FLOOR)).any()
    np.testing.assert_allclose(made, expected, rtol=0, atol=TOLERANCE)


def test_nemo_is_what_the_streaming_slot_of_nemo_computes(tmp_path: Path) -> None:
    graph = Graph()
    frames = graph.add("Transpose", "audio_signal", perm=[0, 2, 1])
    graph.named(graph.add("Slice", frames, graph.ints(0), graph.ints(5), graph.ints(2)), "scores")
    names = ["length", "cache_channel", "cache_time", "cache_len"]
    shapes: list[Any] = [(INT64, ["N"]), *[(FLOAT, ["N", 1, 1, 1])] * 2, (INT64, ["N"])]
    for name in names:
        graph.named(name, f"next_{name}")
    inputs: dict[str, Any] = {"audio_signal": (FLOAT, ["N", F, "T"])}
    outputs: dict[str, Any] = {"scores": (FLOAT, ["N", "T", 5])}
    for name, shape in zip(names, shapes, strict=True):
        inputs[name] = outputs[f"next_{name}"] = shape
    caches = [f"cache_last_{what}_dim{i}" for what in ("channel", "time") for i in (1, 2, 3)]
    sizes = {"window_size": "8", "chunk_shift": "8", "subsampling_factor": "1", "vocab_size": "4"}
    model = graph.model(inputs, outputs, sizes | dict.fromkeys(caches, "1"))
    onnx.save(model, str(tmp_path / "model.onnx"))
    (tmp_path / "tokens.txt").write_text("a 0\nb 1\nc 2\nd 3\n<blk> 4\n")
    recognizer = sherpa.OnlineRecognizer.from_nemo_ctc(
        str(tmp_path / "tokens.txt"), str(tmp_path / "model.onnx")
    )
    wave = speech_like(RATE, 0.3)
    stream = recognizer.create_stream()
    stream.accept_waveform(RATE, wave.numpy())
    stream.input_finished()
    made = FramedLogMel("nemo", RATE, F, 25.0, 10.0)(pad([wave])).values[0]
    values = torch.tensor(stream.get_frames(0, len(made))).reshape(made.shape)
    torch.testing.assert_close(made, values, rtol=0, atol=TOLERANCE)
