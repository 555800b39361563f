"""Every folder in recipes/ that has a recipe: it parses, and what belongs beside it is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from asr.training.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.parent for path in ROOT.glob("recipes/*/recipe.yaml"))


def _parts(folder: Path) -> list[str]:
    """What run.py trains before recipe.yaml, in this order."""
    for node in ast.walk(ast.parse((folder / "run.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "before":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


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
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert "## Results" in page
    script = (folder / "run.py").read_text(encoding="utf-8")
    assert f"recipes/{folder.name}/run.py" in (ast.get_docstring(ast.parse(script)) or "")


PARTED = [folder for folder in RECIPES if _parts(folder)]


@pytest.mark.parametrize("folder", PARTED, ids=lambda folder: folder.name)
def test_parts_before_a_recipe_hand_their_model_on(folder: Path) -> None:
    names = [*_parts(folder), "recipe"]
    assert sorted([*names, "aligner"]) == sorted(path.stem for path in folder.glob("*.yaml"))
    parts = [read_recipe(folder / f"{name}.yaml") for name in names]
    assert parts[0].init.model is None
    for name, part, following in zip(names, parts, parts[1:], strict=False):
        assert part.out.resolve() == ROOT / "exp" / folder.name / name
        assert (part.data.train, part.data.dev) == (following.data.train, following.data.dev)
        assert following.init.model is not None
        assert following.init.model.resolve() == part.out.resolve() / "model"
