"""The model that a run ends with: made once, and made again only of other epochs.

Covers `asr/training/display.py`, `asr/training/device.py`.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr.dataset.manifest import read_manifest, write_manifest
from asr.errors import CheckpointError, TrainingError
from asr.io.files import digest, locked, read_json, write_json
from asr.models.about import AboutConfig
from asr.models.bundle import load_bundle, save_bundle
from asr.training import device
from asr.training.checkpoint import average_weights, best_epochs, epoch_path
from asr.training.device import build_accelerator, refuse_many_processes
from asr.training.display import Display
from asr.training.loop import Loop, Task
from asr.training.recipe import Recipe
from asr.training.trainer import train
from tests.commands import Command
from tests.tones import run_quietly, tone_recipe, untrained_bundle, write_corpus


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 6, "dev": 3})


def put_decoder(model: Path) -> None:
    """As `asr tune` leaves one."""
    write_json(model / "decoder.json", {"kind": "greedy"})
    (model / "lm").mkdir()
    (model / "lm" / "model.bin").write_bytes(b"ngram")


def has_decoder(model: Path) -> bool:
    return (model / "decoder.json").is_file() and (model / "lm" / "model.bin").is_file()


def test_a_finished_run_given_again_leaves_the_decoder_alone(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tone_recipe(manifests, tmp_path, epochs=1)
    model, _ = run_quietly(recipe)
    put_decoder(model)
    before = (model / "model.safetensors").stat().st_mtime_ns
    _, shown = run_quietly(recipe)
    assert "kept the model of these epochs" in shown
    assert has_decoder(model)
    assert (model / "model.safetensors").stat().st_mtime_ns == before


def test_the_model_knows_what_it_learnt_from(manifests: dict[str, Path], tmp_path: Path) -> None:
    recipe = tone_recipe(manifests, tmp_path, epochs=1)
    model, _ = run_quietly(recipe)
    bundle, spoken = load_bundle(model), read_manifest(manifests["train"])
    seconds = [u.duration for u in spoken]
    assert bundle.info["training_data"] == {
        "manifest": f"{manifests['train'].parent.name}/train.jsonl",
        "hours": round(sum(seconds) / 3600, 3),
        "utterances": 6,
        "speakers": len({u.speaker for u in spoken}),
        "initial_model": None,
    }
    assert bundle.info["longest_seconds"] == pytest.approx(max(seconds), abs=0.01)
    assert bundle.info["parameters"] == bundle.model.parameter_count()
    assert bundle.info["about"] == {}


def test_a_finished_run_takes_what_is_said_about_the_model_later(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tone_recipe(manifests, tmp_path, epochs=1)
    model, _ = run_quietly(recipe)
    before = load_bundle(model).info
    about = AboutConfig(languages=("en",), licence="cc-by-4.0")
    run_quietly(recipe.model_copy(update={"about": about}))
    after = load_bundle(model).info
    assert after == before | {"about": {"languages": ["en"], "licence": "cc-by-4.0"}}


def test_more_epochs_make_another_model_and_keep_the_decoder(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    model, _ = run_quietly(tone_recipe(manifests, tmp_path, epochs=1))
    put_decoder(model)
    _, shown = run_quietly(tone_recipe(manifests, tmp_path, epochs=2))
    assert load_bundle(model).info["epochs"] == 2
    assert has_decoder(model)
    assert f"kept decoder.json, lm in {model}, tuned for earlier weights" in shown


def test_a_folder_trained_in_anew_is_not_taken_for_its_earlier_model(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    model, _ = run_quietly(tone_recipe(manifests, tmp_path, epochs=1, learning_rate=0.01))
    (tmp_path / "checkpoint").rename(tmp_path / "elsewhere")
    before = load_file(model / "model.safetensors")
    _, shown = run_quietly(tone_recipe(manifests, tmp_path, epochs=1, learning_rate=0.02))
    assert "final model:" in shown
    after = load_file(model / "model.safetensors")
    assert any(not before[name].equal(after[name]) for name in before)


def test_a_stopped_run_can_be_finished_and_resumed(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tone_recipe(manifests, tmp_path, epochs=3)
    with pytest.raises(TrainingError, match="expected an epoch that has ended"):
        train(recipe, finish_now=True)

    def stopped(task: Task[Any]) -> Task[Any]:
        epochs = itertools.count(1)

        def batches() -> Any:
            if next(epochs) == 2:
                raise KeyboardInterrupt
            return task.batches()

        return replace(task, batches=batches)

    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe.model_copy(update={"train": _saving(recipe)}), stopped)
    model = train(recipe, finish_now=True)
    assert load_bundle(model).info["epochs"] == 1
    run_quietly(recipe)
    assert load_bundle(model).info["epochs"] == 3


def _saving(recipe: Recipe) -> Any:
    return recipe.train.model_copy(update={"save_seconds": 0.0})


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_damaged_weights_of_an_epoch_are_left_out_of_the_average(
    manifests: dict[str, Path], tmp_path: Path, damage: str
) -> None:
    recipe = tone_recipe(manifests, tmp_path, epochs=2, average=2)
    run_quietly(recipe)
    file = tmp_path / "epochs" / "epoch-0001" / "model.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-4] + b"\0\1\2\3")
    model, shown = run_quietly(tone_recipe(manifests, tmp_path, epochs=2, average=3))
    assert "got none or others for 1: left out of the average" in shown
    assert load_bundle(model).info["weights"] == "epoch 2"


def test_a_run_keeps_to_its_dev_set(manifests: dict[str, Path], tmp_path: Path) -> None:
    run_quietly(tone_recipe(manifests, tmp_path, epochs=1))
    fewer = manifests | {"dev": tmp_path / "fewer.jsonl"}
    write_manifest(fewer["dev"], read_manifest(manifests["dev"])[1:])
    with pytest.raises(CheckpointError, match="expected the dev set"):
        run_quietly(tone_recipe(fewer, tmp_path, epochs=2))


def test_a_second_training_in_a_folder_is_refused(
    run: Command, manifests: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.json"
    write_json(recipe, tone_recipe(manifests, tmp_path / "out").model_dump(mode="json"))
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out" / ".lock", "training"):
        error = run("train", recipe).error()
    assert f"expected no other training to run, got process {os.getpid()} on" in error
    assert f"holds {tmp_path / 'out' / '.lock'}" in error
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", device.SIZES)
def test_several_processes_are_refused(
    manifests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "2")
    with pytest.raises(TrainingError, match=f"expected one process, got {name}=2"):
        run_quietly(tone_recipe(manifests, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv(name, "1")
    refuse_many_processes()


def test_the_environment_does_not_change_what_is_trained(
    manifests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = run_quietly(tone_recipe(manifests, tmp_path / "plain", epochs=1))
    for name, value in {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
    }.items():
        monkeypatch.setenv(name, value)
    other, shown = run_quietly(tone_recipe(manifests, tmp_path / "other", epochs=1))
    assert "ignored ACCELERATE_GRADIENT_ACCUMULATION_STEPS, ACCELERATE_MIXED_PRECISION" in shown
    assert os.environ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "4"
    ours, theirs = (load_file(model / "model.safetensors") for model in (plain, other))
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_an_accelerator_is_of_one_process() -> None:
    said: list[str] = []
    assert build_accelerator("no", said.append).num_processes == 1
    assert said == []


def test_a_disk_that_fills_is_one_line_and_the_run_goes_on_with_room(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tone_recipe(manifests, tmp_path, epochs=2)

    def filled(task: Task[Any]) -> Task[Any]:
        saves = itertools.count(1)

        def save(loop: Loop) -> None:
            if next(saves) == 2:
                raise OSError(28, "No space left on device", "x")
            task.save(loop)

        return replace(task, save=save)

    with pytest.raises(TrainingError, match="got a full disk: make room, and the same command"):
        run_quietly(recipe.model_copy(update={"train": _saving(recipe)}), filled)
    model, shown = run_quietly(recipe)
    assert "resumed at epoch 1" in shown
    assert load_bundle(model).info["epochs"] == 2


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0.0, 0.0, 20.0, 31.0, 40.0])
    monkeypatch.setattr("asr.training.display.time.monotonic", lambda: next(seconds))
    with Display(4) as display:
        for done in (0.1, 0.2, 0.3, 0.4):
            display.step(done, 1.5, 100.0)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert lines == ["epoch 1/4  loss 1.500  100 h/h  10 min left"]


def test_a_closed_terminal_asks_for_a_stop_unless_nohup_was_used() -> None:
    program = (
        "import signal, sys\n"
        "from asr.training.interrupt import StopRequest\n"
        "nohup = sys.argv[1] == 'nohup'\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)\n"
        "with StopRequest() as stop:\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    print(stop.signal)\n"
    )
    for how, expected in (("terminal", "1"), ("nohup", "None")):
        command = [sys.executable, "-c", program, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_history_knows_the_weights_it_ranks(manifests: dict[str, Path], tmp_path: Path) -> None:
    run_quietly(tone_recipe(manifests, tmp_path, epochs=2))
    first, second = read_json(tmp_path / "history.json")
    for row in (first, second):
        folder = epoch_path(tmp_path / "epochs", row["epoch"])
        assert digest(folder / "model.safetensors") == row["weights_sha256"]
    assert first["weights_sha256"] != second["weights_sha256"]


# --- the best epochs and their average ---


def test_the_best_epochs_have_the_fewest_errors_and_the_later_wins_a_tie() -> None:
    errors = [9, 4, 6, 4, 5]
    history = [{"epoch": i, "dev_errors": e} for i, e in enumerate(errors, start=1)]
    assert best_epochs(history, 3) == [4, 2, 5]
    assert best_epochs(history, 9) == [4, 2, 5, 3, 1]


def test_averaging_is_the_mean(tmp_path: Path) -> None:
    models = []
    for epoch in (1, 2, 3):
        torch.manual_seed(epoch)
        bundle = untrained_bundle()
        save_bundle(epoch_path(tmp_path, epoch), bundle)
        models.append(bundle.model.state_dict())
    mean = average_weights([epoch_path(tmp_path, epoch) for epoch in (1, 2, 3)])
    assert mean.keys() == models[0].keys()
    for name, averaged in mean.items():
        expected = torch.stack([weights[name] for weights in models]).double().mean(dim=0)
        assert averaged.dtype == models[0][name].dtype
        torch.testing.assert_close(averaged.double(), expected, rtol=1e-7, atol=1e-8)


def test_large_weights_do_not_overflow_in_an_average(tmp_path: Path) -> None:
    largest = torch.finfo(torch.float32).max
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((2,), largest)}, tmp_path / name / "model.safetensors")
    assert torch.equal(
        average_weights([tmp_path / "a", tmp_path / "b"])["w"], torch.full((2,), largest)
    )


def test_counters_are_not_averaged(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 6)):
        (tmp_path / name).mkdir()
        save_file({"n": torch.tensor([count])}, tmp_path / name / "model.safetensors")
    assert average_weights([tmp_path / "a", tmp_path / "b"])["n"].tolist() == [3]


def test_one_epoch_averages_to_itself(tmp_path: Path) -> None:
    bundle = untrained_bundle()
    save_bundle(tmp_path / "one", bundle)
    own = load_file(tmp_path / "one" / "model.safetensors")
    assert all(torch.equal(v, own[k]) for k, v in average_weights([tmp_path / "one"]).items())
    assert load_bundle(tmp_path / "one").tokens == bundle.tokens
