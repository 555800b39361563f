"""`asr label`: what dev can be trusted to is kept, and a stopped run goes on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import asr.inference.label
from asr.audio.load import write_wav
from asr.dataset.manifest import read_manifest, write_manifest
from asr.io.files import write_json
from asr.io.shard_results import RESULTS
from tests.commands import Command

Tones = tuple[dict[str, Path], Path]


@pytest.fixture
def folder(tones: Tones, tmp_path: Path) -> Path:
    """Six recordings of the test set, and one that is none."""
    (tmp_path / "new").mkdir()
    for u in read_manifest(tones[0]["test"])[:6]:
        shutil.copy(u.audio, tmp_path / "new")
    (tmp_path / "new" / "bad.wav").write_text("not audio")
    return tmp_path / "new"


def test_label(run: Command, tones: Tones, folder: Path) -> None:
    manifests, model = tones
    out = folder.parent / "labels.jsonl"
    words = "label", model, folder
    single = run(*words, "--dev", manifests["dev"], "--out", out)
    assert single.status == 1
    assert "bad.wav" in single.errors[0]
    assert "6 labels" in single.err
    assert "on --dev they have WER" in single.err
    spoken = {u.id: u.text for u in read_manifest(manifests["test"])}
    labels = read_manifest(out)
    assert {u.id: u.text for u in labels}.items() <= spoken.items()
    # A recording that was repaired is tried again, the others are not.
    shutil.copy(folder / "test00.wav", folder / "bad.wav")
    ended = run(*words, "--out", out)
    assert ended.status == 0
    assert "6 of 7 were done before" in ended.err
    assert "kept all 7 of 7 labels, 0.00 of 0.00 hours: without --dev" in ended.err
    assert not list(folder.parent.glob("*.shards"))
    # In shards, the same.
    merged = folder.parent / "merged.jsonl"
    for number in (1, 2):
        assert run(*words, "--out", merged, "--shard", f"{number}/2").status == 0
    assert run(*words, "--out", merged, "--merge").status == 0
    assert merged.read_bytes() == out.read_bytes()


def test_transcripts_are_not_replaced(run: Command, tones: Tones, folder: Path) -> None:
    manifests, model = tones
    out = folder.parent / "train.jsonl"
    shutil.copy(manifests["train"], out)
    refused = run("label", model, folder, "--out", out).error()
    assert f"expected a new --out or an earlier one of labels, got {out}" in refused
    assert out.read_bytes() == manifests["train"].read_bytes()
    out.write_text("rubbish")
    assert "which has lines without confidence" in run("label", model, folder, "--out", out).error()


def test_dev_that_the_model_was_trained_on_is_noted(
    run: Command, tones: Tones, folder: Path
) -> None:
    manifests, model = tones
    (folder / "bad.wav").unlink()
    shutil.copytree(model, folder.parent / "run" / "model")
    data = {"train": str(manifests["train"]), "dev": str(manifests["dev"])}
    write_json(folder.parent / "run" / "recipe.json", {"data": data})
    words = "label", folder.parent / "run" / "model", folder, "--out", folder.parent / "l.jsonl"
    assert "was trained on" not in run(*words, "--dev", manifests["dev"]).err
    learnt = run(*words, "--dev", manifests["train"])
    count = len(read_manifest(manifests["train"]))
    assert f"was trained on {count} of the {count} recordings of --dev" in learnt.err


def test_a_stopped_run_goes_on(
    run: Command, tones: Tones, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bad.wav").unlink()
    out = folder.parent / "labels.jsonl"
    label_all = asr.inference.label.label_all

    def stopped(*arguments: object) -> object:
        for number, row in enumerate(label_all(*arguments)):  # type: ignore[arg-type]
            if number == 4:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch:
        patch.setattr("asr.inference.label.label_all", stopped)
        assert run("label", tones[1], folder, "--out", out).status == 130
    assert not out.exists()
    (journal,) = folder.parent.rglob(RESULTS)
    assert len(journal.read_text().splitlines()) == 1 + 4
    # The lock of the stopped process is gone; other options need another journal.
    refused = run("label", tones[1], folder, "--out", out, "--seconds", "5").error()
    assert "seconds" in refused
    assert "4 of 6 were done before" in run("label", tones[1], folder, "--out", out).err
    assert len(read_manifest(out)) == 6


def test_labels_train(run: Command, tones: Tones, folder: Path) -> None:
    out = folder.parent / "labels.jsonl"
    (folder / "bad.wav").unlink()
    assert run("label", tones[1], folder, "--out", out).status == 0
    (folder.parent / "recipe.json").write_text((tones[1].parent / "recipe.json").read_text())
    wanted = [f"data.labels={out}", f"out={folder.parent / 'both'}", "train.epochs=1"]
    ended = run("train", folder.parent / "recipe.json", *wanted)
    assert ended.status == 0
    assert "46 utterances" in ended.err
    write_manifest(out, read_manifest(tones[0]["test"])[:6])
    error = run("train", folder.parent / "recipe.json", *wanted).error()
    assert "labels.jsonl: utterance 'test00': expected a confidence from 0 to 1, got none" in error


def test_misuse(run: Command, tones: Tones, folder: Path) -> None:
    manifests, model = tones
    for path in (manifests["test"], manifests["dev"]):
        words = "label", model, manifests["test"], "--dev", manifests["dev"], "--out", path
        assert "--out that replaces no input" in run(*words).error()
    out = folder.parent / "labels.jsonl"
    assert "no such file" in run("label", model, folder / "none", "--out", out).error()


def test_recordings_of_dev_are_not_labelled(run: Command, tones: Tones, tmp_path: Path) -> None:
    rows = read_manifest(tones[0]["test"])
    for name, part in {"dev": rows[:8], "all": rows[:12], "same": rows[:8]}.items():
        write_manifest(tmp_path / f"{name}.jsonl", part)
    dev, out = tmp_path / "dev.jsonl", tmp_path / "labels.jsonl"
    words = "--dev", dev, "--out", out, "--target", "100"
    ended = run("label", tones[1], tmp_path / "all.jsonl", *words)
    assert ended.status == 0, ended.err
    assert "left out: 8 recordings that --dev has too" in ended.err
    assert {u.audio for u in read_manifest(out)} <= {u.audio for u in rows[8:12]}
    refused = run("label", tones[1], tmp_path / "same.jsonl", *words).error()
    assert "expected recordings that --dev does not have, got none" in refused


def test_what_is_missing_is_named(run: Command, tones: Tones, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.mkdir()
    write_wav(silent / "a.wav", np.zeros(8000, np.float32), 8000)
    out = "--out", tmp_path / "labels.jsonl"
    refused = run("label", tones[1], silent, *out).error()
    assert "expected words in the recordings, got none in 1 that can be read" in refused
    rows = [replace(u, text="") for u in read_manifest(tones[0]["dev"])]
    write_manifest(tmp_path / "dev.jsonl", rows)
    refused = run("label", tones[1], silent, *out, "--dev", tmp_path / "dev.jsonl").error()
    assert "expected transcripts in --dev" in refused
