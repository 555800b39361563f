"""Recipes: where their paths lead, what is refused, and the recipes that come with the project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from asr.config import RENAMED, parse, read_yaml, settings, with_overrides
from asr.errors import ConfigError
from asr.training.recipe import Recipe, TrainConfig, read_recipe

ROOT = Path(__file__).resolve().parents[2]
SMALLEST = "data:\n  train: train.jsonl\n  dev: ../dev.jsonl\nout: run\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "here" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text(SMALLEST)
    return path


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        read_recipe(path, overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_paths_in_the_file_are_relative_to_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    parsed = read_recipe(recipe)
    assert parsed.data.train == recipe.parent / "train.jsonl"
    assert parsed.data.dev.resolve() == tmp_path / "dev.jsonl"
    assert parsed.out == recipe.parent / "run"


def test_shards_come_from_a_folder_beside_the_recipe_or_from_an_address(recipe: Path) -> None:
    recipe.write_text(SMALLEST.replace("out:", "  origin: packed\nout:"))
    assert read_recipe(recipe).data.origin == "packed"
    (recipe.parent / "packed").mkdir()
    assert read_recipe(recipe).data.origin == str(recipe.parent / "packed")


def test_a_recipe_named_from_its_own_folder_is_the_same(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absolute = read_recipe(recipe)
    monkeypatch.chdir(recipe.parent)
    assert read_recipe("recipe.yaml") == absolute


def test_absolute_paths_stay(recipe: Path) -> None:
    recipe.write_text("data: {train: /a/train.jsonl, dev: /a/dev.jsonl}\nout: /b\n")
    parsed = read_recipe(recipe)
    assert (parsed.data.train, parsed.out) == (Path("/a/train.jsonl"), Path("/b"))


def test_paths_in_overrides_are_relative_to_the_working_folder(recipe: Path) -> None:
    parsed = read_recipe(recipe, ["out=exp/other", "data.train=mine.jsonl"])
    assert parsed.out == Path("exp/other")
    assert parsed.data.train == Path("mine.jsonl")
    assert parsed.data.dev == recipe.parent / "../dev.jsonl"


def test_overrides_reach_every_section(recipe: Path) -> None:
    parsed = read_recipe(
        recipe,
        [
            "train.epochs=5",
            "model.channels=[8]",
            "model.strides=[3]",
            "augment.speeds=[0.95, 1.05]",
            "features.cmvn=global",
            "tokens.kind=words",
            "text.case=upper",
        ],
    )
    assert parsed.train.epochs == 5
    assert (parsed.model.channels, parsed.model.strides) == ((8,), (3,))
    assert parsed.augment.speeds == [0.95, 1.05]
    assert (parsed.features.cmvn, parsed.tokens.kind, parsed.text.case) == (
        "global",
        "words",
        "upper",
    )


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("trian.epochs=5", "did you mean 'train'?"),
        ("train.epoch=5", "did you mean 'epochs'?"),
        ("model.hiden=5", "did you mean 'hidden'?"),
        ("data.test=a.jsonl", "unknown key 'data.test'"),
    ],
)
def test_an_unknown_key_names_the_nearest(recipe: Path, override: str, hint: str) -> None:
    message = refused(recipe, override)
    assert hint in message
    assert f"{recipe}: unknown key {override.partition('.')[0]!r}"[:-1] in message


@pytest.mark.parametrize(("former", "now"), RENAMED.items())
def test_a_former_name_is_refused_with_the_new_one(recipe: Path, former: str, now: str) -> None:
    expected = f"{recipe}: unknown key {former!r}: it is now {now}; rename it"
    assert refused(recipe, f"{former}=0") == expected
    recipe.write_text(yaml.safe_dump(with_overrides(read_yaml(recipe), [f"{former}=0"])))
    assert refused(recipe) == expected


def test_former_names_are_gone_and_the_new_ones_exist() -> None:
    keys = {setting.key for setting in settings(Recipe)}
    sections = {key.rpartition(".")[0] for key in keys}
    assert not keys & set(RENAMED)
    for former, now in RENAMED.items():
        assert set(re.split(", | and ", now)) <= keys | sections, former


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=many", "train.epochs"),
        ("train.precision=fp8", "train.precision"),
        ("train.learning_rate=-1", "train.learning_rate"),
        ("train.warmup=1", "train.warmup"),
        ("model.channels=[8, 8, 8]", "model"),
        ("augment.speeds=[]", "augment.speeds"),
        ("data=5", "data"),
        ("train=5", "train"),
    ],
)
def test_a_value_that_makes_no_sense_names_its_key(recipe: Path, override: str, key: str) -> None:
    assert f"at {key}" in refused(recipe, override)


@pytest.mark.parametrize(
    "settings",
    [["model.chunk=8"], ["model.bidirectional=false", "model.lookahead=8", "features.deltas=1"]],
)
def test_what_is_meant_to_stream_must_be_able_to(recipe: Path, settings: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"expected features\.cmvn none or global") as error:
        read_recipe(recipe, [*settings, "features.cmvn=utterance"])
    assert "\n" not in str(error.value)
    read_recipe(recipe, [settings[0], "features.cmvn=global"])


def test_manifests_are_required(recipe: Path) -> None:
    recipe.write_text("data: {train: a.jsonl}\nout: run\n")
    assert "data.dev" in refused(recipe)
    recipe.write_text("data:\nout: run\n")
    assert str(recipe) in refused(recipe)
    recipe.write_text("out: run\n")
    assert "data" in refused(recipe)


@pytest.mark.parametrize("value", ["yes", "[]", "[1, 2]", "a text", "3"])
@pytest.mark.parametrize("section", ["data", "augment", "init", "tokens", "augment.noise"])
def test_a_section_is_a_mapping(recipe: Path, section: str, value: str) -> None:
    outer, _, inner = section.partition(".")
    kept = "" if outer == "data" else "data: {train: a, dev: b}\n"
    section_text = f"{outer}: {{{inner}: {value}}}\n" if inner else f"{outer}: {value}\n"
    recipe.write_text(f"{kept}{section_text}out: run\n")
    assert f"at {section}" in refused(recipe)


def test_an_empty_path_is_none_and_no_folder_of_that_name(recipe: Path) -> None:
    recipe.write_text("data: {train: a, dev: b}\nout:\n")
    assert "at out" in refused(recipe)
    recipe.write_text("data: {train: a, dev:}\nout: run\n")
    assert "at data.dev" in refused(recipe)
    recipe.write_text("data: {train: 1, dev: 2025-02-03}\nout: 7\n")
    parsed = read_recipe(recipe)
    assert [path.name for path in (parsed.data.train, parsed.data.dev, parsed.out)] == [
        "1",
        "2025-02-03",
        "7",
    ]


def test_a_folder_may_have_the_name_of_a_number_or_a_date(recipe: Path) -> None:
    recipe.write_text("data: {train: a, dev: b}\nout: run\n")
    given = ["out=7", "data.origin=2025", "augment.noise.folder=2025-02-03"]
    parsed = read_recipe(recipe, [*given, "augment.reverb.folder=7"])
    assert parsed.out == Path("7")
    assert parsed.data.origin == "2025"
    assert parsed.augment.noise.folder == Path("2025-02-03")
    assert parsed.augment.reverb.folder == Path("7")


def test_a_missing_or_garbled_recipe_is_one_line(recipe: Path) -> None:
    assert "none at" in refused(recipe.with_name("absent.yaml"))
    assert str(recipe.parent) in refused(recipe.parent)
    recipe.write_text("data: [\n")
    assert "line" in refused(recipe)
    recipe.write_bytes(b"\xff\xfe\x00")
    assert str(recipe) in refused(recipe)


def test_a_recipe_survives_json(recipe: Path) -> None:
    parsed = read_recipe(recipe, ["model.channels=[8, 16]", "model.strides=[2, 3]"])
    assert Recipe.model_validate(parsed.model_dump(mode="json")) == parsed


# --- a recipe of the project; tests/recipes/test_recipes.py reads them all ---


def run_an4(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "an4" / "run.py"), *arguments],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_an4_recipe_runs_from_any_folder(tmp_path: Path) -> None:
    ended = run_an4(tmp_path, "--help")
    assert ended.returncode == 0, ended.stderr
    assert "--source" in ended.stdout
    assert "key=value" in ended.stdout


def test_a_folder_may_have_a_name_that_yaml_reads_otherwise(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {train: a, dev: b}\nout: c\n")
    for name in ("2026-11-28", "7", "run"):
        assert read_recipe(tmp_path / "recipe.yaml", [f"out={name}"]).out == Path(name)


def test_a_seed_that_torch_cannot_take_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {train: a, dev: b}\nout: c\n")
    with pytest.raises(ConfigError, match=r"train\.seed"):
        read_recipe(tmp_path / "recipe.yaml", ["train.seed=20261128123456"])


def test_the_an4_recipe_refuses_another_folder_in_one_line(tmp_path: Path) -> None:
    ended = run_an4(tmp_path, "--source", str(tmp_path))
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"error: expected AN4 with its etc and wav folders, got {tmp_path}: check --source"
    ]


def test_every_setting_is_listed_with_its_default_and_meaning() -> None:
    listed = {setting.key: setting for setting in settings(Recipe)}
    assert listed["train.epochs"].default == str(TrainConfig().epochs)
    assert listed["data.train"].default == ""
    assert "One of: none, utterance, global, level." in listed["features.cmvn"].meaning
    assert [key for key, setting in listed.items() if not setting.meaning] == []
    for key, setting in listed.items():
        if setting.default:  # what is listed can be given back
            overrides = [f"{key}={setting.default}", "out=x", "data.train=a", "data.dev=b"]
            parse(Recipe, with_overrides({}, overrides), "test")
