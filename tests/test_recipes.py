"""Every folder in recipes/ that has a recipe: it parses, and what belongs beside it is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from asr.training.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path.parent for path in ROOT.glob("recipes/*/recipe.yaml"))


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("folder", RECIPES, ids=lambda folder: folder.name)
def test_a_recipe_parses_and_has_its_script_and_its_page(folder: Path) -> None:
    recipe = read_recipe(folder / "recipe.yaml")
    # The script prepares into exp/NAME/data: a recipe copied from another would train on that.
    out = ROOT / "exp" / folder.name
    shortens = (folder / "aligner.yaml").is_file()
    assert recipe.out.resolve() == out
    train = "short.jsonl" if shortens else "train.jsonl"
    assert recipe.data.train.resolve() == out / "data" / train
    assert recipe.data.dev.resolve() == out / "data" / "dev.jsonl"
    if shortens:
        aligner = read_recipe(folder / "aligner.yaml")
        assert aligner.out.resolve() == out / "aligner"
        assert aligner.data.train.resolve() == out / "data" / "train.jsonl"
    for path in folder.glob("*.yaml"):
        if path.name not in ("recipe.yaml", "aligner.yaml"):
            before = read_recipe(path)
            assert before.out.resolve() == out / path.stem
            assert (before.data.train, before.data.dev) == (recipe.data.train, recipe.data.dev)
            assert recipe.start.model is not None
            assert recipe.start.model.resolve() == before.out.resolve() / "model"
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert "## Results" in page
    script = (folder / "run.py").read_text(encoding="utf-8")
    assert f"recipes/{folder.name}/run.py" in (ast.get_docstring(ast.parse(script)) or "")
