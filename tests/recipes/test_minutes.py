"""The experiment with few minutes of speech: what is drawn, and what is reported."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from asr.dataset.manifest import Utterance, read_manifest
from asr.evaluation.error_rate import ErrorCounts
from recipes.fsdd import minutes


def rows(count: int) -> list[Utterance]:
    return [Utterance(str(i), Path("x.wav"), "one", 6.0, "ann") for i in range(count)]


def test_fewer_minutes_are_part_of_more_and_another_seed_draws_others() -> None:
    few, more = minutes.drawn(rows(100), 1, 1), minutes.drawn(rows(100), 5, 1)
    assert (len(few), len(more)) == (10, 50)
    assert few == more[:10]
    assert few == minutes.drawn(rows(100)[::-1], 1, 1)
    assert few != minutes.drawn(rows(100), 1, 2)
    assert {u.speaker for u in minutes.nameless(rows(3))} == {""}


def test_a_cell_is_trained_as_asr_new_proposes(tmp_path: Path) -> None:
    arguments = Namespace(out=tmp_path, most=None, overrides=["train.epochs=7"])
    manifests = {"dev": tmp_path / "dev.jsonl"}
    name, changes = next(reversed(minutes.RULES.items()))
    recipe = minutes.recipe_of(
        arguments, manifests, rows(100), name, minutes.INCLUDED, (1.0, 3), changes
    )
    assert recipe.init.preserve
    assert f"{recipe.train.learning_rate:g}" in name.replace("3e-3", "0.003")
    assert f"{recipe.init.freeze_layers} layers fixed" in name
    assert (recipe.train.seed, recipe.train.epochs) == (3, 7)
    assert recipe.data.dev == manifests["dev"]
    assert len(read_manifest(recipe.data.train)) == 10
    scratch = minutes.recipe_of(arguments, manifests, rows(100), "scratch", None, (1.0, 3))
    assert scratch.init.model is None
    assert scratch.out != recipe.out
    arguments.most = 3
    shorter = minutes.recipe_of(arguments, manifests, rows(100), "scratch", None, (1.0, 3))
    assert shorter.train.epochs == 3
    assert shorter.out != scratch.out


def test_a_row_has_the_errors_of_every_seed(tmp_path: Path) -> None:
    words = {str(i): ErrorCounts(i % 2, 0, 0, 1) for i in range(10)}
    cells = [minutes.Cell(1.0, minutes.SCRATCH, seed, 60, 5, words) for seed in (1, 2)]
    minutes.write_results(cells, list(words.values()), tmp_path)
    lines = (tmp_path / "minutes.md").read_text().splitlines()
    assert lines[2].startswith("| 0 | recogniser as it is |  |  | 5 | 50.0 (")
    assert lines[3].startswith("| 1 | random weights | 60 | 5, 5 | 5, 5 | 50.0 (")
