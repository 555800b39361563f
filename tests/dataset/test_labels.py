"""Labels beside transcripts: what is read of them, and what a training refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asr.dataset.labels import confidences, join
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError, ManifestError
from asr.training.prepare import datasets, identity, without_infeasible
from asr.training.recipe import Recipe, read_recipe
from tests.tones import tone_recipe, untrained_bundle, write_corpus


def manifest(path: Path, ids: str, **extra: object) -> Path:
    rows = [Utterance(id_, path.with_name(f"{id_}.wav"), "low", 1.0, extra=extra) for id_ in ids]
    write_manifest(path, rows)
    return path


def test_two_manifests_are_one_sequence(tmp_path: Path) -> None:
    train = read_manifest(manifest(tmp_path / "train.jsonl", "ab"))
    labels = read_manifest(manifest(tmp_path / "labels.jsonl", "cde"))
    both = join(train, tmp_path / "labels.jsonl", labels)
    assert [u.id for u in both] == list("abcde")
    assert [both[-1].id, both[-4].id, *(u.id for u in both[1:3])] == ["e", "b", "b", "c"]
    with pytest.raises(IndexError):
        both[5]
    with pytest.raises(
        ManifestError, match=r"labels.jsonl: expected ids .*got 2 in both, first 'a"
    ):
        join(train, tmp_path / "labels.jsonl", train)


@pytest.mark.parametrize("value", [None, "0.9", True, -0.1, 1.5, float("nan")])
def test_labels_need_a_confidence(tmp_path: Path, value: object) -> None:
    extra = {} if value is None else {"confidence": value}
    path = manifest(tmp_path / "labels.jsonl", "a", **extra)
    with pytest.raises(ManifestError, match="expected"):
        confidences(path, read_manifest(path))


def test_confidences(tmp_path: Path) -> None:
    path = manifest(tmp_path / "labels.jsonl", "ab", confidence=0.75)
    assert confidences(path, read_manifest(path)) == [0.75, 0.75]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2, "more": 3})
    labels = [replace(u, extra={"confidence": 0.5}) for u in read_manifest(manifests["more"])]
    write_manifest(tmp_path / "labels.jsonl", labels)
    (tmp_path / "recipe.yaml").write_text(
        tone_recipe(manifests, tmp_path / "out").model_dump_json()
    )
    labelled = ["data.labels=" + str(tmp_path / "labels.jsonl"), "data.label_weight=0.8"]
    return read_recipe(tmp_path / "recipe.yaml", labelled)


def test_a_training_counts_labels_at_their_weight(recipe: Recipe) -> None:
    tokens, _, train, dev = datasets(recipe, print)
    assert train.weights == [1.0] * 4 + [0.4] * 3
    # One that does not fit is left out with its weight.
    train.references[3] = "low high " * 50
    kept = without_infeasible(recipe, untrained_bundle(), train, lambda text: None)
    assert kept.weights == [1.0] * 3 + [0.4] * 3
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"label_weight": 0.5})})
    of = [identity(row, tokens, datasets(row, print)[2], dev) for row in (recipe, other)]
    assert of[0]["data.train"] != of[1]["data.train"]


def test_a_recipe_names_labels_beside_it(tmp_path: Path, recipe: Recipe) -> None:
    values = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"labels": Path("labels.jsonl")})}
    )
    (tmp_path / "other.yaml").write_text(values.model_dump_json())
    assert read_recipe(tmp_path / "other.yaml").data.labels == tmp_path / "labels.jsonl"


def test_labels_of_dev_speakers_and_without_audio_are_refused(
    tmp_path: Path, recipe: Recipe
) -> None:
    path = tmp_path / "labels.jsonl"
    labels = read_manifest(path)
    write_manifest(path, [replace(u, speaker="dev speaker") for u in labels])
    with pytest.raises(AsrError, match=r"dev speakers that are not in data\.labels, got 1"):
        datasets(recipe, print)
    write_manifest(path, [replace(u, audio=tmp_path / "no.wav") for u in labels])
    with pytest.raises(AsrError, match=r"labels.jsonl: expected every recording, got 1 of 1"):
        datasets(recipe, print)


def test_labels_that_training_cannot_use_are_left_out(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe.data.labels is not None
    rows = list(read_manifest(recipe.data.labels))
    rows[0] = replace(rows[0], text="löw", extra={"confidence": 0.9})
    known = [
        replace(u, id=f"again-{name}", extra={"confidence": 0.25})
        for name in ("train", "dev")
        for u in read_manifest(tmp_path / f"{name}.jsonl")[:1]
    ]
    write_manifest(recipe.data.labels, [known[0], *rows, known[1]])
    _, _, train, _ = datasets(recipe, print)
    assert [u.id for u in train.utterances][4:] == [u.id for u in rows[1:]]
    assert train.weights == [1.0] * 4 + [0.4] * 2
    said = capsys.readouterr().out
    assert "labels of recordings in data.train or data.dev: 2, first again-train" in said
    assert f"characters that the tokens lack: 1, first {rows[0].id}: 'ö'" in said
    write_manifest(recipe.data.labels, known)
    with pytest.raises(ManifestError, match="labels to train on, got none of 2"):
        datasets(recipe, print)
