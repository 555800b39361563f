"""What the README says is run as it stands there."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from asr.cli.main import app, main
from asr.config import parse, with_overrides
from asr.decoding.decoder import Decoder
from asr.inference.recognizer import Recognizer
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.training.recipe import Recipe
from tests.tones import (
    FEATURES,
    MODEL,
    RATE,
    SMALL,
    one_thread,
    trained_tones,
    untrained_bundle,
    write_corpus,
    write_recordings,
)

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def shell_lines() -> list[str]:
    lines = (line for block in blocks("") for line in block.splitlines())
    return [line.partition("#")[0].strip() for line in lines if line.strip()]


def test_make_targets_exist() -> None:
    targets = {line.split()[1] for line in shell_lines() if line.startswith("make ")}
    targets |= set(re.findall(r"`make (\w+)", README))
    assert {"demo", "test"} <= targets
    for target in targets:
        subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True, timeout=60
        )


def test_ci_calls_the_readme_test_command() -> None:
    assert "make test" in shell_lines()
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_files_named_exist() -> None:
    for name in re.findall(r"`([\w./-]+/[\w./-]*)`", README):
        if not name.startswith("exp/"):
            assert (ROOT / name).exists(), name


@pytest.mark.usefixtures("small_grid")
def test_own_recordings_as_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path, {"train": 6, "dev": 2})
    write_recordings(tmp_path / "recordings", {"ann": 4, "ben": 4, "cid": 4})
    (example,) = blocks("json")
    written = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert set(json.loads(example)) == set(written)
    (tmp_path / "recipe.yaml").write_text(blocks("yaml")[0])
    monkeypatch.chdir(tmp_path)
    commands = [
        shlex.split(line)[1:]
        for line in shell_lines()
        if line.startswith(".venv/bin/asr") and re.search(r"new|jsonl|recipe\.yaml|compare", line)
    ]
    first, by_hand = ["new", "train", "evaluate"], ["check", "train", "evaluate"]
    names = [*first, *by_hand, "compare", "lm", "tune"]
    assert [command[0] for command in commands] == names
    with one_thread():
        for command in commands:
            small = SMALL if command[0] == "train" else []
            if command[0] == "compare":
                shutil.copytree(tmp_path / "exp/mine/dev", tmp_path / "exp/other/dev")
            monkeypatch.setattr(sys, "argv", ["asr", *command, *small])
            with pytest.raises(SystemExit) as stop:
                main()
            assert not stop.value.code, (command, capsys.readouterr())
    assert (tmp_path / "greetings" / "report" / "report.html").is_file()
    assert (tmp_path / "exp" / "mine" / "dev" / "report.html").is_file()
    assert (tmp_path / "exp" / "comparison" / "comparison.html").is_file()
    assert (tmp_path / "exp" / "mine" / "model" / "decoder.json").is_file()


def test_transcribe_as_described(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    (line,) = [line for line in shell_lines() if line.startswith(".venv/bin/asr transcribe")]
    manifests, _ = trained_tones(tmp_path_factory.getbasetemp())
    audio = sorted((manifests["test"].parent / "test").glob("*.wav"))
    (tmp_path / "recordings").mkdir()
    shutil.copy(audio[0], tmp_path / "letters.wav")
    shutil.copy(audio[1], tmp_path / "recordings")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with one_thread(), pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    lines = capsys.readouterr().out.splitlines()
    shown = blocks("text")[0].splitlines()
    assert len(lines) == len(shown)
    assert all(line.count("\t") == 1 for line in lines + shown)


def test_python_as_described(tmp_path_factory: pytest.TempPathFactory) -> None:
    manifests, model = trained_tones(tmp_path_factory.getbasetemp())
    audio = next((manifests["test"].parent / "test").glob("*.wav"))
    code = blocks("python")[0]
    code = re.sub(r'asr\.load\("[^"]*"\)', f'asr.load("{model}")', code)
    code = re.sub(r'transcribe\("[^"]*"\)', f'transcribe("{audio}")', code)
    out = io.StringIO()
    with one_thread(), contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    assert re.match(r"\w+[\w ]* \[\('\w+', \d", out.getvalue())


def test_streaming_as_described() -> None:
    torch.manual_seed(0)
    settings = re.findall(r"`(model\.[^`]*features\.cmvn=global)`", README)
    assert len(settings) == 2
    for line in settings:
        values = with_overrides({"model": MODEL.model_dump()}, line.split())
        features = FEATURES.model_copy(update=values["features"])
        bundle = untrained_bundle()
        config = parse(ModelConfig, values["model"], "README")
        bundle = replace(bundle, model=AcousticModel(features, config, len(bundle.tokens)).eval())
        samples = torch.rand(2 * RATE) - 0.5
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            recognizer = Recognizer(bundle, Decoder(bundle.tokens))
            names = {"recognizer": recognizer, "microphone": samples.split(900)}
            exec(compile(blocks("python")[1], "README.md", "exec"), names)
        texts = out.getvalue().split("\n")[:-1]
        assert len(texts) == len(samples.split(900)) + 1
        assert all(after.startswith(before) for before, after in itertools.pairwise(texts))
        whole = recognizer.transcribe(samples.numpy(), sample_rate=16000)
        assert texts[-1] == whole.text


def test_every_command_is_in_the_table() -> None:
    def names(command: Any, name: str) -> list[str]:
        inner = getattr(command, "commands", {})
        shown = {key: inner[key] for key in inner if not inner[key].hidden}
        return [full for key in shown for full in names(shown[key], f"{name} {key}")] or [name]

    table = README.partition("## Commands")[2].partition("##")[0]
    assert sorted(re.findall(r"^\| `(asr [a-z ]+)`", table, re.MULTILINE)) == sorted(
        names(typer.main.get_command(app), "asr")
    )


def test_settings_named_exist() -> None:
    table = README.partition("## Which model, which machine")[2].partition("##")[0]
    rows = re.findall(r"`((?:model|tokens)\.[^`]*)`", table)
    assert len(rows) == 12
    for row in rows:
        data = {"data": {"train": "a", "dev": "b"}, "out": "c"}
        parse(Recipe, with_overrides(data, row.split()), row)
