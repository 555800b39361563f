"""Where a training step spends its time: phases, and on a GPU launches, copies and waits; on a CPU,
how often the paths of a GPU that are plain torch would wait there.

The batches are noise of the lengths of a recipe's batches. A phase is timed with a wait for the
device before and after it, so that their sum exceeds the time of a step. On a GPU each case is
measured eagerly and with `train.cuda_graphs`, which replays the optimizer as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from asr.augment.config import AugmentConfig
from asr.augment.noise import Sounds, load_sounds
from asr.augment.specaugment import draw_distortion, spec_augment, warp_time
from asr.dataset.speech_dataset import Batch
from asr.evaluation.evaluate import machine_name
from asr.features.extractor import FeatureConfig
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig
from asr.padded import Padded
from asr.training import step
from asr.training.deferred import finish_step
from asr.training.display import Display
from asr.training.graphed import GraphReplay
from asr.training.graphed_update import GraphedUpdate
from asr.training.interrupt import StopRequest
from asr.training.loop import Loss, Task, _step, begin
from asr.training.optimizer import OptimizationConfig
from asr.training.place import Place
from tests.bench.timing import print_table, verdict
from tests.device_path import Reads, as_on_a_gpu

TOKENS = 31
TOKENS_A_SECOND = 14
BATCHES = 5  # of different lengths
AUGMENT = AugmentConfig(vtlp=0.12, time_masks=3, frequency_mask_bands=20)
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A network and its batches."""

    name: str
    layers: int
    hidden: int
    rows: int
    seconds: float
    views: int = 2


GPU = (
    Case("Mini LibriSpeech's segments", 4, 512, 80, 4.0),
    Case("half of such a batch", 4, 512, 40, 4.0),
    Case("one view of 48 s", 4, 512, 12, 4.0, 1),
    Case("LibriSpeech's length", 5, 512, 64, 15.0, 1),
    Case("1024 cells", 5, 1024, 32, 15.0, 1),
)
CPU = (Case("AN4's recipe", 4, 256, 8, 3.0), Case("one view", 4, 256, 8, 3.0, 1))
GRAPHS = {"cuda": (False, True), "cpu": (False,)}


@dataclass
class Measured:
    """Milliseconds of a step and of its phases, and what the profiler counts in a step."""

    milliseconds: float = 0.0
    hours_per_hour: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    launches: float = 0.0
    copies: float = 0.0
    waits: float = 0.0
    busy: float = 0.0
    """Share of the time in which the GPU computes."""


