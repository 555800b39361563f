"""tokens.txt: sherpa-onnx reads every vocabulary as it is meant, or it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from asr.errors import ConfigError
from asr.export.graph import FLOAT, Graph
from asr.export.sherpa_files import is_byte_bpe, tokens_text
from asr.text.tokens import BLANK, WORD_START, Tokens


def read_by_sherpa(folder: Path, tokens: Tokens, ids: list[int]) -> str:
    """The text that sherpa-onnx makes of these tokens."""
    sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="needs sherpa-onnx")
    scores = np.full((1, 2 * len(ids), len(tokens)), -20, np.float32)
    scores[0, 1::2, 0] = 0
    scores[0, np.arange(0, 2 * len(ids), 2), ids] = 0
    graph = Graph()
    silence = graph.add("Mul", graph.add("ReduceMax", "x", axes=[1]), graph.constant(0.0))
    silence = graph.add("Unsqueeze", silence, graph.ints(2))
    graph.named(graph.add("Add", graph.constant(scores), silence), "y")
    model = graph.model({"x": (FLOAT, ["N", "S"])}, {"y": (FLOAT, ["N", "T", len(tokens)])}, {})
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "tokens.txt").write_text(tokens_text(tokens), encoding="utf-8")
    recognizer = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(
        model=str(folder / "model.onnx"), tokens=str(folder / "tokens.txt")
    )
    stream = recognizer.create_stream()
    stream.accept_waveform(16000, np.ones(1600, np.float32))
    recognizer.decode_stream(stream)
    return str(stream.result.text)


@pytest.mark.parametrize(
    "units",
    [
        ["a", "b"],
        ["a", "ơ"],  # the highest byte of its letters is 0xC6
        ["ɓ", "ơ", "ế"],
        ["你", "好", "▁好"],
        ["SIL", "VER"],
        ["SIL", "VER", "ơ"],
        ["▁SIL", "▁f"],  # phones
        ["'", "-", "é"],
    ],
    ids=" ".join,
)
def test_the_text_is_that_of_the_tokens(tmp_path: Path, units: list[str]) -> None:
    tokens = Tokens((BLANK, WORD_START, *units))
    ids = [1, *range(2, len(tokens)), 1, *range(len(tokens) - 1, 1, -1)]
    assert read_by_sherpa(tmp_path, tokens, ids).split() == tokens.decode(ids).split()


def test_the_guess_of_bytes_is_known() -> None:
    assert is_byte_bpe(["<blk>", "▁", "▁ơ"])
    assert not is_byte_bpe(["<blk>", "▁", "é"])
    assert not is_byte_bpe(["<blk>", "▁", "ơ", "ɓ"])


@pytest.mark.parametrize("unit", ["a b", "\tb", "", "<blk>", "<0x00>"])
def test_tokens_that_would_be_misread_are_refused(unit: str) -> None:
    with pytest.raises(ConfigError, match="train with another normalisation"):
        tokens_text(Tokens((BLANK, WORD_START, "a", unit)))
