"""A real training on real speech: sixty recordings of a man who says yes and no in Hebrew."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.evaluation.evaluate import evaluate
from asr.training.recipe import read_recipe
from data import yesno
from tests.tones import run_quietly

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "yesno" / "recipe.yaml"


@pytest.mark.slow
def test_yes_and_no_are_told_apart(shared_data: Path, tmp_path: Path) -> None:
    manifests = yesno.prepare(tmp_path, shared_data / "waves_yesno")
    places = [f"data.{part}={manifests[part]}" for part in ("train", "dev")]
    settings = [*places, f"out={tmp_path / 'run'}", "train.epochs=10"]
    model, _ = run_quietly(read_recipe(RECIPE, settings))
    words = evaluate(model, manifests["test"]).report.scores.words
    assert words.reference_length == 12 * 8
    assert words.rate <= 0.05, str(words)
