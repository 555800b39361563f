"""Words are cut where nobody speaks, and aligned again as the model learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr.augment.config import AugmentConfig
from asr.dataset.cuts import Corpus
from asr.dataset.manifest import read_manifest
from asr.dataset.sampler import plan_all
from asr.dataset.speech_dataset import SpeechDataset
from asr.models.bundle import load_bundle
from asr.training import realign
from asr.training.loop import Loop, Loss, Task
from asr.training.realign import word_starts
from asr.training.recipe import Recipe
from tests.tones import (
    GAP_SECONDS,
    RATE,
    TONE_SECONDS,
    run_quietly,
    tone_recipe,
    trained_tones,
    write_corpus,
)

Factory = pytest.TempPathFactory

WORD_SECONDS = 2 * TONE_SECONDS + GAP_SECONDS


def trained_to_spell(tmp_path: Path) -> tuple[dict[str, Path], Path]:
    manifests = write_corpus(tmp_path, {"train": 40, "dev": 4})
    recipe = tone_recipe(
        manifests, tmp_path / "out", epochs=12, learning_rate=0.03, batch_seconds=2.5
    )
    model = recipe.model.model_copy(
        update={"strides": (1,), "layers": 2, "hierarchical_ctc_layer": 1}
    )
    return manifests, run_quietly(recipe.model_copy(update={"model": model}))[0]


@pytest.mark.parametrize("spells", [False, True])
def test_words_are_cut_in_the_gaps_between_them(
    tmp_path_factory: Factory, tmp_path: Path, spells: bool
) -> None:
    base = tmp_path_factory.getbasetemp()
    manifests, folder = trained_to_spell(tmp_path) if spells else trained_tones(base)
    bundle = load_bundle(folder)
    assert (bundle.model.spelling is not None) == spells
    data = SpeechDataset(read_manifest(manifests["train"]), bundle.tokens, bundle.text, RATE)
    starts = word_starts(bundle.model, data, bundle.tokens, plan_all(Corpus(data.durations), 60.0))
    cuts = 0
    for index, reference in enumerate(data.references):
        assert len(starts[index]) == len(reference.split())
        assert starts[index][0] == 0.0
        for number, cut in enumerate(starts[index][1:], start=1):
            # A word is two tones and a gap, after the gap with which a recording begins.
            gap_ends = GAP_SECONDS + number * WORD_SECONDS
            assert gap_ends - GAP_SECONDS <= cut <= gap_ends
            cuts += 1
    assert cuts > 40


def test_a_text_too_long_for_its_recording_is_left_out(tmp_path_factory: Factory) -> None:
    # Such a text can fit where the recording is only played slowly.
    manifests, folder = trained_tones(tmp_path_factory.getbasetemp())
    bundle = load_bundle(folder)
    rows = list(read_manifest(manifests["train"])[:3])
    rows[1] = replace(rows[1], text=" ".join([rows[1].text] * 20))
    data = SpeechDataset(rows, bundle.tokens, bundle.text, RATE)
    starts = word_starts(bundle.model, data, bundle.tokens, plan_all(Corpus(data.durations), 60.0))
    assert sorted(starts) == [0, 2]


def test_words_are_aligned_again_as_training_goes_on(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 8, "dev": 2})
    plain = tone_recipe(manifests, tmp_path / "out", epochs=11)
    augment = AugmentConfig(speeds=[1.0], splice_prob=0.5, splice_from=0.5, time_masks=0)
    _, shown = run_quietly(plain.model_copy(update={"augment": augment}))
    # From the seventh of eleven epochs on, every second one.
    assert shown.count("aligning the training data") == 3


def spliced(manifests: dict[str, Path], out: Path, epochs: int) -> Recipe:
    recipe = tone_recipe(manifests, out, epochs=epochs, save_seconds=0.0)
    augment = recipe.augment.model_copy(update={"splice_prob": 0.5, "splice_from": 0.0})
    return recipe.model_copy(update={"augment": augment})


def test_an_epoch_is_resumed_with_the_word_starts_it_began_with(
    tmp_path: Path,
) -> None:
    manifests = write_corpus(tmp_path / "corpus", {"train": 8, "dev": 2})
    whole, _ = run_quietly(spliced(manifests, tmp_path / "whole", 3))
    # Killed in its second epoch after the words were aligned anew, and before any checkpoint.
    recipe = spliced(manifests, tmp_path / "killed", 3)

    def dying(task: Task[Any]) -> Task[Any]:
        def stepped(loop: Loop, batch: Any, loss: Loss) -> None:
            task.stepped(loop, batch, loss)
            if loop.progress.epoch == 1:
                raise KeyboardInterrupt

        def save(loop: Loop) -> None:
            # The last checkpoint is within the first epoch.
            if (loop.progress.epoch, loop.progress.batch) == (0, 1):
                task.save(loop)

        return replace(task, stepped=stepped, save=save)

    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, dying)
    files = sorted(path.name for path in (tmp_path / "killed").glob("word_starts-*"))
    assert files == ["word_starts-0001.json", "word_starts-0002.json"]
    killed, _ = run_quietly(recipe)
    ours, theirs = (load_file(model / "model.safetensors") for model in (killed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_damaged_word_starts_are_aligned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realign, "ALIGN_EVERY", 0.5)
    manifests = write_corpus(tmp_path / "corpus", {"train": 8, "dev": 2})
    run_quietly(spliced(manifests, tmp_path / "out", 1))
    for file in (tmp_path / "out").glob("word_starts-*"):
        file.write_text("{}")
    # Of three epochs words are aligned anew in the third, so not in the next.
    recipe = spliced(manifests, tmp_path / "out", 3)
    _, shown = run_quietly(recipe)
    assert "expected word_starts-0001.json as it was saved, got something else" in shown
