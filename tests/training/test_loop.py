"""What the loop does for every kind of training: an acoustic model's is in test_trainer.py.

Covers `asr/training/place.py`.
"""

from __future__ import annotations

import io
import shutil
import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from asr.errors import CheckpointError, TrainingError
from asr.lm.neural import NeuralConfig, NeuralLm, load_neural
from asr.models.classifier import ClassifierBundle
from asr.training.interrupt import InterruptedTraining
from asr.training.loop import Hook, Loop, Loss, Task, begin, refuse_bad_step, run_epochs
from asr.training.optimizer import OptimizationConfig, learning_rate
from asr.training.place import working_in
from asr.training.train_classifier import ClassifyConfig, train_classifier
from asr.training.train_lm import LanguageTraining, train_language_model
from tests.hooks import before_step
from tests.lm.test_neural import TEXT, WORDS
from tests.training.test_train_classifier import MODEL, slopes

QUIET = Console(quiet=True)
STEPS = 3  # of a toy's epoch
LANGUAGE = LanguageTraining(model=NeuralConfig(hidden=8, dropout=0.3), epochs=3, batch_units=32)
CLASSES = ("falling", "rising")


def unchanged(task: Task[Any]) -> Task[Any]:
    return task


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def language_model(
    out: Path, hook: Hook = unchanged, config: LanguageTraining = LANGUAGE
) -> NeuralLm:
    return train_language_model(TEXT, TEXT[:5], WORDS, config, out, QUIET, hook=hook)


def classifier(folder: Path | None, hook: Hook = unchanged) -> ClassifierBundle:
    config = ClassifyConfig(epochs=3, batch_seconds=100, learning_rate=0.02)
    parts = slopes(40, 0), slopes(10, 1)
    return train_classifier(
        1, MODEL, CLASSES, *parts, config, console=QUIET, folder=folder, hook=hook
    )


def assert_same(first: nn.Module, second: nn.Module) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("step", [1, 4, 9])
def test_a_language_model_is_resumed_bit_for_bit(tmp_path: Path, step: int) -> None:
    whole = language_model(tmp_path / "whole")
    out = tmp_path / "stopped"
    with pytest.raises(InterruptedTraining, match=f"saved in {out}.training: the same") as stop:
        language_model(out, before_step(step, terminate))
    assert stop.value.signal == signal.SIGTERM
    assert f"{out} has the best epoch so far" in str(stop.value)
    torch.rand(5)
    resumed = language_model(out)
    assert_same(resumed.model, whole.model)
    assert resumed.info == whole.info
    assert_same(load_neural(out).model, whole.model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "whole"]


@pytest.mark.parametrize("step", [1, 5])
def test_a_classifier_is_resumed_bit_for_bit(tmp_path: Path, step: int) -> None:
    whole = classifier(None)
    with pytest.raises(InterruptedTraining, match="the same command resumes the training"):
        classifier(tmp_path / "run", before_step(step, terminate))
    torch.rand(5)
    resumed = classifier(tmp_path / "run")
    assert_same(resumed.model, whole.model)
    assert not (tmp_path / "run").exists()
    losses = [row["dev_loss"] for row in whole.info["history"]]
    assert [row["dev_loss"] for row in resumed.info["history"]] == losses


def test_other_settings_or_sentences_are_another_training(tmp_path: Path) -> None:
    with pytest.raises(InterruptedTraining):
        language_model(tmp_path / "lm", before_step(2, terminate))
    other = LANGUAGE.model_copy(update={"learning_rate": 0.1})
    with pytest.raises(CheckpointError, match=r"expected learning_rate=0\.005") as error:
        language_model(tmp_path / "lm", config=other)
    assert f"{tmp_path / 'lm.training'} began, got 0.1: choose another out" in str(error.value)
    with pytest.raises(CheckpointError, match=r"expected the data, .* began, got others"):
        train_language_model(TEXT[1:], TEXT[:5], WORDS, LANGUAGE, tmp_path / "lm", QUIET)
    longer = LANGUAGE.model_copy(update={"epochs": 4})
    assert language_model(tmp_path / "lm", config=longer).info["epoch"] in range(1, 5)


def test_a_best_epoch_that_was_removed_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "lm"

    def stopping(task: Task[Any]) -> Task[Any]:
        def keep(row: dict[str, Any]) -> None:
            task.keep(row)
            terminate()

        return replace(task, keep=keep)

    def worse(task: Task[Any]) -> Task[Any]:
        return replace(task, validate=lambda: ({"dev_perplexity": 1e6}, ""))

    with pytest.raises(InterruptedTraining):
        language_model(out, stopping)
    first = load_neural(out)
    shutil.rmtree(out)
    assert language_model(out, worse).info == first.info
    assert_same(load_neural(out).model, first.model)


