"""The recipe of the model that comes along: it reads what its script writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import ManifestError
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


def said(id_: str, text: str) -> Utterance:
    return Utterance(id_, Path(f"/audio/{id_}.wav").resolve(), text, 1.0)


def test_readers_with_a_word_of_an4_are_added(tmp_path: Path) -> None:
    write_manifest(tmp_path / "train.jsonl", [said("a", "yes"), said("b", "two a and")])
    readers = [said("c", "SHE HAD TWO"), said("d", "A CAT AND A DOG"), said("e", "YES AND NO")]
    path = shipped.add_readers(tmp_path, readers)
    assert [u.id for u in read_manifest(path)] == ["a", "b", "c", "e"]
    assert [u.id for u in read_manifest(tmp_path / "train.jsonl")] == ["a", "b"]


def test_readers_without_a_word_of_an4_are_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "train.jsonl", [said("a", "yes and")])
    with pytest.raises(ManifestError, match="got none in 1 utterances"):
        shipped.add_readers(tmp_path, [said("d", "A CAT AND A DOG")])
