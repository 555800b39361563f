"""What a step reads from the device."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from asr.augment.config import AugmentConfig, NoiseConfig, ReverbConfig
from asr.augment.noise import Sounds
from asr.dataset.cuts import whole
from asr.dataset.manifest import read_manifest
from asr.dataset.speech_dataset import Batch, SpeechDataset
from asr.text.normalise import TextConfig
from asr.training.display import Display
from asr.training.interrupt import StopRequest
from asr.training.loop import Loop, Place, Task, _step, begin
from asr.training.optimizer import OptimizationConfig
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
)
DRAWN = 2  # nonzero of what is drawn on the host: who is in a room, and who on a telephone


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    manifests = write_corpus(tmp_path, {"train": 4})
    utterances = list(read_manifest(manifests["train"]))
    data = SpeechDataset(utterances, untrained_bundle().tokens, TextConfig(), RATE)
    made = data.batch([whole(i) for i in range(4)])
    return replace(made, speeds=[0.9, 1.0, 1.1, 0.9], tempos=[1.0, 0.9, 1.2, 1.1])


def a_training(device: str) -> tuple[Loop, Task[Batch]]:
    torch.manual_seed(0)
    place = Place(None, Display(1, Console(quiet=True)), StopRequest())
    model = untrained_bundle().model.to(device).train()
    state = begin(model, OptimizationConfig(), place, {})
    sounds = Sounds(RATE, (1000 * torch.randn(RATE)).short()).to(device)
    loss = partial(
        batch_loss, model, augment=EVERYTHING, cr_ctc_weight=0.2, sounds=sounds,
        autocast=contextlib.nullcontext,
    )  # fmt: skip
    nothing: Any = None
    task = Task(nothing, loss, nothing, nothing, lambda batch: "")
    return state, task


def test_a_step_reads_nothing_until_it_must(batch: Batch) -> None:
    with as_on_a_gpu():
        state, task = a_training("cpu")
        with Reads() as reads:
            for _ in range(2):
                loss = _step(state, task, batch)
                task.stepped(state, batch, loss)
        assert reads.count == 2 * DRAWN, reads.found
        assert state.progress.loss_units == 0
        state.readings.read()
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
            state, task = a_training("cpu")
            torch.manual_seed(3)
            task.loss(batch).objective.backward()
            outcomes.append([p.grad for p in state.model.parameters() if p.grad is not None])
    size = max(float(gradient.norm()) for gradient in outcomes[0])
    for own, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-2, atol=1e-4 * size)


@pytest.mark.gpu
def test_a_step_does_not_wait_for_a_gpu(batch: Batch) -> None:
    state, task = a_training("cuda")
    there = batch.to("cuda")
    for _ in range(3):  # compile kernels, record graphs, allocate
        _step(state, task, there)
    state.readings.read()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        _step(state, task, there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    state.readings.read()
