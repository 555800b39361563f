"""The command line: what it takes and prints, and one line for whatever a person gets wrong.

Covers `asr/demo/run.py`, `asr/cli/data.py`.
"""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import typer

import asr.demo.run
from asr.cli.recipes import run_recipe
from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from asr.io.files import read_json
from asr.models.bundle import load_bundle
from asr.training import trainer
from asr.training.interrupt import InterruptedTraining
from tests.commands import Command
from tests.tones import tone_recipe, write_corpus


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    manifests = write_corpus(tmp_path / "corpus", {"train": 6, "dev": 2, "test": 3})
    values = tone_recipe(manifests, tmp_path / "out", epochs=1).model_dump(mode="json")
    (tmp_path / "recipe.yaml").write_text(json.dumps(values))
    return tmp_path / "recipe.yaml"


def test_every_error_of_ours_is_one_line_and_ctrl_c_is_quiet(run: Command) -> None:
    def fail() -> None:
        raise AsrError("expected [this], got that: fix it")

    ended = run(function=fail)
    assert ended.error() == "error: expected [this], got that: fix it"

    def interrupt() -> None:
        raise KeyboardInterrupt

    ended = run(function=interrupt)
    assert (ended.status, ended.err) == (130, "stopped\n")
    command = typer.Typer()
    command.command()(interrupt)
    ended = run(function=command)
    assert (ended.status, ended.err) == (130, "stopped\n")


# --- check ---


def test_check_reports_and_fails_on_problems(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    ended = run("check", manifests["train"], manifests["dev"], "--model", model)
    assert ended.status == 0, ended.out + ended.err
    corpus = write_corpus(tmp_path, {"train": 3})
    next(iter(read_manifest(corpus["train"]))).audio.unlink()
    ended = run("check", corpus["train"])
    assert ended.status == 1
    assert "train00" in ended.out


def test_check_names_what_is_missing(run: Command, tmp_path: Path) -> None:
    assert "absent.jsonl" in run("check", tmp_path / "absent.jsonl").error()
    assert "nowhere" in run("check", tmp_path / "a", "--model", tmp_path / "nowhere").error()


# --- train ---


def test_train_leaves_a_model_and_says_where(run: Command, recipe: Path) -> None:
    ended = run("train", recipe, "train.seed=7")
    assert ended.status == 0
    model = recipe.parent / "out" / "model"
    assert ended.err.splitlines()[-1] == f"model: {model}"
    assert all(ended.err.splitlines())
    assert load_bundle(model).info["seed"] == 7


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("train.epoch=3", "did you mean 'epochs'?"),
        ("modle.hidden=3", "did you mean 'model'?"),
        ("train.epochs=none", "at train.epochs"),
        ("epochs", "expected key.sub=value, got 'epochs'"),
    ],
)
def test_train_refuses_a_wrong_key_or_value(
    run: Command, recipe: Path, override: str, hint: str
) -> None:
    assert hint in run("train", recipe, override).error()


def test_train_refuses_what_is_not_there(run: Command, recipe: Path, tmp_path: Path) -> None:
    assert "absent.yaml" in run("train", tmp_path / "absent.yaml").error()
    absent = tmp_path / "absent.jsonl"
    assert str(absent) in run("train", recipe, f"data.train={absent}").error()


def test_train_refuses_an_out_that_is_a_file(run: Command, recipe: Path) -> None:
    assert str(recipe) in run("train", recipe, f"out={recipe}").error()


# --- evaluate ---


