"""Recurrent language models as ONNX graphs: the scores of torch.

Covers `asr/lm/onnx_lm.py`, `asr/lm/encoding.py`, `asr/io/onnx_session.py`, `asr/io/model_files.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr.errors import AsrError, CheckpointError, LanguageModelError
from asr.export import language_model
from asr.export.language_model import export_lm
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel, save_neural
from asr.lm.onnx_lm import is_onnx_lm, load_onnx_lm
from asr.text.tokens import Tokens

TOKENS = Tokens(("<blank>", "▁", "a", "b", "c", "▁ab"))
SENTENCES = ["", "a", "ab cab", "c c c c c c c c", "ab " * 40 + "a"]


def saved(folder: Path, cell: str, layers: int = 2) -> NeuralLm:
    torch.manual_seed(1)
    model = NeuralModel(NeuralConfig(cell=cell, layers=layers, hidden=8), len(TOKENS))
    lm = NeuralLm(model.eval(), TOKENS)
    save_neural(folder, lm)
    return lm


@pytest.mark.parametrize("cell", ["lstm", "gru", "coupled", "rnn_tanh"])
def test_a_graph_gives_the_scores_of_torch(tmp_path: Path, cell: str) -> None:
    lm = saved(tmp_path / "lm", cell)
    export_lm(tmp_path / "lm", tmp_path / "out")
    found = load_onnx_lm(tmp_path / "out")
    assert is_onnx_lm(tmp_path / "out")
    assert not is_onnx_lm(tmp_path / "lm")
    assert (found.cell, found.tokens) == (cell, TOKENS)
    assert found.score(SENTENCES) == pytest.approx(lm.score(SENTENCES), abs=1e-4)
    assert found.score([]) == []
    with pytest.raises(LanguageModelError, match="'x'"):
        found.score(["axb"])


def test_a_cell_without_operator_and_a_wrong_graph_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "projected", "peephole")
    monkeypatch.setattr(language_model, "TOLERANCE", -1.0)
    with pytest.raises(AsrError, match="cannot be exported"):
        export_lm(tmp_path / "projected", tmp_path / "out")
    monkeypatch.setattr(language_model, "CELLS", {})
    with pytest.raises(AsrError, match="got peephole"):
        export_lm(tmp_path / "projected", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "lm", "lstm", layers=1)
    export_lm(tmp_path / "lm", tmp_path / "out")
    (tmp_path / "out" / "tokens.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"tokens\.json: expected distinct tokens"):
        load_onnx_lm(tmp_path / "out")
    (tmp_path / "out" / "tokens.json").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_onnx_lm(tmp_path / "out")
