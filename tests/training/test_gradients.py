"""Gradients summed over processes, of which some run out of memory in the middle of a step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from asr import shares
from asr.dataset.cuts import whole
from asr.dataset.speech_dataset import Batch
from asr.errors import TrainingError
from asr.io.files import read_json
from asr.training import batch_size, gradients
from asr.training.loop import Hook, Task, _step
from asr.training.recipe import read_recipe
from asr.training.run import Run
from asr.training.trainer import train
from tests.tones import run_quietly
from tests.training.test_distributed import PLAIN_EPOCHS, assert_as_one, recipe, run_together

__all__ = ["recipe"]  # a fixture

SECONDS = (9.0, 7.4)  # for batches, in the memory of each process
FULL = {2: (1,), 4: (0, 1)}  # attempts at a step that fail, and the ranks in which they do


@contextmanager
def lacking(place: int | None, task: Task[Batch]) -> Iterator[Task[Batch]]:
    """No memory before that exchange of a step, counted from 0; None: enough for all."""
    make = shares.make

    def short(real: Callable[[], Any], zeros: shares.Exchange) -> Any:
        if shares._made == place:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(real, zeros)

    def finish() -> None:
        task.finish()
        if shares._made == place:
            raise torch.OutOfMemoryError("CUDA out of memory")

    shares.make = short
    try:
        yield replace(task, finish=finish)
    finally:
        shares.make = make


def lack_everywhere(rank: int, run: Run, task: Task[Batch]) -> None:
    """Take steps in which memory runs out, once at each place, in one process or in both."""
    state = {name: value.clone() for name, value in run.model.train().state_dict().items()}
    batch_size.rehearse(run)
    places = len(run.exchanges) + 1
    assert run.gradients is not None
    assert places > len(run.gradients._buckets) > 2
    batch = run.train.share([whole(i) for i in range(5)], rank, 2)
    for place in range(places):
        others = None if place % 3 else (place * 5 + 3) % places
        with lacking(place if rank == place % 2 else others, task) as short:
            assert _step(run.loop, short, batch) is None
        assert run.progress.halved_at == [0]
        run.progress.halved_at = []
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not run.loop.optimizer.state
    single = run.train.share([whole(0)], rank, 2)
    with lacking(5 if rank else None, task) as short, pytest.raises(TrainingError) as refused:
        _step(run.loop, short, single)
    assert "1 utterances of " in str(refused.value)
    assert "leave out recordings as long as" in str(refused.value)
    run.model.load_state_dict(state)


def full(rank: int | None) -> Hook:
    """Let attempts of `FULL` fail in this process; None: in the only one."""
    attempts = itertools.count(1)

    def hook(task: Task[Batch]) -> Task[Batch]:
        def finish() -> None:
            number = next(attempts)
            if number in FULL and (rank is None or rank in FULL[number]):
                raise MemoryError
            task.finish()

        if rank is not None:
            lack_everywhere(rank, task.fits.args[0], task)  # type: ignore[attr-defined]
        return replace(task, finish=finish)

    return hook


def _train_short_of_memory(rank: int, path: Path, out: Path) -> None:
    batch_size.CPU_SECONDS, batch_size.STEPS = SECONDS[rank], 1
    gradients.FIRST_BYTES, gradients.BYTES = 1500, 3000
    with out.with_suffix(f".said{rank}").open("w") as said:
        train(read_recipe(path, settings(out)), Console(file=said, width=200), hook=full(rank))


def settings(out: Path) -> list[str]:
    return [f"out={out}", "train.batch_seconds=auto", f"train.epochs={PLAIN_EPOCHS}"]


def test_memory_may_run_out_anywhere(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes choose the smallest batch of all, halve it together, and train as one does whose
    memory runs out in the same steps."""
    out = recipe.parent / "halved"
    run_together(_train_short_of_memory, recipe, out)
    assert out.with_suffix(".said1").read_text() == ""
    shown = out.with_suffix(".said0").read_text()
    assert "train.batch_seconds: auto is 7 (the default on a CPU)" in shown
    trained = shown[shown.rindex("is halved to 3.5\n") :]  # after the steps of `lack_everywhere`
    assert trained.count("out of memory at") == len(FULL) - 1
    assert " s in 2 processes: train.batch_seconds is halved to 1.75\n" in trained
    monkeypatch.setattr(batch_size, "CPU_SECONDS", min(SECONDS))
    monkeypatch.setattr(batch_size, "STEPS", 1)
    alone = recipe.parent / "halved alone"
    run_quietly(read_recipe(recipe, settings(alone)), full(None))
    assert read_json(out / "history.json")[0]["step"] > len(FULL)
    assert_as_one(out, alone)


def test_buckets_hold_every_parameter_once() -> None:
    first, others = gradients.FIRST_BYTES // 4, gradients.BYTES // 4
    sizes = [15, first, 2, 2 * others, 7, 1]
    parameters = [nn.Parameter(torch.empty(size, device="meta")) for size in sizes]
    parameters.append(nn.Parameter(torch.empty(4, dtype=torch.float64)))
    found = list(gradients._divided(parameters))
    assert [id(p) for part in found for p in part] == [id(p) for p in parameters]
    assert [len(part) for part in found] == [1, 2, 1, 2, 1]
