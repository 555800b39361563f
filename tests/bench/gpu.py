"""Layers on a GPU, in half precision on variable lengths: each path of ours, and torch's layers."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from asr.models.kernels import choice
from asr.models.recurrent import FRAMES, LIBRARY, PERSISTENT, RecurrentLayer
from asr.padded import Padded
from tests.bench.stacks import (
    Forward,
    contestants,
    largest_difference,
    random_batch,
    training_step,
    twins,
)
from tests.bench.timing import interleave, print_ratios, print_table, verdict

B, T = 32, 1000
GOALS = {512: 0.055, 1024: 0.095}  # seconds, by the number of cells
LAYERS = 5
SHORTEST = 0.6  # of T
ROUNDS = 5
HALF = torch.float16
HIDDEN, BATCHES = (256, 384, 512, 1024), ((1, 300), (8, 200), (32, 1000), (128, 140))
PATHS = {"cuDNN": LIBRARY, "frame by frame": FRAMES, "persistent": PERSISTENT}


def run() -> None:
    """Print a table for each size."""
    if not torch.cuda.is_available():
        print("\ngpu: no GPU: left out, for there is no CUDA device")
        return
    for hidden in GOALS:
        compare(hidden, LAYERS, B, T, "cuda")
    everywhere()


def compare(hidden: int, layers: int, rows: int, frames: int, device: str) -> None:
    """So many layers of so many cells a direction on a batch of noise."""
    torch.manual_seed(0)
    ours, theirs = twins(hidden, hidden, layers)
    ours.to(device)
    theirs.to(device)
    noise = random_batch(torch.linspace(SHORTEST * frames, frames, rows).long(), hidden)
    # What is packed wants its lengths on the processor.
    x = Padded(noise.values.detach().to(device).requires_grad_(), noise.lengths.to(device))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        outputs, gradients = largest_difference(ours, theirs, x)
    both = contestants(ours, theirs)
    steps = {name: partial(_step, forward, module, x) for name, (forward, module) in both.items()}
    served = [name for name in _served(ours, x) if _works(name, partial(_by, name, steps["ours"]))]
    for name in served:
        steps[f"ours, {name}"] = partial(_by, name, steps["ours"])
    seconds = interleave(steps, ROUNDS)
    print_ratios(
        f"gpu: training step, half precision, layers={layers} B={rows} T={frames} H={hidden}, "
        f"lengths {100 * SHORTEST:.0f} to 100 %, median of {ROUNDS}",
        "ms",
        seconds,
        lambda value: f"{1000 * value:.1f}",
    )
    print(f"  ours and packed differ by {outputs:.1e} (outputs), {gradients:.1e} (gradients)")
    for name in served:
        print(f"  {name}: {_error(ours, x, PATHS[name]):.1e} from cuDNN in float32 (outputs)")
    gain = seconds["packed nn.LSTM"] / seconds["ours"]
    verdict("packed over ours", gain, ">= 3", gain >= 3)
    if "cuDNN" in served:
        ratio = seconds["ours"] / seconds["ours, cuDNN"]
        verdict("ours over cuDNN, one direction a call", ratio, "<= 1.02", ratio <= 1.02)
    if (layers, rows, frames) == (LAYERS, B, T) and hidden in GOALS:
        value, goal = 1000 * seconds["ours"], 1000 * GOALS[hidden]
        verdict(f"{layers}x{hidden}, ms", value, f"<= {goal:.0f}", value <= goal)


def everywhere() -> None:
    """One layer of many sizes, with the path that it chooses, against cuDNN."""
    ratios = {}
    for hidden in HIDDEN:
        for rows, frames in BATCHES:
            layer = RecurrentLayer(hidden, hidden).cuda()
            lengths = torch.linspace(SHORTEST * frames, frames, rows).long().cuda()
            values = torch.randn(rows, frames, hidden, device="cuda")
            x = Padded(values.requires_grad_(), lengths)
            step = partial(_step, partial(_values, layer), layer, x)
            steps = {"ours": step, "cuDNN": partial(_by, "cuDNN", step)}
            seconds = interleave(steps, ROUNDS)
            ratios[hidden, rows, frames] = seconds["ours"] / seconds["cuDNN"]
    print_table(
        "gpu: one bidirectional layer, ours over cuDNN, one direction a call",
        ["B x T", *(f"H={hidden}" for hidden in HIDDEN)],
        [
            [f"{rows} x {frames}", *(f"{ratios[hidden, rows, frames]:.2f}" for hidden in HIDDEN)]
            for rows, frames in BATCHES
        ],
    )
    worst = max(ratios.values())
    verdict("ours over cuDNN at its worst size", worst, "<= 1.05", worst <= 1.05)


def _values(layer: RecurrentLayer, x: Padded) -> Tensor:
    y: Padded = layer(x)
    return y.values


def _served(ours: nn.Sequential, x: Padded) -> Iterator[str]:
    """The paths of all layers on this device."""
    with torch.autocast(x.values.device.type, HALF):
        layer = ours[0]
        assert isinstance(layer, RecurrentLayer)
        paths = layer.ahead.paths(x.values, directions=2)
    return (name for name, path in PATHS.items() if path in paths)


@contextmanager
def _only(path: str) -> Iterator[None]:
    """Let layers take this path, without measuring, where it serves."""

    def fastest(self: object, size: Hashable, paths: Mapping[str, object]) -> str:
        return path if path in paths else next(iter(paths))

    with mock.patch.object(choice.Choices, "fastest", fastest):
        yield


def _by(name: str, step: partial[None]) -> None:
    with _only(PATHS[name]):
        step()


def _works(name: str, step: partial[None]) -> bool:
    """Whether a step runs at all; says why not. The other paths are still of interest."""
    try:
        step()
    except Exception as error:
        print(f"\n  {name} does not work: {error}")
        return False
    return True


def _error(ours: nn.Sequential, x: Padded, path: str) -> float:
    """The largest difference from cuDNN in float32, on real frames."""

    def outputs() -> Tensor:
        return (ours(x).values * x.mask()[:, :, None]).float()

    with torch.no_grad():
        with _only(LIBRARY):
            exact = outputs()
        with _only(path), torch.autocast(x.values.device.type, HALF):
            return float((outputs() - exact).abs().max())


def _step(forward: Forward, module: nn.Module, x: Padded) -> None:
    with torch.autocast(x.values.device.type, HALF):
        training_step(forward, module, [x])
    if x.values.is_cuda:
        torch.cuda.synchronize()
