from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.errors import TrainingError
from asr.training import deferred
from asr.training.deferred import MOST, DeferredValues
from asr.training.interrupt import InterruptedTraining
from asr.training.loop import Hook, Loss, Task
from tests.hooks import before_step
from tests.training.test_loop import STEPS, Toy, assert_same, terminate, unchanged


@pytest.fixture
def _on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results wait, as on a GPU."""
    monkeypatch.setattr(deferred, "is_on_host", lambda value: False)


def taken(found: list[Any]) -> Callable[..., None]:
    return lambda *values: found.append(values)


def test_values_of_a_cpu_are_used_at_once() -> None:
    found: list[Any] = []
    DeferredValues().add(taken(found), torch.tensor(1.0), torch.tensor([2, 3]))
    assert [value.tolist() for value in found[0]] == [1.0, [2, 3]]


@pytest.mark.usefixtures("_on_a_gpu")
def test_values_that_wait_are_used_in_order_with_their_shapes_and_types() -> None:
    waiting = DeferredValues()
    found: list[Any] = []
    values = [torch.tensor(0.1), torch.rand(2, 3, dtype=torch.float64), torch.tensor([1 << 60, 3])]
    for number in range(MOST):
        assert not waiting.due
        waiting.add(taken(found), *values[number % 3 :])
    assert waiting.due
    assert not found
    waiting.read()
    assert len(found) == MOST
    for number, used in enumerate(found):
        for value, expected in zip(used, values[number % 3 :], strict=True):
            assert torch.equal(value, expected)
            assert value.dtype == expected.dtype
    waiting.read()
    assert len(found) == MOST


def infinite_from(number: int) -> Hook:
    """The gradient of that step and all later ones is infinite."""

    def hook(task: Task[Any]) -> Task[Any]:
        count = 0

        def loss(batch: Tensor) -> Loss:
            nonlocal count
            count += 1
            found = task.loss(batch)
            return (
                replace(found, objective=found.objective * torch.inf) if count >= number else found
            )

        return replace(task, loss=loss)

    return hook


def test_a_training_whose_results_wait_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = Toy(None).train()
    monkeypatch.setattr(deferred, "is_on_host", lambda value: False)
    later = Toy(None).train()
    assert_same(later.model, at_once.model)
    for one, other in zip(later.progress.history, at_once.progress.history, strict=True):
        assert one["loss"] == other["loss"]


@pytest.mark.usefixtures("_on_a_gpu")
def test_a_bad_step_changes_nothing_before_it_is_read() -> None:
    few = Toy(None, epochs=1)

    def tolerant(task: Task[Any]) -> Task[Any]:
        return replace(infinite_from(2)(task), stepped=lambda *_: None)

    loop = few.train(tolerant)
    moments = loop.optimizer.optimizer.state_dict()["state"]
    assert loop.progress.health.skipped_steps == STEPS - 1
    assert all(float(state["step"]) == 1 for state in moments.values())
    assert all(torch.isfinite(weight).all() for weight in loop.model.parameters())


@pytest.mark.usefixtures("_on_a_gpu")
@pytest.mark.parametrize("stopped", [False, True])
def test_nothing_is_saved_after_a_bad_step(tmp_path: Path, stopped: bool) -> None:
    """Neither at an epoch's end nor after a stop signal."""
    folder = tmp_path / "run"
    toy = Toy(folder)
    stop = before_step(2, terminate) if stopped else unchanged

    with pytest.raises(TrainingError, match="expected a finite loss and gradient"):
        toy.train(lambda task: stop(infinite_from(1)(task)))
    assert not (folder / "checkpoint").exists()
    with pytest.raises(InterruptedTraining):
        toy.train(before_step(2, terminate))
    assert (folder / "checkpoint").exists()
