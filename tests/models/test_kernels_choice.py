"""The choice among paths: what is measured, what is remembered, and that measuring leaves no trace.

Covers `asr/models/kernels/choice.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from asr.models import recurrent
from asr.models.kernels import choice
from asr.models.kernels.choice import Choices, Run
from asr.models.recurrent import FRAMES, LIBRARY, Direction, RecurrentLayer
from asr.padded import Padded

LENGTHS = torch.tensor([5, 3])


class Stopwatch:
    """Takes the times that it is told for the paths that it runs."""

    def __init__(self, **times: float | Exception) -> None:
        self.times = times
        self.measured: list[str] = []

    def paths(self) -> dict[str, Run]:
        return {name: partial(self._run, name) for name in self.times}

    def _run(self, name: str) -> list[torch.Tensor]:
        self.measured.append(name)
        return []

    def __call__(self, run: Run) -> float:
        run()
        time = self.times[self.measured[-1]]
        if isinstance(time, Exception):
            raise time
        return time


def test_a_size_is_measured_once_and_the_fastest_path_is_kept() -> None:
    watch = Stopwatch(library=2.0, frames=3.0, persistent=1.0)
    choices = Choices(watch)
    assert [choices.fastest(8, watch.paths()) for _ in range(3)] == 3 * ["persistent"]
    assert watch.measured == ["library", "frames", "persistent"]
    watch.times["frames"] = 0.5
    assert choices.fastest(8, watch.paths()) == "persistent"
    assert choices.fastest(16, watch.paths()) == "frames"


def test_a_path_that_does_not_serve_any_more_is_not_used() -> None:
    watch = Stopwatch(library=2.0, frames=1.0)
    choices = Choices(watch)
    assert choices.fastest(8, watch.paths()) == "frames"
    assert choices.fastest(8, {"library": watch.paths()["library"]}) == "library"


def test_a_path_that_fails_is_said_once_and_never_run_again() -> None:
    watch = Stopwatch(library=2.0, frames=3.0, persistent=ValueError("no cooperative launch\nat"))
    choices = Choices(watch)
    with pytest.warns(
        UserWarning, match="do not use the persistent path.*: no cooperative launch$"
    ):
        assert choices.fastest(8, watch.paths()) == "library"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choices.fastest(8, watch.paths()) == "library"
        assert choices.fastest(16, watch.paths()) == "library"
    assert watch.measured.count("persistent") == 1


def test_a_path_whose_results_are_nan_has_failed() -> None:
    with pytest.raises(ArithmeticError):
        choice.milliseconds(lambda: [torch.zeros(2), torch.tensor([1.0, torch.nan])])


def test_a_bad_batch_is_no_fault_of_a_path() -> None:
    values = torch.tensor([[1.0, torch.nan, torch.inf]])
    once = choice.timed_pass(lambda x, copies: x * copies[0]["w"], values, [{"w": torch.ones(3)}])
    assert not any(result.isnan().any() for result in once())


def test_a_path_that_gives_nan_is_left_out_unless_all_do() -> None:
    watch = Stopwatch(library=ArithmeticError(), frames=ArithmeticError())
    choices = Choices(watch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choices.fastest(8, watch.paths()) == "library"
        watch.times = {"library": 2.0, "frames": 1.0}
        assert choices.fastest(16, watch.paths()) == "frames"
    watch.times = {"library": 2.0, "frames": ArithmeticError()}
    with pytest.warns(UserWarning, match="frames path"):
        assert choices.fastest(32, watch.paths()) == "library"
    assert choices.fastest(16, watch.paths()) == "library"


def test_if_all_paths_fail_the_first_one_is_used() -> None:
    watch = Stopwatch(library=RuntimeError("a"), frames=RuntimeError("b"))
    choices = Choices(watch)
    with pytest.warns(UserWarning, match="path, which does not work here"):
        assert choices.fastest(8, watch.paths()) == "library"
    assert choices.fastest(16, watch.paths()) == "library"


def test_if_the_first_path_fails_another_one_is_used() -> None:
    watch = Stopwatch(library=RuntimeError("CUDNN_STATUS_NOT_SUPPORTED"), frames=3.0)
    choices = Choices(watch)
    with pytest.warns(UserWarning, match="CUDNN_STATUS_NOT_SUPPORTED"):
        assert choices.fastest(8, watch.paths()) == "frames"
    assert choices.fastest(16, watch.paths()) == "frames"


def test_a_path_without_room_in_memory_is_tried_again_with_another_size() -> None:
    watch = Stopwatch(library=2.0, frames=torch.OutOfMemoryError("of 80 GB"))
    choices = Choices(watch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choices.fastest(64, watch.paths()) == "library"
        watch.times["frames"] = 1.0
        assert choices.fastest(8, watch.paths()) == "frames"


def test_nothing_is_measured_where_results_must_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch(library=2.0, frames=1.0)
    choices = Choices(watch)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert choices.fastest(8, watch.paths()) == "library"
    assert not watch.measured
    monkeypatch.undo()
    assert choices.fastest(8, watch.paths()) == "frames"


def test_nothing_is_measured_during_a_capture_and_what_is_known_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Stopwatch(library=2.0, frames=1.0)
    choices = Choices(watch)
    assert choices.fastest(8, watch.paths()) == "frames"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert choices.fastest(8, watch.paths()) == "frames"
    assert choices.fastest(16, watch.paths()) == "library"
    assert watch.measured == ["library", "frames"]


def test_few_choices_are_kept_and_the_latest_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "KEPT", 2)
    watch = Stopwatch(library=2.0, frames=1.0)
    choices = Choices(watch)
    for size in (1, 2, 1, 3, 1, 2):
        choices.fastest(size, watch.paths())
    assert watch.measured.count("library") == 4  # 1, 2, 3, and 2 again


# --- in a layer


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Run]]:
    """Layers on a CPU have two paths, of which the second is the faster one."""
    runs: list[Run] = []

    def measure(run: Run) -> float:
        run()
        runs.append(run)
        return 1.0 / len(runs)

    monkeypatch.setattr(choice, "CHOICES", Choices(measure))
    monkeypatch.setattr(Direction, "paths", lambda *_, **__: [LIBRARY, FRAMES])
    return iter([runs])


@pytest.mark.parametrize("bidirectional", [True, False])
def test_measuring_leaves_no_trace_in_a_layer(
    bidirectional: bool, measured: Iterator[list[Run]]
) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(4, 6, bidirectional=bidirectional, weight_dropout=0.5)
    x = Padded(torch.randn(2, 5, 4, requires_grad=True), LENGTHS)
    paths: list[str | None] = []
    original = Direction._frame_by_frame

    def watched(self: Direction, *given: object) -> object:
        paths.append(FRAMES)
        return original(self, *given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Direction, "_frame_by_frame", watched)
        torch.manual_seed(1)
        got = layer(x).values
        drawn = torch.rand(1)
    (runs,) = measured
    assert len(runs) == 2
    assert len(paths) == (2 if bidirectional else 1) * 2  # once measured, once in earnest
    assert x.values.grad is None
    assert all(parameter.grad is None for parameter in layer.parameters())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Direction, "paths", lambda *_, **__: [LIBRARY])
        torch.manual_seed(1)
        wanted = layer(x).values
        assert torch.equal(drawn, torch.rand(1))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    got.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    layer(Padded(torch.randn(2, 5, 4), LENGTHS))
    assert len(runs) == 2
    with torch.no_grad():  # of another speed, since there is no way back
        layer(x)
    assert len(runs) == 4


def test_a_cpu_has_one_path_for_each_layer() -> None:
    values = torch.zeros(2, 5, 4)
    for cell, path in (("lstm", LIBRARY), ("gru", FRAMES)):
        assert Direction(4, 6, cell).paths(values) == [path]
    assert Direction(4, 6, zoneout=0.1).paths(values) == [FRAMES]
    assert Direction(4, 6).paths(values, ragged=True) == [FRAMES]
    assert recurrent.PERSISTENT not in Direction(4, 64).paths(values.half(), directions=2)


def test_an_input_of_another_size_is_no_fault_of_a_path(measured: Iterator[list[Run]]) -> None:
    layer = RecurrentLayer(4, 6)
    with pytest.raises(ValueError, match="expected 4 features, got 5"):
        layer(Padded(torch.zeros(2, 5, 5), LENGTHS))
    layer(Padded(torch.zeros(2, 5, 4), LENGTHS))
    (runs,) = measured
    assert len(runs) == 2


def test_measuring_is_done_in_the_precision_of_the_caller() -> None:
    seen: list[torch.dtype] = []

    def run(values: torch.Tensor, copies: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        outputs = torch.nn.functional.linear(values, copies[0]["weight"])
        seen.append(outputs.dtype)
        assert not torch.is_autocast_cache_enabled()
        return outputs

    once = choice.timed_pass(run, torch.randn(2, 3), [{"weight": torch.randn(4, 3)}])
    once()
    with torch.autocast("cpu", torch.bfloat16):
        once()
        assert torch.is_autocast_cache_enabled()
    assert seen == [torch.float32, torch.bfloat16]
