"""What a step reads from the device."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch._subclasses.fake_tensor import FakeTensorMode

from asr.augment import noise
from asr.augment.config import AugmentConfig, NoiseConfig, ReverbConfig
from asr.augment.noise import Sounds
from asr.ctc import kernel as ctc_kernel
from asr.dataset.cuts import whole
from asr.dataset.manifest import read_manifest
from asr.dataset.speech_dataset import Batch, SpeechDataset
from asr.features.extractor import FeatureConfig
from asr.models import recurrent
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.models.kernels import dense, gpu
from asr.padded import Padded
from asr.text.normalise import TextConfig
from asr.training.deferred import restore, step_if_finite
from asr.training.display import Display
from asr.training.interrupt import StopRequest
from asr.training.loop import Loop, Task, _step, begin
from asr.training.optimizer import OptimizationConfig, build_optimizer
from asr.training.place import Place
from asr.training.step import batch_loss
from tests.device_path import Reads, as_on_a_gpu
from tests.tones import RATE, untrained_bundle, write_corpus

EVERYTHING = AugmentConfig(
    vtlp=0.1,
    equaliser_db=3,
    time_warp=2,
    gain_db=6,
    noise=NoiseConfig(prob=0.5),
    reverb=ReverbConfig(prob=0.5),
    telephone_prob=0.5,
    lower_rate_prob=0.5,
)
PLAIN = AugmentConfig(
    vtlp=0, equaliser_db=0, time_warp=0, gain_db=0, time_masks=0, frequency_masks=0
)
DRAWN = 3  # nonzero of what is drawn on the host: who is in a room, on a telephone, at another rate


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    manifests = write_corpus(tmp_path, {"train": 4})
    utterances = list(read_manifest(manifests["train"]))
    data = SpeechDataset(utterances, untrained_bundle().tokens, TextConfig(), RATE)
    made = data.batch([whole(i) for i in range(4)])
    return replace(made, speeds=[0.9, 1.0, 1.1, 0.9], tempos=[1.0, 0.9, 1.2, 1.1])


def a_training(precision: str = "no") -> tuple[Loop, Task[Batch]]:
    """On a GPU, if there is one."""
    torch.manual_seed(0)
    place = Place(None, Display(1, Console(quiet=True)), StopRequest())
    model = untrained_bundle().model.train()
    state = begin(model, OptimizationConfig(), place, {}, precision)
    sounds = Sounds(RATE, (1000 * torch.randn(RATE)).short()).to(state.accelerator.device)
    loss = partial(
        batch_loss, model, augment=EVERYTHING, cr_ctc_weight=0.2, sounds=sounds,
        autocast=state.accelerator.autocast,
    )  # fmt: skip
    nothing: Any = None
    task = Task(nothing, loss, nothing, nothing, lambda batch: "")
    return state, task


@pytest.mark.skipif(torch.cuda.is_available(), reason="test_a_step_does_not_wait_for_a_gpu does it")
def test_a_step_reads_nothing_until_it_must(batch: Batch) -> None:
    with as_on_a_gpu():
        state, task = a_training()
        with Reads() as reads:
            for _ in range(2):
                loss = _step(state, task, batch)
                assert loss is not None
                task.stepped(state, batch, loss)
        assert reads.count == 2 * DRAWN, reads.found
        assert state.progress.loss_units == 0
        state.deferred.read()
    assert state.progress.loss_units > 0


def test_reads_are_found() -> None:
    values = torch.tensor([0.0, 1.0, 2.0])
    mask = values > 0
    with Reads() as reads:
        values[mask] = 1.0
        _ = values[mask], values.masked_select(mask), mask.nonzero()
        _ = values.tolist(), values[0].item(), bool(mask.any())
        _ = values[torch.tensor([0, 1])]
    assert reads.count == 7, reads.found


def test_the_device_path_gives_the_same_gradient(batch: Batch) -> None:
    outcomes = []
    for way in (contextlib.nullcontext, as_on_a_gpu):
        with way():
            state, task = a_training()
            torch.manual_seed(3)
            task.loss(batch.to(state.accelerator.device)).objective.backward()
            outcomes.append([p.grad for p in state.model.parameters() if p.grad is not None])
    size = max(float(gradient.norm()) for gradient in outcomes[0])
    for own, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-2, atol=1e-4 * size)


def pretended(device: torch.device) -> tuple[AcousticModel, Batch, Sounds]:
    """A model and a batch in a `FakeTensorMode`: shapes and devices without numbers."""
    with device:
        network = ModelConfig(
            strides=(2, 2), hidden=16, layers=2, dropout=0.3, attention_decoder=16
        )
        model = AcousticModel(FeatureConfig(), network, 7).train()
        waves = Padded(torch.zeros(4, 9000), torch.full((4,), 9000))
        targets = Padded(torch.ones(4, 5, dtype=torch.int64), torch.full((4,), 5))
        sounds = Sounds(16000, torch.zeros(5000, dtype=torch.int16))
    for module in model.modules():  # `Module.to` does not serve such tensors
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    speeds, tempos = [0.9, 1.0, 1.1, 0.9], [1.0, 0.9, 1.2, 1.1]
    batch = Batch(list("abcd"), waves, targets, targets, speeds, tempos, [9000] * 4)
    return model, batch, sounds


def test_a_step_on_a_pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No operator mixes devices, or needs a number of a GPU. Recurrent layers and CTC are left out,
    and the backward pass, which torch refuses there."""
    half = torch.tensor([0, 2])
    monkeypatch.setattr(noise, "pick", lambda prob, count, device: (half.to(device), None))
    monkeypatch.setattr(gpu, "serves", lambda *_: False)
    monkeypatch.setattr(recurrent, "side_by_side", lambda one, other, shared: (one(), other()))
    monkeypatch.setattr(
        dense, "_run", lambda name, x, state, weights: (x[..., : len(state[0][0])], state)
    )
    monkeypatch.setattr(ctc_kernel, "serves", lambda *_: True)
    monkeypatch.setattr(ctc_kernel, "ctc_loss", lambda scores, targets: scores.values.sum((1, 2)))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, batch, sounds = pretended(torch.device("cuda"))
        optimizer = build_optimizer(model, OptimizationConfig())
        before = [buffer.clone() for buffer in model.buffers()]
        loss = batch_loss(model, batch, EVERYTHING, 0.2, contextlib.nullcontext, sounds)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        wrapped = SimpleNamespace(optimizer=optimizer, step=optimizer.step)
        restore(model, before, step_if_finite(wrapped, norm, scaled=False))
        found = {value.device.type for value in (loss.objective, loss.items, loss.units, norm)}
    assert found == {"cuda"}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_a_step_does_not_wait_for_a_gpu(batch: Batch, precision: str) -> None:
    state, task = a_training(precision)
    there = batch.to("cuda")
    for _ in range(3):  # compile kernels, measure paths, record graphs, allocate
        _step(state, task, there)
    state.deferred.read()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = _step(state, task, there)
        assert loss is not None
        task.stepped(state, there, loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    state.deferred.read()


@pytest.mark.gpu
def test_a_gradient_is_the_same_there(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of masked sums, resampling, tempo, patches and CTC, without draws."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    outcomes = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = untrained_bundle().model.to(device).train()
        sounds = Sounds(RATE, torch.zeros(0, dtype=torch.int16)).to(device)
        given = batch.to(device)
        loss = batch_loss(model, given, PLAIN, 0.2, contextlib.nullcontext, sounds)
        loss.objective.backward()
        outcomes.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
        outcomes[-1] += [buffer.cpu() for buffer in model.buffers()]
    size = max(float(gradient.norm()) for gradient in outcomes[0])
    for own, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-2, atol=1e-3 * size)
