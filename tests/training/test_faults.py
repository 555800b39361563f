"""Recordings that vanish or change in a training: one line, and it goes on when they are back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError, AudioError
from asr.io.files import digest
from asr.training.recipe import Recipe
from tests.hooks import before_step
from tests.tones import run_quietly, tone_recipe, write_corpus

EARLY, LATE = 2, 14  # steps; the latter is in the second epoch, when all recordings are in memory


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("faults")
    manifests = write_corpus(folder, {"train": 12, "dev": 2})
    return tone_recipe(manifests, folder / "whole", epochs=2, batch_seconds=0.8)


@pytest.fixture(scope="module")
def whole(recipe: Recipe) -> str:
    """Digest of the model of an undisturbed training."""
    return trained(recipe)


def trained(recipe: Recipe) -> str:
    return digest(run_quietly(recipe)[0] / "model.safetensors")


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def move_away(audio: Path) -> None:
    audio.rename(audio.with_name("elsewhere"))


def replace_by_another(audio: Path) -> None:
    other = audio.with_name("other")
    other.mkdir()
    paths = sorted(audio.iterdir())
    for number, path in enumerate(paths):
        shutil.copy(paths[number - 1], other / path.name)
    move_away(audio)  # at once, since another thread reads
    other.rename(audio)


def put_back(audio: Path) -> None:
    if audio.exists():
        shutil.rmtree(audio)
    audio.with_name("elsewhere").rename(audio)


@pytest.mark.parametrize(
    ("disturb", "words"),
    [(move_away, "got no such file"), (replace_by_another, "as it was when the training began")],
)
def test_a_recording_that_vanishes_or_changes_is_named(
    recipe: Recipe, whole: str, disturb: Callable[[Path], None], words: str
) -> None:
    out = recipe.out.with_name(disturb.__name__)
    audio = read_manifest(recipe.data.train)[0].audio.parent
    disturbed = recipe.model_copy(update={"out": out})
    try:
        with pytest.raises(AudioError) as error:
            run_quietly(disturbed, before_step(EARLY, lambda: disturb(audio)))
    finally:
        put_back(audio)
    assert str(audio / "train") in one_line(error)
    assert words in one_line(error)
    assert (out / "checkpoint").is_dir()
    assert trained(disturbed) == whole


def test_recordings_in_memory_are_not_missed(recipe: Recipe, whole: str) -> None:
    audio = read_manifest(recipe.data.train)[0].audio.parent
    disturbed = recipe.model_copy(update={"out": recipe.out.with_name("late")})
    try:
        model, _ = run_quietly(disturbed, before_step(LATE, lambda: move_away(audio)))
    finally:
        put_back(audio)
    assert digest(model / "model.safetensors") == whole


def test_a_thread_of_prefetch_that_dies_ends_a_training(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asr.dataset.prefetch.threading.Thread.run", lambda _: None)
    with pytest.raises(AsrError, match="expected more from the thread that reads ahead") as error:
        run_quietly(recipe.model_copy(update={"out": recipe.out.with_name("dead")}))
    one_line(error)
