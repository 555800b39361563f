"""The comparison of the recurrent family: equal budgets, and a table that pairs by utterance."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.dataset.manifest import Utterance, write_manifest
from asr.errors import AsrError
from asr.evaluation.error_rate import ErrorCounts
from asr.experiments.comparison import RunSettings, hidden_for, train_member
from asr.io.files import read_json
from asr.models.acoustic import AcousticModel
from asr.training.recipe import read_recipe
from recipes.an4.compare import BASELINE, HERE, MEMBERS, Run, table_row
from tests.tones import one_thread, write_corpus

RECIPE = HERE / "recipe.yaml"


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Overrides that name a training manifest of one utterance."""
    path = tmp_path / "train.jsonl"
    write_manifest(path, [Utterance("u", tmp_path / "u.wav", "abc", 1.0, "ann")])
    return [f"data.train={path}", f"data.dev={path}"]


def within(tmp_path: Path, budget: float = 1e6) -> RunSettings:
    return RunSettings(RECIPE, tmp_path / "out", tmp_path / "test.jsonl", budget)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_has_about_the_same_number_of_parameters(
    member: str, data: list[str], tmp_path: Path
) -> None:
    settings = [*data, *MEMBERS[member]]
    hidden = hidden_for(within(tmp_path), settings)
    recipe = read_recipe(RECIPE, [*settings, f"model.hidden={hidden}"])
    model = AcousticModel(recipe.features, recipe.model, 5)
    assert model.parameter_count() == pytest.approx(1e6, rel=0.07)


def test_a_budget_too_small_is_refused(data: list[str], tmp_path: Path) -> None:
    with pytest.raises(AsrError, match="got 10: raise --parameters"):
        hidden_for(within(tmp_path, 10), data)


def run(member: str, seed: int, errors: list[int]) -> Run:
    words = {f"u{i}": ErrorCounts(count, 0, 0, 5) for i, count in enumerate(errors)}
    return Run(
        member, seed, 30, 64, 1_000_000, 9.0, 0.01, "a machine", "2026-01-01", words, "model"
    )


def test_the_table_counts_errors_and_pairs_utterances_of_equal_seeds() -> None:
    runs = [
        run(BASELINE, 1, [1, 2, 3]),
        run(BASELINE, 2, [2, 2, 2]),
        run("BiGRU", 1, [0, 1, 2]),  # not yet trained with seed 2
    ]
    row = table_row("BiGRU", runs)
    assert row[:4] == ["BiGRU", "64", "1.00 M", "3"]
    assert row[4].startswith("20.00 (")
    assert row[5:7] == ["-20.00 (n/a)", "0.000"]
    assert table_row(BASELINE, runs)[3:7] == ["6, 6", table_row(BASELINE, runs)[4], "", ""]


def test_seeds_of_one_utterance_are_one_draw() -> None:
    once = [run(BASELINE, 1, [1, 0, 4, 2]), run("BiGRU", 1, [0, 1, 2, 2])]
    twice = [*once, run(BASELINE, 2, [1, 0, 4, 2]), run("BiGRU", 2, [0, 1, 2, 2])]
    for member in (BASELINE, "BiGRU"):
        # The same again says nothing new: intervals stay as wide as they are.
        assert table_row(member, twice)[4:7] == table_row(member, once)[4:7]


def test_a_member_is_trained_once_for_every_number_of_epochs(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2, "test": 2})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: train.jsonl, dev: dev.jsonl}\nout: unused\n")
    shared = RunSettings(recipe, tmp_path / "out", manifests["test"], 12_000)
    small = ["features.sample_rate=8000", "features.bands=16", "model.channels=[4]"]
    small += ["model.strides=[2]", "model.layers=1", "train.precision=fp32", "augment.vtlp=0"]
    settings = [*small, "train.epochs=1"]
    with one_thread():
        first = train_member(shared, "BiGRU, small", 1, [*settings, "model.cell=gru"])
        again = train_member(shared, "BiGRU, small", 1, [*settings, "model.cell=gru"])
        longer = train_member(shared, "BiGRU, small", 1, [*small, "train.epochs=2"])
    assert abs(first.parameters - 12_000) < 2000
    assert (first.epochs, longer.epochs) == (1, 2)
    assert first.words == again.words
    assert set(first.words) == {"test00", "test01"}
    assert first.model != longer.model
    assert Path(first.model).parent == tmp_path / "out" / "1-epochs-0.012M" / "BiGRU-small-1"
    assert read_json(Path(first.model) / "info.json")["epochs"] == 1
