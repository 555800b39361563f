"""The recipe of the model that comes along: it reads what its script writes."""

from __future__ import annotations

from asr.training.recipe import read_recipe
from recipes.an4 import shipped


def test_the_recipe_names_what_the_script_makes() -> None:
    recipe = read_recipe(shipped.HERE / "shipped.yaml")
    data = (shipped.OUT / "data").resolve()
    assert recipe.data.train.resolve() == data / "train.jsonl"
    assert recipe.data.dev.resolve() == data / "surroundings" / "dev.jsonl"
    assert recipe.augment.noise.folder is not None
    assert recipe.augment.noise.folder.resolve() == data / "noise"
    assert recipe.out.resolve() == (shipped.OUT / f"1-{recipe.train.epochs}").resolve()
