"""Batches padded to a ladder of shapes, and steps that are replayed.

On a CPU, a pass is "replayed" by computing it again on the same tensors. On a GPU, CUDA graphs are
compared with eager steps.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asr.augment.config import AugmentConfig
from asr.augment.noise import NO_NOISE, Sounds
from asr.ctc import kernel
from asr.dataset.speech_dataset import Batch
from asr.features.extractor import FeatureConfig
from asr.models import recurrent
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.models.kernels import dense, gpu, graphs, streams
from asr.padded import Padded, pad
from asr.training import distributed, graphed, trainer
from asr.training.display import Display
from asr.training.graphed import GraphReplay, Shape, fitted, shape_of
from asr.training.graphed_update import GraphedUpdate
from asr.training.interrupt import StopRequest
from asr.training.loop import Loop, Loss, Task, _step, begin
from asr.training.optimizer import OptimizationConfig
from asr.training.place import Place
from asr.training.step import Compute, Masked, Network, batch_loss, masked_loss
from tests.tones import run_quietly, tone_recipe, write_corpus
from tests.training.test_device_path import pretended

BANDS, UNITS, RATE = 12, 5, 8000
PLAIN = AugmentConfig(speeds=[1.0], vtlp=0, time_masks=0, frequency_masks=0)
FULL = ModelConfig(
    channels=(4,), strides=(2,), layers=3, hidden=8, dropout=0.0, residual=True,
    hierarchical_ctc_layer=2, attention_heads=2, attention_decoder=8,
)  # fmt: skip
Outcome = list[Tensor]


def a_model(config: ModelConfig = FULL) -> AcousticModel:
    torch.manual_seed(0)
    features = FeatureConfig(sample_rate=RATE, bands=BANDS)
    return AcousticModel(features, config, UNITS).train()


def a_batch(frames: list[int], seed: int = 0, weighted: bool = True) -> Masked:
    """Two views of noise; the first target does not fit if it has few frames."""
    torch.manual_seed(seed)
    rows = [torch.randn(count, BANDS) for count in frames * 2]
    targets = pad([torch.randint(1, UNITS, (3 + n,)) for n in range(len(frames))])
    weights = torch.linspace(0.5, 1.0, len(frames)) if weighted else None
    return Masked(pad(rows), targets, targets, weights, 2)


def compute(autocast: Any = contextlib.nullcontext) -> Compute:
    return partial(masked_loss, cr_ctc_weight=0.2, autocast=autocast, attention_weight=0.3)


def outcome(model: AcousticModel, loss: Loss) -> Outcome:
    """Loss, gradients and running statistics."""
    model.zero_grad()
    (3.0 * loss.objective).backward()
    slopes = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    statistics = [buffer.clone() for buffer in model.buffers()]
    return [loss.objective.detach(), loss.items, loss.units, *slopes, *statistics]


def assert_same(found: Outcome, expected: Outcome) -> None:
    assert len(found) == len(expected)
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)


def eager(model: AcousticModel, given: Masked) -> Outcome:
    return outcome(model, compute()(model.outputs, given))


def again(forward: graphed.Pass, backward: graphed.Pass) -> tuple[graphed.Pass, graphed.Pass]:
    return forward, backward


@pytest.mark.parametrize("weighted", [True, False])
def test_padding_to_a_shape_changes_nothing(weighted: bool) -> None:
    given = a_batch([40, 9, 2], weighted=weighted)
    shape = shape_of(given)
    assert shape == Shape(8, 64, 31, 31)
    plain, padded = a_model(), a_model()
    expected = eager(plain, given)
    loss = compute()(padded.outputs, fitted(given, shape))
    found = outcome(padded, Loss(loss.objective, loss.items[:3], loss.units[:3]))
    assert torch.isinf(expected[1]).any(), "a target that does not fit"
    assert not loss.items[3:].any()
    assert_same(found, expected)


def test_padding_of_frames_draws_the_same() -> None:
    given = a_batch([40, 38, 36])
    config = FULL.model_copy(update={"dropout": 0.5, "attention_heads": 0})
    outcomes = []
    for shape in (Shape(3, 40, 5, 5), Shape(3, 64, 31, 31)):
        model = a_model(config)
        torch.manual_seed(7)
        outcomes.append(outcome(model, compute()(model.outputs, fitted(given, shape))))
    assert_same(*outcomes)


def test_steps_that_are_replayed_are_those_of_the_model() -> None:
    plain, model = a_model(), a_model()
    replay = GraphReplay(model, pytest.fail, again)
    for number, frames in enumerate([[40, 9], [40, 30, 20], [33], [200, 100], [60, 60], [150]]):
        given = a_batch(frames, number, weighted=bool(number % 2))
        assert_same(outcome(model, replay(compute(), given)), eager(plain, given))
        with torch.no_grad():
            for p, q in zip(model.parameters(), plain.parameters(), strict=True):
                p.sub_(0.01 * p.sign())
                q.sub_(0.01 * q.sign())
    found: Any = replay._kept.items()
    kept = {shape.frames: graph is not None for (shape, _), graph in found}
    assert kept == {64: True, 224: False, 160: False}


def test_frozen_and_unused_parameters_get_no_gradient() -> None:
    plain, model = a_model(), a_model()
    for each in (plain, model):
        each.encoder.layers[0].requires_grad_(False)
        each.register_parameter("unused", torch.nn.Parameter(torch.ones(2)))
    replay = GraphReplay(model, pytest.fail, again)
    for number in range(3):
        given = a_batch([40], number)
        assert_same(outcome(model, replay(compute(), given)), eager(plain, given))


def test_few_shapes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphed, "KEPT", 2)
    replay = GraphReplay(a_model(), pytest.fail, again)
    for frames in (32, 64, 32, 96):
        replay(compute(), a_batch([frames]))
    shapes: list[Any] = list(replay._kept)
    assert [shape.frames for shape, _ in shapes] == [32, 96]


def test_what_cannot_be_recorded_is_eager_and_said_once() -> None:
    said: list[str] = []

    def refuse(forward: graphed.Pass, backward: graphed.Pass) -> Any:
        forward()
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    plain, model = a_model(), a_model()
    replay = GraphReplay(model, said.append, refuse)
    for number in range(4):
        given = a_batch([40], number)
        assert_same(outcome(model, replay(compute(), given)), eager(plain, given))
    assert said == [
        "training runs without CUDA graphs (train.cuda_graphs): operation not permitted"
    ]


@pytest.mark.parametrize(
    ("settings", "device", "reason"),
    [
        ({}, "cpu", "there is no CUDA device"),
        ({"zoneout": 0.1}, "cuda", "model.zoneout is set"),
    ],
)
def test_an_ignored_setting_is_said(settings: Any, device: str, reason: str) -> None:
    said: list[str] = []
    model = a_model(FULL.model_copy(update=settings))
    assert graphed.replay(model, torch.device(device), said.append) is None
    assert said == [f"train.cuda_graphs is ignored: {reason}"]


def test_several_processes_are_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_joined", lambda: True)
    said: list[str] = []
    assert graphed.replay(a_model(), torch.device("cuda"), said.append) is None
    assert said == ["train.cuda_graphs is ignored: several processes train together"]


def test_loops_run_plainly_while_a_step_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs.Graphs, "captured", lambda *_: pytest.fail("a graph of its own"))
    ran: list[bool] = []
    tape: Any = type("", (), {"size": (40, 2), "run": lambda self: ran.append(True)})()
    with streams.single_stream():
        assert streams.is_single_stream()
        graphs.Graphs().run(tape)
    assert ran
    assert not streams._plain


def test_what_is_recorded_takes_nothing_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a pretended GPU: a copy from the host would wait, which a graph cannot. Recurrent layers
    and CTC are left out."""
    monkeypatch.setattr(gpu, "serves", lambda *_: False)
    monkeypatch.setattr(recurrent, "side_by_side", lambda one, other, shared: (one(), other()))
    monkeypatch.setattr(
        dense, "_run", lambda name, x, state, weights: (x[..., : len(state[0][0])], state)
    )
    monkeypatch.setattr(kernel, "serves", lambda *_: True)
    monkeypatch.setattr(kernel, "ctc_loss", lambda scores, targets: scores.values.sum((1, 2)))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, batch, _ = pretended(torch.device("cuda"))
        features = torch.zeros(8, 90, model.features.size, device="cuda")
        lengths = torch.full((8,), 80, device="cuda")
        given = Masked(Padded(features, lengths), batch.targets, None, None, 2)
        slopes = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        graph = graphed._Graph(model, compute(), fitted(given, shape_of(given)), slopes)
        with Devices() as devices:
            graph.forward()
    assert devices.found == {"cuda"}


