"""`asr export`: the folder, the figures that it prints, and what it refuses.

Covers `asr/export/check.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from asr.export import check
from tests.commands import Command


def test_a_model_is_exported_and_its_error_rate_compared(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    out = tmp_path / "out"
    ended = run("export", model, "--to", "onnx", "--out", out, "--int8")
    assert ended.status == 0
    assert re.search(r"largest difference from torch: \d\.\de-\d\d nats", ended.out)
    assert "was not measured: give --check MANIFEST" in ended.err
    ended = run("export", model, "--to", "onnx", "--out", out, "--check", manifests["test"])
    assert re.search(r"WER .* exported, .* in torch; (\d+) of \1 texts are equal", ended.out)
    known = json.loads((out / "info.json").read_text())["export"]
    assert known["input"] == "samples"
    assert known["check"] in ended.out


def test_features_may_be_the_input(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    options = "--features", "--check", manifests["test"]
    ended = run("export", model, "--to", "onnx", "--out", tmp_path / "out", *options)
    assert re.search(r"(\d+) of \1 texts are equal", ended.out)


def test_a_worse_graph_is_refused(
    run: Command,
    tones: tuple[dict[str, Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifests, model = tones
    monkeypatch.setattr(check, "MOST_WORSE", -1000.0)
    options = "--check", manifests["test"]
    ended = run("export", model, "--to", "onnx", "--out", tmp_path / "out", *options)
    assert "expected an exported model at most" in ended.error()
    assert not (tmp_path / "out").exists()


def test_a_delay_is_for_sherpa(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    for to, message in (
        ("onnx", "expected --delay with --to sherpa only"),
        ("sherpa", "expected a model whose model.chunk is a range for a chosen delay"),
    ):
        ended = run("export", tones[1], "--to", to, "--out", tmp_path / "out", "--delay", 1)
        assert message in ended.error()


def test_a_report_is_not_a_model(run: Command, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    line = run("export", tmp_path, "--to", "onnx", "--out", tmp_path / "out").error()
    assert "asr report REPORT --texts" in line


def test_a_model_is_exported_for_sherpa(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    out = tmp_path / "out"
    ended = run("export", model, "--to", "sherpa", "--out", out, "--check", manifests["test"])
    assert ended.status == 0, ended.err
    assert re.search(r"model.int8.onnx: WER .* exported, .* in torch; (\d+) of \1 ", ended.out)
    assert "OfflineRecognizer.from_omnilingual_asr_ctc" in ended.out
    names = {path.name for path in out.iterdir()}
    assert names == {"README.md", "index.html", "model.int8.onnx", "model.onnx", "tokens.txt"}
    ended = run("export", model, "--to", "sherpa", "--out", out)
    assert "was not measured: give --check MANIFEST" in ended.err
    line = run("export", model, "--to", "sherpa", "--out", out, "--features").error()
    assert "leave it out" in line
    line = run("export", model, "--to", "sherpa", "--out", out, "--graph").error()
    assert "expected a decoder with an n-gram model or a lexicon" in line
    line = run("export", model, "--to", "onnx", "--out", out, "--graph").error()
    assert "with --to sherpa only" in line
