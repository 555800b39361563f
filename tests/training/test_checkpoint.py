"""Checkpoints come back whole, or say in one line what is wrong with them.

Covers `asr/training/run.py`, `asr/training/prepare.py`.
"""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from asr.dataset.speech_dataset import SpeechDataset
from asr.errors import CheckpointError
from asr.io.files import read_json, write_json
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.models.config import ModelConfig
from asr.text.normalise import TextConfig
from asr.text.tokens import Tokens
from asr.training import checkpoint
from asr.training.checkpoint import (
    Progress,
    load_checkpoint,
    save_checkpoint,
)
from asr.training.display import Display
from asr.training.health import Health
from asr.training.interrupt import StopRequest
from asr.training.optimizer import build_optimizer
from asr.training.place import Place
from asr.training.prepare import identity
from asr.training.recipe import TrainConfig
from asr.training.run import Run, save
from asr.training.trainer import prepare
from tests.tones import (
    FEATURES,
    MODEL,
    RATE,
    run_quietly,
    tone_recipe,
    untrained_bundle,
    write_corpus,
)

FILES = (
    "state.json",
    "optimizer.safetensors",
    "model.safetensors",
    "best.safetensors",
    "random.safetensors",
    "digests.json",
)
PROGRESS = Progress(
    epoch=2,
    batch=3,
    step=17,
    loss_sum=1.5,
    loss_units=9,
    seconds=0.25,
    total_seconds=4.0,
    history=[{"epoch": 1, "dev_errors": 3}],
    health=Health(skipped_steps=1, infinite_losses={"a": 2}, blank_epochs=1),
)
SCALE = {"scale": 1024.0, "_growth_tracker": 3}
BEST = {"weight": torch.arange(3.0)}


def with_a_step(bundle: Bundle) -> torch.optim.Optimizer:
    """An optimizer that has taken one, so that it has something to remember."""
    optimizer = build_optimizer(bundle.model, TrainConfig())
    for parameter in bundle.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return optimizer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    bundle = untrained_bundle()
    save_checkpoint(tmp_path / "checkpoint", bundle.model, with_a_step(bundle), SCALE, PROGRESS)
    return tmp_path / "checkpoint"


def load(folder: Path) -> tuple[Progress, dict[str, Any], dict[str, torch.Tensor]]:
    bundle = untrained_bundle()
    return load_checkpoint(
        folder, bundle.model, build_optimizer(bundle.model, TrainConfig()), {}, print
    )