def test_evaluate_prints_and_writes_the_report(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    ended = run("evaluate", model, manifests["test"], "--out", tmp_path / "report")
    assert ended.status == 0
    report = read_json(tmp_path / "report" / "report.json")
    words = report["wer"]
    assert words["reference_length"] == sum(
        len(u.text.split()) for u in read_manifest(manifests["test"])
    )
    assert f"{words['errors']}/{words['reference_length']}" in ended.out
    assert (tmp_path / "report" / "report.txt").read_text().strip() == ended.out.strip()
    without = run("evaluate", model, manifests["test"])
    assert without.status == 0
    assert "report:" not in without.err


def test_evaluate_goes_on_past_a_bad_recording_and_fails(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path, {"test": 3})
    lost = read_manifest(corpus["test"])[1].audio
    lost.write_bytes(b"RIFF")
    ended = run("evaluate", tones[1], corpus["test"], "--out", tmp_path / "report")
    assert ended.status == 1
    (line,) = ended.errors
    assert lost.name in line
    assert len((tmp_path / "report" / "hypotheses.jsonl").read_text().splitlines()) == 3


def test_evaluate_that_can_read_nothing_says_so(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path, {"test": 2})
    for utterance in read_manifest(corpus["test"]):
        utterance.audio.write_bytes(b"RIFF")
    said = run("evaluate", tones[1], corpus["test"], "--out", tmp_path / "report").error()
    assert "expected recordings, got none that can be read, first: " in said
    assert not (tmp_path / "report" / "report.html").exists()


def test_evaluate_refuses_what_is_not_there(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    assert "nowhere" in run("evaluate", tmp_path / "nowhere", manifests["test"]).error()
    assert "absent.jsonl" in run("evaluate", model, tmp_path / "absent.jsonl").error()
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    assert "model.safetensors" in run("evaluate", broken, manifests["test"]).error()


def test_evaluate_refuses_an_out_that_is_a_file(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    (tmp_path / "taken").write_text("")
    ended = run("evaluate", model, manifests["test"], "--out", tmp_path / "taken")
    assert ended.status == 1
    assert any("taken" in line for line in ended.errors)


def test_training_tells_damage_once_a_recording(run: Command, recipe: Path) -> None:
    audio = sorted(recipe.parent.rglob("train*.wav"))[0]
    audio.write_bytes(audio.read_bytes()[:-100])
    for overrides in ([], ["train.epochs=3"]):  # afresh, and on from there
        ended = run("train", recipe, *overrides)
        assert ended.status == 0
        assert [line for line in ended.err.splitlines() if "cut off" in line] == [
            line for line in ended.err.splitlines() if line.startswith(f"warning: {audio}")
        ]
        assert ended.err.count("cut off") == 1


# --- stopped by a signal, and the recipes' own commands ---


def test_a_demo_that_is_stopped_tells_how_to_resume(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, finish_now: bool = False) -> Path:
        raise InterruptedTraining(signal.SIGTERM, tmp_path)

    manifests = write_corpus(tmp_path / "corpus", {"train": 2, "dev": 2, "test": 2})
    monkeypatch.setattr(asr.demo.run, "make_corpus", lambda *_, **__: manifests)
    monkeypatch.setattr(asr.demo.run, "train", stop)
    ended = run("demo", "--out", tmp_path)
    assert ended.status == 128 + signal.SIGTERM
    assert "the same command resumes the training" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


def test_a_recipe_that_is_stopped_tells_how_to_resume(
    run: Command, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, finish_now: bool = False) -> Path:
        raise InterruptedTraining(signal.SIGINT, tmp_path)

    monkeypatch.setattr(trainer, "train", stop)
    ended = run(function=lambda: run_recipe(recipe, [], {"test": tmp_path / "test.jsonl"}))
    assert ended.status == 128 + signal.SIGINT
    assert "the same command resumes the training" in ended.err.splitlines()[-1]


def test_a_recipe_trains_evaluates_and_writes_its_results(
    run: Command, recipe: Path, tmp_path: Path
) -> None:
    test = tmp_path / "corpus" / "test.jsonl"
    ended = run(function=lambda: run_recipe(recipe, ["train.seed=5"], {"test": test}))
    assert ended.status == 0
    report = read_json(tmp_path / "out" / "test" / "report.json")
    table = (tmp_path / "out" / "results.md").read_text()
    assert f"{report['wer']['errors']}/{report['wer']['reference_length']}" in table
    assert "| 5 |" in table
    assert "| test |" in table
    assert table.strip() in ended.out


def test_a_recipe_may_count_characters(run: Command, recipe: Path, tmp_path: Path) -> None:
    manifests = {}
    spoken = {"low": "打开客厅灯", "high": "关上卧室窗", "up": "今天天气好", "down": "明天会下雨"}
    for name in ("train", "dev", "test"):
        rows = [
            {"id": u.id, "audio": str(u.audio), "duration": u.duration, "speaker": u.speaker,
             "text": spoken[u.text.split()[0]]}
            for u in read_manifest(tmp_path / "corpus" / f"{name}.jsonl")
        ]  # fmt: skip
        manifests[name] = tmp_path / "corpus" / f"{name}_han.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        manifests[name].write_text("".join(lines), encoding="utf-8")
    data = [f"data.{name}={manifests[name]}" for name in ("train", "dev")]
    tests = {"test": manifests["test"], "test-words": tmp_path / "corpus" / "test.jsonl"}
    ended = run(function=lambda: run_recipe(recipe, data, tests))
    assert ended.status == 0, ended.err
    counts = read_json(tmp_path / "out" / "test" / "report.json")["cer"]
    table = (tmp_path / "out" / "results.md").read_text()
    characters, words = table.strip().split("\n\n")
    assert "| CER % (95 %) | errors | SER % |" in characters
    assert f"| {counts['errors']}/{counts['reference_length']} |" in characters
    assert "| WER % (95 %) | errors | CER % | SER % |" in words


def test_a_recipe_whose_test_recording_is_bad_fails_in_one_line_and_not_before_its_results(
    run: Command, recipe: Path, tmp_path: Path
) -> None:
    test = tmp_path / "corpus" / "test.jsonl"
    lost = read_manifest(test)[0].audio
    lost.unlink()
    tests = {"test": test, "test-more": tmp_path / "corpus" / "dev.jsonl"}
    ended = run(function=lambda: run_recipe(recipe, [], tests))
    assert ended.status == 1
    (line,) = ended.errors
    assert lost.name in line
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| test |" in table
    assert "| test-more |" in table
