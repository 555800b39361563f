"""The end of a step that is replayed: on a CPU it is computed again on the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from rich.console import Console
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from asr.training import deferred
from asr.training.deferred import finish_step
from asr.training.display import Display
from asr.training.graphed import Pass
from asr.training.graphed_update import GraphedUpdate
from asr.training.interrupt import StopRequest
from asr.training.loop import Loop, Loss, Task, _step, begin
from asr.training.optimizer import OptimizationConfig, build_optimizer, set_rate
from asr.training.place import Place
from tests.device_path import Reads
from tests.training.test_graphed import Devices

# The gradient of each step is multiplied by its number: clipped, NaN, infinite, too large for fp16.
SCALES = [1.0, 1.0, 100.0, float("nan"), 1.0, float("inf"), 1.0, 1e36, 0.01, 1.0]


def a_training(finish: deferred.Update, scaled: bool) -> Loop:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    place = Place(None, Display(1, Console(quiet=True)), StopRequest())
    state = begin(model, OptimizationConfig(clip_norm=0.5), place, {})
    state.update = finish
    if scaled:  # as in fp16 on a GPU
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        state.accelerator.scaler = scaler
        state.optimizer = AcceleratedOptimizer(state.optimizer.optimizer, scaler=scaler)
        state.accelerator._optimizers = [state.optimizer]
        state.accelerator.native_amp = True
    return state


def steps(
    state: Loop, scales: list[float], watch: Callable[[], Any] = lambda: None
) -> list[Tensor]:
    """Norms, weights, moments, buffers and the factor of the scaler, after each step."""
    losses: dict[str, Any] = {}

    def loss(scale: float) -> Loss:
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(int(losses["step"])))
        items = state.model(x).square().mean(dim=1)
        return Loss(items.mean() * scale, items.detach(), torch.ones(6, dtype=torch.int64))

    nothing: Any = None
    task = Task(nothing, loss, nothing, nothing, lambda batch: "")
    found: list[Tensor] = []
    for number, scale in enumerate(scales):
        losses["step"] = number
        # A rate in float32, as the graph has it.
        set_rate(state.optimizer, float(np.float32(0.01 / (1 + number))))
        assert _step(state, task, scale) is not None
        assert all(parameter.grad is None for parameter in state.model.parameters())
        watch()
        found += [value.clone() for value in state.model.state_dict().values()]
        for moments in state.optimizer.optimizer.state.values():
            found += [moments[name].clone() for name in sorted(moments)]
        if state.accelerator.scaler is not None:
            found.append(torch.tensor(state.accelerator.scaler.get_scale()))
    return [*found, torch.tensor(state.progress.health.skipped_steps)]


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate refuses fp16 on a CPU."""
    from accelerate.state import AcceleratorState

    monkeypatch.setattr(AcceleratorState, "mixed_precision", "fp16")


def again(work: Pass) -> Pass:
    return work


@pytest.mark.parametrize("scaled", [False, True])
def test_a_replayed_end_of_a_step_is_that_of_a_plain_one(
    scaled: bool, request: pytest.FixtureRequest
) -> None:
    update = GraphedUpdate(torch.device("cpu"), pytest.fail, again)
    own, plain = a_training(update, scaled), a_training(finish_step, scaled)
    if scaled:
        request.getfixturevalue("half")
    used: list[object] = []
    found = steps(own, SCALES, lambda: used.append(update._kept))
    expected = steps(plain, SCALES)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert int(found[-1]) >= 2, "steps that are skipped"
    assert used[0] is None, "moments first"
    assert used[1] is not None
    assert len(set(map(id, used[1:]))) == 1, "recorded once"
    groups = own.optimizer.param_groups
    assert all(type(group["lr"]) is float and not group["capturable"] for group in groups)


def test_another_set_of_gradients_is_recorded_anew() -> None:
    update = GraphedUpdate(torch.device("cpu"), pytest.fail, again)
    own, plain = a_training(update, False), a_training(finish_step, False)
    kept: list[object] = []
    outcomes = []
    for state in (own, plain):
        found = steps(state, [1.0, 1.0])
        first = next(state.model.children())
        first.requires_grad_(False)
        found += steps(state, [1.0, 1.0])
        kept.append(update._kept)
        first.requires_grad_(True)
        outcomes.append([*found, *steps(state, [1.0, 1.0])])
    for one, other in zip(*outcomes, strict=True):
        assert torch.equal(one, other)


