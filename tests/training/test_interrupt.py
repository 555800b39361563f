"""Stopped by a signal, a training saves itself and goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from asr.cli.console import run_command
from asr.cli.main import train_model
from asr.io.files import read_json
from asr.training import interrupt, realign
from asr.training.display import Display
from asr.training.interrupt import InterruptedTraining, StopRequest
from asr.training.loop import Task
from asr.training.recipe import Recipe
from tests.hooks import before_step
from tests.processes import start
from tests.tones import one_thread, run_quietly, tone_recipe, write_corpus


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 12, "dev": 4})


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_a_stop_signal_saves_and_tells_how_to_resume(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    recipe = tone_recipe(manifests, tmp_path)
    with pytest.raises(InterruptedTraining, match="the same command resumes the training") as stop:
        run_quietly(recipe, before_step(2, terminate))
    assert stop.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    saved = read_json(tmp_path / "checkpoint" / "state.json")["progress"]
    assert (saved["epoch"], saved["batch"], saved["step"]) == (0, 2, 2)
    _, shown = run_quietly(recipe)
    assert "resumed at epoch 1, step 2" in shown


def test_a_second_signal_does_not_hide_that_the_training_was_saved(
    manifests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Display.__exit__

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        close(*arguments)

    monkeypatch.setattr(Display, "__exit__", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(InterruptedTraining):
            run_quietly(tone_recipe(manifests, tmp_path), before_step(1, terminate))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("scoring", [1, 3])
def test_a_stop_signal_is_answered_while_the_dev_set_is_scored(
    manifests: dict[str, Path], tmp_path: Path, scoring: int
) -> None:
    # Scored in order: the first epoch, the second, the average.
    calls = itertools.count(1)

    def stopping(task: Task[Any]) -> Task[Any]:
        def validate() -> Any:
            if next(calls) == scoring:
                terminate()
            return task.validate()

        return replace(task, validate=validate)

    undisturbed, _ = run_quietly(tone_recipe(manifests, tmp_path / "undisturbed"))
    recipe = tone_recipe(manifests, tmp_path / "stopped")
    with pytest.raises(InterruptedTraining):
        run_quietly(recipe, stopping)
    model, _ = run_quietly(recipe)
    weights = load_file(model / "model.safetensors")
    expected = load_file(undisturbed / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_a_stop_signal_is_answered_while_words_are_aligned(
    manifests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(out: Path) -> Recipe:
        plain = tone_recipe(manifests, out)
        changes = {"splice_prob": 0.5, "splice_from": 0.5}
        return plain.model_copy(update={"augment": plain.augment.model_copy(update=changes)})

    undisturbed, _ = run_quietly(recipe(tmp_path / "undisturbed"))
    starts = realign.word_starts

    def stopping(*arguments: Any) -> Any:
        terminate()
        return starts(*arguments)

    with monkeypatch.context() as context:
        context.setattr(realign, "word_starts", stopping)
        with pytest.raises(InterruptedTraining):
            run_quietly(recipe(tmp_path / "stopped"))
    assert not list((tmp_path / "stopped").glob("word_starts-*"))
    model, _ = run_quietly(recipe(tmp_path / "stopped"))
    weights, expected = (load_file(m / "model.safetensors") for m in (model, undisturbed))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_second_interrupt_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # A command that a shell has put into the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    now = [100.0]
    monkeypatch.setattr(interrupt.time, "monotonic", lambda: now[0])
    with contextlib.suppress(KeyboardInterrupt), StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        now[0] += 0.9 * interrupt.IMPATIENT_S
        signal.raise_signal(signal.SIGINT)  # the same one, passed on by another program
        now[0] += 0.1 * interrupt.IMPATIENT_S
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second Ctrl-C was not raised")
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with StopRequest() as stop:
                assert stop.signal is None
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed


def train_into_a_pipe(pipe: Path, manifests: dict[str, Path], out: Path) -> None:
    with pipe.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    recipe = tone_recipe(manifests, out, epochs=500, patience=500)
    with one_thread():
        run_command(lambda: train_model(recipe))


def test_a_training_whose_output_is_no_longer_read_saves_and_ends(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    pipe, out = tmp_path / "pipe", tmp_path / "out"
    os.mkfifo(pipe)
    training = start(train_into_a_pipe, pipe, manifests, out)
    with pipe.open() as said:
        assert "12 utterances" in said.readline()
    training.join(300)
    assert training.exitcode == 128 + signal.SIGPIPE
    saved = read_json(out / "checkpoint" / "state.json")["progress"]
    assert saved["step"] >= 1
    assert saved["epoch"] < 10
