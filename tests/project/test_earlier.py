"""The sets of the trainings that led to a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.io.files import write_json
from asr.project.earlier import earlier_sets
from asr.training.recipe import as_json, read_recipe
from tests.commands import Command
from tests.tones import SMALL, write_recordings


def run_folder(folder: Path, name: str, init: Path | None = None) -> Path:
    """A model folder, and the files of its training around it."""
    manifests = {}
    for part in ("train", "dev", "test", "labels"):
        manifests[part] = folder / name / f"{part}.jsonl"
        row = Utterance(f"{name} {part}", folder / name / f"{part}.wav", "low", 1.0)
        write_manifest(manifests[part], [row])
    data = {part: str(manifests[part]) for part in ("train", "dev", "labels")}
    recipe = {"data": data, "init": {"model": None if init is None else str(init)}}
    write_json(folder / name / "run" / "recipe.json", recipe)
    (folder / name / "run" / "model").mkdir()
    return folder / name / "run" / "model"


def test_labels_and_the_models_before_count(tmp_path: Path) -> None:
    first = run_folder(tmp_path, "first")
    earlier = earlier_sets(run_folder(tmp_path, "second", first))
    assert {u.id for u in earlier.train} == {
        f"{name} {part}" for name in ("first", "second") for part in ("train", "labels")
    }
    assert {u.id for u in earlier.test} == {"first test", "second test"}
    assert not earlier.missing
    assert earlier.unknown is None
    unknown = earlier_sets(tmp_path / "first")  # no run folder around it
    assert not unknown.train
    assert unknown.unknown == tmp_path / "first"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    model = run_folder(tmp_path, "one", tmp_path / "gone")
    (tmp_path / "one" / "labels.jsonl").unlink()
    (tmp_path / "one" / "dev.jsonl").write_text("{")
    earlier = earlier_sets(model)
    assert [u.id for u in earlier.train] == ["one train"]
    names = ["labels.jsonl", "dev.jsonl", "gone"]
    assert [path.name for path in earlier.missing] == names
    (model.parent / "recipe.json").write_text('{"data": {"train": "relative.jsonl"}}')
    assert [path.name for path in earlier_sets(model).missing] == ["relative.jsonl"]
    (model.parent / "recipe.json").write_text("[]")
    assert not earlier_sets(model).train


def test_what_an_encoder_has_heard_counts(run: Command, tmp_path: Path) -> None:
    write_recordings(tmp_path / "rec", dict.fromkeys(["ann", "ben", "cid", "dora", "eve"], 6))
    settings = ["precision=fp32", *(s for s in SMALL if "epochs" not in s), "epochs=1"]
    options = [word for setting in settings for word in ("--set", setting)]
    ended = run("pretrain", tmp_path / "rec", "--out", tmp_path / "p", *options)
    assert ended.status == 0, ended.err
    earlier = earlier_sets(tmp_path / "p" / "encoder")
    names = {path.name for path in (tmp_path / "rec").rglob("*.wav")}
    heard = {u.audio.name for u in [*earlier.train, *earlier.dev]}
    assert heard <= names  # some are too short
    assert len(heard) > 20
    assert earlier.dev
    ended = run("new", tmp_path / "q", tmp_path / "rec", "--from", tmp_path / "p" / "encoder")
    assert ended.status == 0, ended.err
    assert "dev or test has recordings that the model was trained on" in ended.out
    assert "none moves" not in ended.out
    (tmp_path / "p" / "train.jsonl").unlink()
    assert earlier_sets(tmp_path / "p" / "encoder").missing == [tmp_path / "p" / "train.jsonl"]


def test_recipes_are_kept_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text("data: {train: a.jsonl, dev: b.jsonl}")
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe("r.yaml", ["data.train=c.jsonl", "out=exp"])
    kept = as_json(recipe)
    assert kept["data"]["train"] == str(tmp_path / "c.jsonl")
    assert kept["out"] == str(tmp_path / "exp")


def test_a_model_is_trained_further_on_the_same_sets(run: Command, tmp_path: Path) -> None:
    names = ["ann", "ben", "cid", "dora", "eve", "fay", "gil", "hal", "ian", "joe"]
    write_recordings(tmp_path / "all", dict.fromkeys(names, 6))
    (tmp_path / "rec").mkdir()
    for name in names[:5]:
        (tmp_path / "all" / name).rename(tmp_path / "rec" / name)
    assert run("new", tmp_path / "p", tmp_path / "rec").status == 0
    ended = run("train", tmp_path / "p" / "recipe.yaml", *SMALL)
    assert ended.status == 0, ended.err
    for name in names[5:]:
        (tmp_path / "all" / name).rename(tmp_path / "rec" / name)
    ended = run("new", tmp_path / "q", tmp_path / "rec", "--from", tmp_path / "p" / "run" / "model")
    assert ended.status == 0, ended.err
    assert "sets of the earlier training: 30 recordings stay" in ended.out
    for part in ("train", "dev", "test"):
        old, new = (read_manifest(tmp_path / p / f"{part}.jsonl") for p in "pq")
        assert {u.audio for u in old} <= {u.audio for u in new}
    shutil.copytree(tmp_path / "rec", tmp_path / "moved")
    ended = run(
        "new", tmp_path / "s", tmp_path / "moved", "--from", tmp_path / "p" / "run" / "model"
    )
    assert "none of these recordings is known from the earlier training" in ended.out
    (tmp_path / "p" / "train.jsonl").unlink()
    ended = run("new", tmp_path / "r", tmp_path / "rec", "--from", tmp_path / "p" / "run" / "model")
    assert "sets of an earlier training are not known" in ended.out