def test_what_cannot_be_recorded_is_said_once() -> None:
    said: list[str] = []

    def refuse(work: Pass) -> Pass:
        own.accelerator.clip_grad_norm_(own.model.parameters(), 1e9)
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    update = GraphedUpdate(torch.device("cpu"), said.append, refuse)
    own, plain = a_training(update, True), a_training(finish_step, True)
    for one, other in zip(steps(own, [1.0] * 4), steps(plain, [1.0] * 4), strict=True):
        assert torch.equal(one, other)
    assert said == [
        "the optimizer runs without CUDA graphs (train.cuda_graphs): operation not permitted"
    ]


def test_nothing_is_read_or_taken_from_the_host() -> None:
    update = GraphedUpdate(torch.device("cpu"), pytest.fail, again)
    state = a_training(update, True)
    steps(state, [1.0, 1.0])
    assert update._kept is not None
    for parameter in state.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with Reads() as reads:
        update._kept.work()
    assert reads.count == 0, reads.found


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_what_is_recorded_on_a_pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the work reads and writes is on the GPU: a copy from the host could not be captured.
    AdamW's kernel is left out, which torch does not pretend."""
    rates: list[Any] = []
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *_, lr, **__: rates.append(lr))
    with FakeTensorMode(allow_non_fake_inputs=True):
        update = GraphedUpdate(torch.device("cuda"), pytest.fail, again)
        with torch.device("cuda"):
            model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
        inner = build_optimizer(model, OptimizationConfig())
        optimizer = SimpleNamespace(
            optimizer=inner, param_groups=inner.param_groups, step=inner.step,
            zero_grad=inner.zero_grad,
        )  # fmt: skip
        accelerator: Any = SimpleNamespace(scaler=None, clip_grad_norm_=nn.utils.clip_grad_norm_)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            before = [buffer.clone() for buffer in model.buffers()]
            update(model, optimizer, accelerator, 1.0, before)
        assert update._kept is not None
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        with Devices() as devices:
            update._kept.work()
    assert devices.found == {"cuda"}
    assert all(isinstance(rate, Tensor) and rate.is_cuda for rate in rates[2:])


@pytest.mark.gpu
@pytest.mark.parametrize("scaled", [False, True])
def test_a_graph_ends_steps_as_plain_operators_do(scaled: bool) -> None:
    """The gradients are equal, so the results are, but for the order of sums in the norm."""
    outcomes = []
    update = GraphedUpdate(torch.device("cuda", 0), pytest.fail)
    for finish in (update, finish_step):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, 300), nn.BatchNorm1d(300), nn.Linear(300, 3))
        place = Place(None, Display(1, Console(quiet=True)), StopRequest())
        state = begin(model, OptimizationConfig(clip_norm=0.5), place, {}, _precision(scaled))
        found = []
        for number, scale in enumerate(SCALES):
            set_rate(state.optimizer, float(np.float32(0.01 / (1 + number))))
            random = torch.Generator().manual_seed(number)
            before = [buffer.clone() for buffer in model.buffers()]
            with torch.no_grad():
                for buffer in model.buffers():
                    buffer.add_(1)
            factor = 1.0
            if state.accelerator.scaler is not None:
                state.accelerator.scaler.scale(torch.ones((), device="cuda"))
                factor = state.accelerator.scaler.get_scale()
            for parameter in model.parameters():
                slope = torch.randn(parameter.shape, generator=random) * scale * factor
                parameter.grad = slope.cuda()
            norm = finish(model, state.optimizer, state.accelerator, 0.5, before)
            found += [norm, *(value.clone() for value in model.state_dict().values())]
            if state.accelerator.scaler is not None:
                found.append(torch.tensor(state.accelerator.scaler.get_scale()))
        outcomes.append(found)
    assert update._kept is not None
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)


def _precision(scaled: bool) -> str:
    return "fp16" if scaled else "no"