# --- a toy: a line through points ---


class Toy:
    """Counts what the loop calls."""

    def __init__(self, folder: Path | None, epochs: int = 2) -> None:
        self.folder = folder
        self.config = OptimizationConfig(epochs=epochs, learning_rate=0.1, warmup=0.5)
        self.calls: list[str] = []
        self.rates: list[float] = []
        self.shown = io.StringIO()

    def train(self, hook: Hook = unchanged) -> Loop:
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        with working_in(self.folder, self.config.epochs, Console(file=self.shown, width=200)) as at:
            self.loop = begin(model, self.config, at, {})
            task = Task(
                batches=self._batches,
                loss=self._loss,
                validate=lambda: ({"dev": 1.0}, "dev fine"),
                keep=lambda row: self.calls.append(f"keep {row['epoch']}"),
                size=lambda batch: "3 points: lower points",
            )
            run_epochs(self.loop, hook(task))
        return self.loop

    def _batches(self) -> tuple[int, Any]:
        progress = self.loop.progress
        self.calls.append(f"epoch {progress.epoch} from {progress.batch}")
        return STEPS, nullcontext([torch.ones(3, 1)] * (STEPS - progress.batch))

    def _loss(self, batch: Tensor) -> Loss:
        self.rates.append(self.loop.optimizer.param_groups[0]["lr"])
        errors = (self.loop.model(batch) - 5).square()[:, 0]
        return Loss(errors.mean(), errors.detach(), torch.ones(3))


def test_an_epoch_ends_with_a_row_and_the_rate_follows_the_schedule() -> None:
    toy = Toy(None)
    loop = toy.train()
    assert toy.calls == ["epoch 0 from 0", "keep 1", "epoch 1 from 0", "keep 2"]
    rows = loop.progress.history
    assert [(row["epoch"], row["step"], row["dev"]) for row in rows] == [(1, 3, 1.0), (2, 6, 1.0)]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert [row["learning_rate"] for row in rows] == [0.1, learning_rate(1.0, toy.config)]
    expected = [learning_rate(step / 6, toy.config) for step in range(6)]
    assert toy.rates == pytest.approx(expected)
    assert "dev fine" in toy.shown.getvalue()


def test_a_training_that_saves_after_every_step_can_be_killed_anywhere(tmp_path: Path) -> None:
    whole = Toy(None).train()
    toy = Toy(tmp_path / "run")

    def dying(number: int) -> Hook:
        def hook(task: Task[Any]) -> Task[Any]:
            toy.loop.save_seconds = 0.0
            return before_step(number, kill)(task)

        return hook

    def kill() -> None:
        raise KeyboardInterrupt

    for number in (3, 3):
        with pytest.raises(KeyboardInterrupt):
            toy.train(dying(number))
    toy.train()
    assert_same(toy.loop.model, whole.model)
    assert [call for call in toy.calls if call.startswith("epoch")] == [
        "epoch 0 from 0",
        "epoch 0 from 2",
        "epoch 1 from 0",
        "epoch 1 from 1",
    ]
    assert "resumed at epoch 2, step 4" in toy.shown.getvalue()


@pytest.mark.parametrize("where", ["objective", "gradient"])
def test_what_is_not_finite_ends_a_training_unless_it_is_told_otherwise(where: str) -> None:
    def poisoned(task: Task[Any]) -> Task[Any]:
        def loss(batch: Tensor) -> Loss:
            found = task.loss(batch)
            bad = found.objective * torch.inf
            if where == "gradient":  # zero, with a gradient of infinity
                bad = (found.objective - found.objective.detach()).sqrt()
            return replace(found, objective=bad)

        return replace(task, loss=loss)

    with pytest.raises(TrainingError, match="expected a finite loss and gradient, got a loss of"):
        Toy(None).train(poisoned)

    def tolerant(task: Task[Any]) -> Task[Any]:
        return replace(poisoned(task), stepped=lambda *_: None)

    loop = Toy(None).train(tolerant)
    assert loop.progress.health.skipped_steps == 2 * STEPS
    assert all(torch.isfinite(p).all() for p in loop.model.parameters())


def test_a_step_that_the_scaler_has_skipped_is_no_bad_step() -> None:
    loop = Toy(None).train()
    loop.progress.health.skipped_steps = 1
    loss = Loss(torch.tensor(12.0), torch.tensor([12.0]), torch.tensor([1]))
    with pytest.raises(TrainingError, match="got a loss of 12"):
        refuse_bad_step(loop, None, loss)
    loop.accelerator.scaler = torch.amp.GradScaler("cpu")
    refuse_bad_step(loop, None, loss)
