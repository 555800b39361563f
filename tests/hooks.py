"""Hooks that watch or disturb a training: each replaces functions of its `Task`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from asr.training.loop import Hook, Loop, Loss, Task


def watching(note: Callable[[Any, Loss], object]) -> Hook:
    """Call `note` with the batch and the loss of every step."""

    def watched(task: Task[Any]) -> Task[Any]:
        def stepped(loop: Loop, batch: Any, loss: Loss) -> None:
            note(batch, loss)
            task.stepped(loop, batch, loss)

        return replace(task, stepped=stepped)

    return watched


def before_step(number: int, disturb: Callable[[], object]) -> Hook:
    """Call `disturb` before the loss of that step, counted from 1."""
    steps = itertools.count(1)

    def disturbed(task: Task[Any]) -> Task[Any]:
        def loss(batch: Any) -> Loss:
            if next(steps) == number:
                disturb()
            return task.loss(batch)

        return replace(task, loss=loss)

    return disturbed


def with_dev_errors(script: Iterable[int | Exception]) -> Hook:
    """Let scoring on dev find so many errors each time, or fail so."""
    left = iter(script)

    def scripted(task: Task[Any]) -> Task[Any]:
        def validate() -> tuple[dict[str, Any], str]:
            values, shown = task.validate()
            if isinstance(errors := next(left), Exception):
                raise errors
            return values | {"dev_errors": errors}, shown

        return replace(task, validate=validate)

    return scripted
