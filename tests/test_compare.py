"""The comparison of the recurrent family: equal budgets, and a table that pairs by utterance."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.evaluation.error_rate import ErrorCounts
from asr.manifest import Utterance, write_manifest
from asr.models.acoustic import AcousticModel
from asr.training.recipe import read_recipe
from recipes.an4.compare import BASELINE, HERE, MEMBERS, Run, hidden_for, table_row

BUDGET = 1e6


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Overrides that name a training manifest of one utterance."""
    path = tmp_path / "train.jsonl"
    write_manifest(path, [Utterance("u", tmp_path / "u.wav", "abc", 1.0, "ann")])
    return [f"data.train={path}", f"data.dev={path}"]


@pytest.mark.parametrize("member", MEMBERS)
def test_every_member_has_about_the_same_number_of_parameters(member: str, data: list[str]) -> None:
    settings = [*data, *MEMBERS[member]]
    hidden = hidden_for(settings, BUDGET)
    recipe = read_recipe(HERE / "recipe.yaml", [*settings, f"model.hidden={hidden}"])
    model = AcousticModel(recipe.features, recipe.model, 5)
    assert model.parameter_count() == pytest.approx(BUDGET, rel=0.07)


def test_a_budget_too_small_is_refused(data: list[str]) -> None:
    with pytest.raises(AsrError, match="got 10: raise --parameters"):
        hidden_for(data, 10)


def run(member: str, seed: int, errors: list[int]) -> Run:
    words = {f"u{i}": ErrorCounts(count, 0, 0, 5) for i, count in enumerate(errors)}
    return Run(member, seed, 64, 1_000_000, 9.0, 0.01, "a machine", "2026-01-01", words)


def test_the_table_counts_errors_and_pairs_utterances_of_equal_seeds() -> None:
    runs = [
        run(BASELINE, 1, [1, 2, 3]),
        run(BASELINE, 2, [2, 2, 2]),
        run("BiGRU", 1, [0, 1, 2]),  # not yet trained with seed 2
    ]
    row = table_row("BiGRU", runs)
    assert row[:4] == ["BiGRU", "64", "1.00 M", "3"]
    assert row[4].startswith("20.00 (")
    assert row[5:7] == ["-20.00 (-20.00 to -20.00)", "0.000"]
    assert table_row(BASELINE, runs)[3:7] == ["6, 6", table_row(BASELINE, runs)[4], "", ""]