class Devices(TorchDispatchMode):
    """The devices of all tensors that operators take and give."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        self.found |= {leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)}
        return result


def test_a_training_replays_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = write_corpus(tmp_path, {"train": 6, "dev": 2})
    made: list[GraphReplay] = []

    def replay(
        model: AcousticModel, device: torch.device, say: Callable[[str], None]
    ) -> GraphReplay:
        made.append(GraphReplay(model, pytest.fail, again))
        return made[-1]

    update = GraphedUpdate(torch.device("cpu"), pytest.fail, lambda work: work)
    monkeypatch.setattr(trainer, "GraphedUpdate", lambda *_: update)
    losses = []
    for number, on in enumerate((False, True)):
        recipe = tone_recipe(manifests, tmp_path / str(number), epochs=1, cuda_graphs=on)
        if on:
            monkeypatch.setattr(graphed, "replay", replay)
        run_quietly(recipe)
        losses.append(json.loads((recipe.out / "history.json").read_text())[0]["loss"])
    assert any(graph is not None for graph in made[0]._kept.values())
    assert update._kept is not None
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def on_a_gpu(dropout: float, precision: str, graphs_on: bool) -> tuple[Loop, Task[Batch]]:
    torch.manual_seed(0)
    config = ModelConfig(strides=(2, 2), layers=2, hidden=128, dropout=dropout)
    model = AcousticModel(FeatureConfig(sample_rate=RATE), config, UNITS).train()
    place = Place(None, Display(1, Console(quiet=True)), StopRequest())
    state = begin(model, OptimizationConfig(learning_rate=1e-3), place, {}, precision)
    if state.accelerator.scaler is not None:
        state.accelerator.scaler._init_scale = (
            1024.0  # the usual one makes the first steps overflow
        )
    replay = GraphReplay(model, pytest.fail) if graphs_on else None
    if graphs_on:
        state.update = GraphedUpdate(state.accelerator.device, pytest.fail)
    loss: Callable[[Batch], Loss] = partial(
        batch_loss, model, augment=PLAIN, cr_ctc_weight=0.2, sounds=Sounds(RATE, NO_NOISE),
        autocast=state.accelerator.autocast, replay=replay,
    )  # fmt: skip
    nothing: Any = None
    return state, Task(nothing, loss, nothing, nothing, lambda batch: "a batch")


def waves(rows: int, seconds: float, seed: int) -> Batch:
    torch.manual_seed(seed)
    lengths = ((0.8 + 0.2 * torch.rand(rows)) * seconds * RATE).long()
    values = Padded(0.1 * torch.randn(rows, int(lengths.max())), lengths)
    targets = Padded(torch.randint(1, UNITS, (rows, 9)), torch.randint(1, 10, (rows,)))
    names = [str(i) for i in range(rows)]
    batch = Batch(names, values, targets, targets, [1.0] * rows, [1.0] * rows, lengths.tolist())
    return batch.to("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "near"), [("no", 1e-3), ("fp16", 2e-2)])
def test_graphs_train_as_eager_steps_do(
    precision: str, near: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    (own, graphed_), (other, plain) = (on_a_gpu(0.0, precision, on) for on in (True, False))
    batches = [waves(6, 1.0, 0), waves(12, 2.1, 1), waves(7, 1.0, 2), waves(11, 2.1, 3)] * 3
    for batch in batches:
        found, expected = graphed_.loss(batch), plain.loss(batch)
        torch.testing.assert_close(found.items, expected.items, rtol=near, atol=near)
        assert torch.equal(found.units, expected.units)
        slopes = []
        for state, loss in ((own, found), (other, expected)):
            state.accelerator.backward(loss.objective)
            slopes.append([p.grad.clone() for p in state.model.parameters() if p.grad is not None])
            state.optimizer.zero_grad()
        size = max(float(slope.norm()) for slope in slopes[1])
        for mine, theirs in zip(*slopes, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=near, atol=near * size)
        for mine, theirs in zip(own.model.buffers(), other.model.buffers(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=near, atol=near)
    for batch in batches:  # whole steps, with clipping and the optimiser
        for state, task in ((own, graphed_), (other, plain)):
            assert _step(state, task, batch) is not None
    for state in (own, other):
        state.deferred.read()
    update: Any = own.update
    assert update._kept is not None
    weights = [state.model.state_dict().values() for state in (own, other)]
    for mine, theirs in zip(*weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=near, atol=len(batches) * 2e-3)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")  # a replayed step does not wait
    try:
        _step(own, graphed_, batches[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert own.progress.loss_sum == pytest.approx(other.progress.loss_sum, rel=0.03)


@pytest.mark.gpu
def test_dropout_of_graphs_differs_from_step_to_step_and_obeys_the_seed() -> None:
    (_, graphed_), (_, plain) = (on_a_gpu(0.5, "no", on) for on in (True, False))
    batch = waves(8, 1.0, 0)  # 8 rows: no rows are added, so that the same numbers are drawn

    def items(task: Task[Batch], seed: int) -> Tensor:
        torch.manual_seed(seed)
        return task.loss(batch).items

    for _ in range(2):
        items(graphed_, 0)  # eagerly, then recorded
    one, two, same = (items(graphed_, seed) for seed in (1, 2, 1))
    assert not torch.allclose(one, two, rtol=1e-3)
    torch.testing.assert_close(one, same)
    torch.testing.assert_close(one, items(plain, 1), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(two, items(plain, 2), rtol=1e-2, atol=1e-2)


@pytest.mark.gpu
def test_graphs_that_are_dropped_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphed, "KEPT", 1)
    (_, task), (_, plain) = (on_a_gpu(0.0, "no", on) for on in (True, False))
    for number in (0, 0, 0, 1, 1, 1):
        batch = waves(6, 1.0 + number, number)
        found, expected = task.loss(batch), plain.loss(batch)
        torch.testing.assert_close(found.items, expected.items, rtol=1e-2, atol=1e-2)


@pytest.mark.gpu
def test_a_refused_recording_leaves_torch_whole() -> None:
    said: list[str] = []
    config = FULL.model_copy(update={"attention_heads": 0, "hierarchical_ctc_layer": 0})
    model = a_model(config).cuda()
    replay = GraphReplay(model, said.append)

    def waits(network: Network, given: Masked) -> Loss:
        loss = compute()(network, given)
        float(loss.objective)  # cannot be captured
        return loss

    given = a_batch([40, 30])
    there = replace(
        given,
        features=given.features.to("cuda"),
        targets=given.targets.to("cuda"),
        spelled=None,
        weights=None,
    )
    for _ in range(3):
        replay(waits, there).objective.backward()
    assert len(said) == 1
    torch.rand(3, device="cuda")  # the generator draws again
    torch.cuda.synchronize()
