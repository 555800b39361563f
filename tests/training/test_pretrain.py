"""Pretraining on the corpus of tones.

Covers `asr/cli/pretrain.py`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from asr.audio.load import write_wav
from asr.augment.config import AugmentConfig
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError, CheckpointError, ConfigError, TrainingError
from asr.io.files import read_json
from asr.models.bundle import load_bundle
from asr.models.encoder_folder import load_encoder
from asr.training.interrupt import InterruptedTraining
from asr.training.loop import Hook, Task
from asr.training.pretrain import PretrainConfig, pretrain, read_config, refuse_training
from tests.commands import Command
from tests.hooks import before_step
from tests.tones import (
    FEATURES,
    MODEL,
    RATE,
    one_thread,
    run_quietly,
    speak,
    tone_recipe,
    write_corpus,
)

CONFIG = PretrainConfig(
    features=FEATURES,
    model=MODEL,
    augment=AugmentConfig(speeds=[0.95, 1.05], vtlp=0.05, gain_db=3, concatenate_prob=0.5),
    epochs=3,
    learning_rate=0.01,
    batch_seconds=2.0,
    mask_ms=60,
    codebooks=2,
    codes=8,
    code_size=4,
    precision="fp32",
)


SIZES = {"train": 16, "dev": 5}


def write_cycles(folder: Path, part: str, size: int) -> Path:
    """A manifest of recordings of the same four words in turn, so that a masked one follows from
    its neighbours."""
    rows = []
    for number in range(size):
        seed = 100 * len(part) + number
        text = " ".join((["low", "high", "up", "down"] * 3)[number % 4 :][:8])
        samples, path = speak(text, seed), folder / f"{part}{number}.wav"
        write_wav(path, samples, RATE)
        rows.append(Utterance(path.stem, path, text, len(samples) / RATE, part))
    write_manifest(folder / f"{part}.jsonl", rows)
    return folder / f"{part}.jsonl"


def train_quietly(out: Path, manifests: dict[str, Path], config: PretrainConfig, hook: Hook) -> str:
    shown = io.StringIO()
    train, dev = (read_manifest(manifests[part]) for part in ("train", "dev"))
    with one_thread():
        pretrain(train, dev, config, out, Console(file=shown, width=200), hook)
    return shown.getvalue()


def plain(task: Task[Any]) -> Task[Any]:
    return task


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("pretraining")
    manifests = {part: write_cycles(folder, part, size) for part, size in SIZES.items()}
    train_quietly(folder / "out", manifests, CONFIG, plain)
    return folder / "out", manifests


def test_the_loss_falls_below_the_entropy_of_labels(
    pretrained: tuple[Path, dict[str, Path]],
) -> None:
    out, _ = pretrained
    history = read_json(out / "history.json")
    losses = [row["dev_loss"] for row in history]
    assert losses[-1] < losses[0]
    assert losses[-1] < history[-1]["dev_entropy"]
    assert history[-1]["dev_accuracy"] > history[-1]["dev_frequent"]
    _, info = load_encoder(out / "encoder")
    assert info["dev_loss"] == pytest.approx(min(losses), abs=1e-6)
    assert (out / "pretraining.png").stat().st_size > 5000


def test_a_stopped_pretraining_ends_with_the_same_bits(
    pretrained: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    out, manifests = pretrained

    def stop() -> None:
        raise InterruptedTraining(2, tmp_path)

    with pytest.raises(InterruptedTraining):
        train_quietly(tmp_path / "out", manifests, CONFIG, before_step(9, stop))
    assert not (tmp_path / "out" / "encoder").exists()
    assert "resumed at epoch" in train_quietly(tmp_path / "out", manifests, CONFIG, plain)
    whole, resumed = (
        (folder / "encoder" / "model.safetensors").read_bytes()
        for folder in (out, tmp_path / "out")
    )
    assert whole == resumed
    rarer = CONFIG.model_copy(update={"save_seconds": 1e3})
    assert "already trained for 3 epochs" in train_quietly(out, manifests, rarer, plain)
    features = FEATURES.model_copy(update={"bands": 12})
    other = CONFIG.model_copy(update={"features": features})
    with pytest.raises(CheckpointError, match=r"expected features\.bands=16, with which"):
        train_quietly(out, manifests, other, plain)


def test_training_starts_from_it_and_says_what_it_takes(
    pretrained: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    out, manifests = pretrained
    encoder, _ = load_encoder(out / "encoder")
    start = tone_recipe(manifests, tmp_path / "run", epochs=1, learning_rate=1e-9)
    init = start.init.model_copy(update={"model": out / "encoder"})
    model, shown = run_quietly(start.model_copy(update={"init": init}))
    assert "front end and 1 of 1 recurrent layers, pretrained on" in shown
    assert "the output layer is new" in shown
    trained = load_bundle(model).model.state_dict()
    for name, tensor in encoder.state_dict().items():
        if "running" not in name and tensor.is_floating_point():
            torch.testing.assert_close(trained[name], tensor, rtol=2e-3, atol=1e-4)
    other = MODEL.model_copy(update={"hidden": 12})
    with pytest.raises(ConfigError, match=r"expected model\.hidden=24 as in"):
        run_quietly(
            start.model_copy(update={"init": init, "model": other, "out": tmp_path / "other"})
        )


def test_unusable_data_and_settings_are_one_line(
    pretrained: tuple[Path, dict[str, Path]], tmp_path: Path
) -> None:
    _, manifests = pretrained
    train = read_manifest(manifests["train"])
    with pytest.raises(TrainingError, match="recordings to train on, got none"):
        pretrain([], train, CONFIG, tmp_path / "a")
    write_wav(tmp_path / "zero.wav", 0 * speak("low high"), RATE)
    silence = [Utterance("zero", tmp_path / "zero.wav", "", 0.5)]
    with pytest.raises(TrainingError, match="expected speech to mask in the held-out recordings"):
        pretrain(train[:2], silence, CONFIG, tmp_path / "b", Console(quiet=True))
    assert not (tmp_path / "b" / "history.json").exists()  # before the first epoch
    with pytest.raises(ConfigError, match=r"cmvn none or global with model\.chunk"):
        read_config(None, ["model.chunk=[2,6]"])
    with pytest.raises(ConfigError, match="mask_share"):
        read_config(None, ["mask_share=1"])
    with pytest.raises(AsrError):
        read_config(tmp_path / "absent.yaml", [])
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "recipe.json").write_text("{}")
    with pytest.raises(TrainingError, match="has a training with transcripts"):
        refuse_training(tmp_path / "c")


def test_the_command(run: Command, tmp_path: Path) -> None:
    write_corpus(tmp_path, {"all": 8})
    settings = []
    for setting in (
        "features.sample_rate=8000", "features.bands=16", "model.layers=1", "model.hidden=8",
        "epochs=1", "batch_seconds=4", "codes=8", "precision=fp32",
    ):  # fmt: skip
        settings += ["--set", setting]
    out = tmp_path / "out"
    ended = run("pretrain", tmp_path / "all", "--out", out, *settings)
    assert ended.status == 0, ended.err
    assert f"init.model={out / 'encoder'}" in ended.err
    (row,) = read_json(out / "history.json")  # after one epoch of eight recordings
    assert ("has learnt nothing yet" in ended.err) == (row["dev_loss"] >= row["dev_entropy"])
    audio = next((tmp_path / "all").iterdir())
    for words in (["transcribe", audio, "--model"], ["models", "show"]):
        assert "pretrained encoder" in run(*words, out / "encoder").error()
    (tmp_path / "empty").mkdir()
    error = run("pretrain", tmp_path / "empty", "--out", tmp_path / "x", *settings).error()
    assert "got a folder without any" in error
    assert not (tmp_path / "x").exists()