def run() -> list[dict[str, Any]]:
    """Print a table; returns all figures."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cases = GPU if device == "cuda" else CPU
    ways = [(case, graphs) for case in cases for graphs in GRAPHS[device]]
    found = {way: _measure(*way, device) for way in ways}
    rows = [
        [
            f"{case.name}: {case.layers}x{case.hidden}, {case.rows} x {case.seconds:g} s"
            + (", CUDA graphs" if graphs else ""),
            f"{measured.milliseconds:.1f}",
            f"{measured.hours_per_hour:.0f}",
            *(f"{v:g}" for v in _counts(measured, device)),
        ]
        for (case, graphs), measured in found.items()
    ]
    counted = ["launches", "copies", "waits", "GPU busy, %"] if device == "cuda" else ["waits"]
    print_table(f"step: training on {machine_name()}", ["", "ms", "h/h", *counted], rows)
    for case in cases:
        phases = found[case, False].phases.items()
        print(f"  {case.name}, ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in phases))
    if device == "cuda":
        _judge(found)
    else:
        print("  no GPU: the CPU's sizes; waits are those that a GPU would cause")
    return [
        asdict(case) | {"cuda_graphs": graphs} | asdict(measured)
        for (case, graphs), measured in found.items()
    ]


def _judge(found: Mapping[tuple[Case, bool], Measured]) -> None:
    first, long = GPU[0], GPU[3]
    for case, most in ((first, 20.0), (long, 70.0)):
        value = found[case, True].milliseconds
        verdict(f"{case.name}, CUDA graphs, ms", value, f"<= {most:g}", value <= most)
    pace = found[first, True].hours_per_hour
    verdict(f"{first.name}, CUDA graphs, hours an hour", pace, ">= 15,000", pace >= 15_000)
    waits = max(measured.waits for measured in found.values())
    verdict("synchronisations in a step, at most", waits, "<= 2", waits <= 2)


def _counts(found: Measured, device: str) -> list[float]:
    if device != "cuda":
        return [found.waits]
    return [found.launches, found.copies, found.waits, round(100 * found.busy)]


def _measure(case: Case, graphs: bool, device: str) -> Measured:
    torch.manual_seed(0)
    bench = _Bench(case, graphs, device)
    warm, rounds = (15, 20) if device == "cuda" else (1, 4)
    for number in range(warm):
        bench.step(number)
    bench.wait()
    started = time.perf_counter()
    for number in range(rounds):
        bench.step(number)
    bench.wait()
    seconds = (time.perf_counter() - started) / rounds
    found = Measured(1000 * seconds, bench.audio_seconds / seconds)
    if not graphs:
        for number in range(rounds):
            bench.phases(number, found.phases, rounds)
    if device == "cuda":
        _count(bench, found)
    else:
        with as_on_a_gpu(), Reads() as reads:
            for number in range(rounds):
                bench.step(number)
        found.waits = reads.count / rounds
    return found


def _count(bench: _Bench, found: Measured, steps: int = 5) -> None:
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities) as profiled:
        started = time.perf_counter()
        for number in range(steps):
            bench.step(number)
        bench.wait()
        seconds = time.perf_counter() - started
    for event in profiled.key_averages():
        if event.key.startswith(("cudaLaunch", "cuLaunch", "cudaGraphLaunch")):
            found.launches += event.count / steps
        elif event.key.startswith("cudaMemcpy"):
            found.copies += event.count / steps
        elif event.key in WAITS:
            found.waits += event.count / steps
        found.busy += event.self_device_time_total / 1e6 / seconds


class _Bench:
    """A training in memory, on batches of noise."""

    def __init__(self, case: Case, graphs: bool, device: str) -> None:
        self._device = device
        network = ModelConfig(strides=(2, 2), hidden=case.hidden, layers=case.layers, dropout=0.3)
        self._model = AcousticModel(FeatureConfig(), network, TOKENS).to(device).train()
        self._weight = 0.2 if case.views == 2 else 0.0
        self._sounds: Sounds = load_sounds(AUGMENT, 16000).to(device)
        place = Place(None, Display(1, Console(quiet=True)), StopRequest())
        config = OptimizationConfig(learning_rate=1e-4)
        precision = "fp16" if device == "cuda" else "no"
        self._state = begin(self._model, config, place, {}, precision)
        self._replay = GraphReplay(self._model, print) if graphs else None
        if graphs:
            self._state.update = GraphedUpdate(self._state.accelerator.device, print)
        nothing: Any = None
        self._task = Task(nothing, self._loss, nothing, nothing, lambda batch: "a batch")
        self._batches = [_batch(case, seed).to(device) for seed in range(BATCHES)]
        samples = sum(int(batch.waves.lengths.sum()) for batch in self._batches)
        self.audio_seconds = samples / 16000 / BATCHES

    def wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def _loss(self, batch: Batch) -> Loss:
        autocast = self._state.accelerator.autocast
        return step.batch_loss(
            self._model, batch, AUGMENT, self._weight, autocast, self._sounds, replay=self._replay
        )

    def step(self, number: int) -> None:
        """A step of the training loop."""
        _step(self._state, self._task, self._batches[number % BATCHES])
        if self._state.deferred.due:
            self._state.deferred.read()

    def phases(self, number: int, found: dict[str, float], rounds: int) -> None:
        """Add the milliseconds of each phase, divided by `rounds`."""
        batch, model = self._batches[number % BATCHES], self._model
        encoder: Any = model.encoder  # nn.Module types its parts as tensors or modules
        views = 2 if self._weight else 1

        def timed(name: str, work: Callable[[], T]) -> T:
            self.wait()
            started = time.perf_counter()
            result = work()
            self.wait()
            spent = 1000 * (time.perf_counter() - started) / rounds
            found[name] = found.get(name, 0.0) + spent
            return result

        with torch.no_grad():
            waves = timed("speed", lambda: step.vary(batch, AUGMENT, self._sounds, False))
            distortion = draw_distortion(len(batch.ids), AUGMENT, waves.values.device)
            features = timed("features", lambda: model.features(waves, distortion))
            features = timed("time warp", lambda: warp_time(features, AUGMENT.time_warp))
            masked = timed(
                "masks", lambda: [spec_augment(features, AUGMENT).values for _ in range(views)]
            )
        inputs = Padded(torch.cat(masked), features.lengths.repeat(views))
        with self._state.accelerator.autocast():
            x = timed("convolutions", lambda: encoder.front(inputs))
            y = timed("recurrent layers", lambda: _recurrent(encoder, x))
            scores = timed("output", lambda: model.scores(encoder.finish(y)))
        loss = timed("CTC", lambda: step._ctc_of_views(scores, batch.targets, views, self._weight))
        timed("backward", lambda: self._state.accelerator.backward(loss.objective))
        timed("optimiser", self._update)

    def _update(self) -> None:
        state = self._state
        finish_step(
            self._model, state.optimizer, state.accelerator, 5.0, list(self._model.buffers())
        )


def _recurrent(encoder: Any, x: Padded) -> Padded:
    for number, layer in enumerate(encoder.layers):
        x = encoder._surrounded(number, x, layer)
    return x


def _batch(case: Case, seed: int) -> Batch:
    """Noise whose lengths are 80 to 100 % of the longest."""
    random = torch.Generator().manual_seed(seed)
    samples = int(16000 * (case.seconds - 0.05 * seed))
    lengths = ((0.8 + 0.2 * torch.rand(case.rows, generator=random)) * samples).long()
    lengths[0] = samples
    waves = Padded(0.1 * torch.randn(case.rows, samples, generator=random), lengths)
    most = int(TOKENS_A_SECOND * case.seconds)
    targets = torch.randint(1, TOKENS, (case.rows, most), generator=random)
    texts = Padded(targets, (most * lengths / samples).long())
    speeds = [AUGMENT.speeds[i % len(AUGMENT.speeds)] for i in range(case.rows)]
    names = [str(i) for i in range(case.rows)]
    return Batch(names, waves, texts, texts, speeds, [1.0] * case.rows, lengths.tolist())