def refused(folder: Path) -> str:
    """The one line with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as error:
        load(folder)
    message = str(error.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


# --- there and back ---


def test_a_checkpoint_restores_everything(tmp_path: Path) -> None:
    bundle = untrained_bundle()
    optimizer = with_a_step(bundle)
    save_checkpoint(tmp_path / "c", bundle.model, optimizer, SCALE, PROGRESS, BEST)
    random = torch.get_rng_state()
    other = untrained_bundle()
    restored = build_optimizer(other.model, TrainConfig())
    torch.set_rng_state(random)
    drawn = torch.rand(3)
    progress, scale, best = load_checkpoint(tmp_path / "c", other.model, restored, {}, print)
    assert progress == PROGRESS
    assert scale == SCALE
    assert best.keys() == BEST.keys()
    assert torch.equal(best["weight"], BEST["weight"])
    assert torch.equal(torch.rand(3), drawn)
    for name, weight in bundle.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name]), name
    expected, got = optimizer.state_dict()["state"], restored.state_dict()["state"]
    assert expected.keys() == got.keys()
    for index, entry in expected.items():
        for name, value in entry.items():
            assert torch.equal(value, got[index][name]), (index, name)


def test_an_optimizer_without_a_step_is_saved_too(tmp_path: Path) -> None:
    bundle = untrained_bundle()
    optimizer = build_optimizer(bundle.model, TrainConfig())
    save_checkpoint(tmp_path / "c", bundle.model, optimizer, {}, Progress())
    assert load(tmp_path / "c") == (Progress(), {}, {})


def test_loading_never_unpickles(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert load(saved)[0] == PROGRESS
    kept = {path.suffix for path in saved.rglob("*") if path.is_file()}
    assert kept == {".json", ".safetensors"}


# --- damage ---


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_one_line(saved: Path, file: str) -> None:
    (saved / file).unlink()
    assert Path(file).name in refused(saved)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_is_one_line(saved: Path, file: str, share: float) -> None:
    content = (saved / file).read_bytes().rstrip()
    (saved / file).write_bytes(content[: int(len(content) * share)])
    assert Path(file).name in refused(saved)


@pytest.mark.parametrize("content", [b"\x00" * 64, b"\xff\xfe{}", b"null", b"[1, 2]", b'{"a": 1}'])
@pytest.mark.parametrize("file", FILES)
def test_a_file_with_something_else_in_it_is_one_line(
    saved: Path, file: str, content: bytes
) -> None:
    (saved / file).write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("progress"),
        lambda state: state.pop("scale"),
        lambda state: state["progress"].pop("health"),
        lambda state: state["progress"].update(unknown=1),
        lambda state: state["progress"]["health"].update(unknown=1),
        lambda state: state.update(progress=[]),
    ],
)
def test_a_state_without_its_keys_is_one_line(
    saved: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    state = read_json(saved / "state.json")
    damage(state)
    write_json(saved / "state.json", state)
    assert "state.json" in refused(saved)


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    refused(tmp_path / "checkpoint")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a bit flipped": lambda path: path.write_bytes(_flipped(path.read_bytes())),
}


def _flipped(content: bytes) -> bytes:
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path: Path, file: str, damage: str
) -> None:
    bundle = untrained_bundle()
    optimizer = with_a_step(bundle)
    for step in (5, 6, 7):
        progress = dataclasses.replace(PROGRESS, step=step)
        save_checkpoint(tmp_path / "c", bundle.model, optimizer, SCALE, progress)
    DAMAGES[damage](tmp_path / "c" / file)
    said: list[str] = []
    other = untrained_bundle()
    restored = build_optimizer(other.model, TrainConfig())
    progress, *_ = load_checkpoint(tmp_path / "c", other.model, restored, {}, said.append)
    assert progress.step == 6
    (line,) = said
    assert line.startswith("expected ")
    assert str(tmp_path / "c") in line
    assert line.endswith("resumed from the previous checkpoint, of step 6")
    # The whole one is now the newest, so that the next save does not put it last.
    assert load(tmp_path / "c")[0].step == 6
    assert (tmp_path / "c-damaged").is_dir()


def test_a_checkpoint_that_cannot_be_read_counts_as_damaged(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = untrained_bundle()
    save_checkpoint(saved, bundle.model, with_a_step(bundle), SCALE, PROGRESS)
    real = checkpoint.digest

    def failing(path: Path) -> str:
        if path == saved / "optimizer.safetensors":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(checkpoint, "digest", failing)
    assert load(saved)[0] == PROGRESS
    assert (saved.with_name("checkpoint-damaged") / "optimizer.safetensors").is_file()


def test_two_damaged_checkpoints_are_one_line(saved: Path) -> None:
    bundle = untrained_bundle()
    save_checkpoint(saved, bundle.model, with_a_step(bundle), SCALE, PROGRESS)
    for folder in (saved, saved.with_name("checkpoint-before")):
        (folder / "state.json").write_text("")
    message = refused(saved)
    assert "state.json as it was saved, got other content" in message
    assert "the previous one is not usable: remove" in message


# --- of something else ---


def test_another_model_is_refused(tmp_path: Path) -> None:
    bundle = untrained_bundle()
    config = MODEL.model_copy(update={"hidden": MODEL.hidden + 8})
    other = Bundle(AcousticModel(FEATURES, config, len(bundle.tokens)), bundle.tokens, TextConfig())
    save_checkpoint(tmp_path / "c", other.model, with_a_step(other), {}, Progress())
    assert "of different models" in refused(tmp_path / "c")


def test_another_models_optimizer_is_refused(saved: Path, tmp_path: Path) -> None:
    deeper = ModelConfig(channels=(4,), strides=(2,), layers=2, hidden=MODEL.hidden)
    bundle = untrained_bundle()
    other = Bundle(AcousticModel(FEATURES, deeper, len(bundle.tokens)), bundle.tokens, TextConfig())
    save_checkpoint(tmp_path / "other", other.model, with_a_step(other), {}, Progress())
    shutil.copy(tmp_path / "other" / "optimizer.safetensors", saved / "optimizer.safetensors")
    assert "optimizer" in refused(saved)


def test_the_units_are_part_of_what_a_run_keeps_to(tmp_path: Path) -> None:
    tokens = untrained_bundle().tokens
    # As many as before, so that the weights would fit.
    swapped = Tokens((*tokens.units[:-2], tokens.units[-1], tokens.units[-2]))
    recipe = tone_recipe({"train": tmp_path, "dev": tmp_path}, tmp_path)
    data = SpeechDataset([], tokens, TextConfig(), RATE)
    known, other = (identity(recipe, units, data, data) for units in (tokens, swapped))
    assert {key for key in known if known[key] != other[key]} == {"tokens.units"}


def test_a_run_with_other_units_is_not_gone_on_with(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2})
    recipe = tone_recipe(manifests, tmp_path / "out", epochs=1)
    run_quietly(recipe)
    tokens = recipe.tokens.model_copy(update={"kind": "characters"})
    with pytest.raises(CheckpointError, match=r"expected tokens\.kind=words"):
        run_quietly(recipe.model_copy(update={"tokens": tokens}))


def test_a_setting_is_named_before_the_data_that_it_changes(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2})
    recipe = tone_recipe(manifests, tmp_path / "out", epochs=1)
    run_quietly(recipe)
    write_corpus(tmp_path, {"train": 5})
    with pytest.raises(CheckpointError, match=r"expected the training data .* got others"):
        run_quietly(recipe)
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": 7})})
    with pytest.raises(CheckpointError, match=r"expected train\.seed=1, .* got 7"):
        run_quietly(other)


# --- killed while saving ---


DIED = 9


def test_a_run_killed_anywhere_in_a_save_goes_on(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2})
    recipe = tone_recipe(manifests, tmp_path / "out", epochs=1)
    run_quietly(recipe)
    lost = []
    for number in itertools.count(1):
        copy = recipe.model_copy(update={"out": tmp_path / f"killed{number}"})
        shutil.copytree(recipe.out, copy.out)
        with Display(1, Console(file=io.StringIO())) as display:
            run = prepare(copy, Place(copy.out, display, StopRequest()))
        if _save_and_die_at_rename(run, number) != DIED:
            break
        _, shown = run_quietly(copy)
        if "already trained for 1 epochs" not in shown:
            lost.append(number)
        assert [path.name for path in copy.out.iterdir() if path.name.startswith(".")] == []
    assert number > 1
    assert not lost, f"killed before rename {lost} of {number - 1}, it starts from nothing"


def _save_and_die_at_rename(run: Run, number: int) -> int:
    """Save in a child process that ends, as SIGKILL would end it, at its nth rename."""
    if (child := os.fork()) == 0:
        renames = itertools.count(1)

        def dying(rename: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: Any) -> None:
                if next(renames) == number:
                    os._exit(DIED)
                rename(*arguments)

            return call

        os.rename, os.replace = dying(os.rename), dying(os.replace)
        try:
            save(run)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
