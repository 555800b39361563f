"""Every cell against nn.LSTM of the same size: one training step of one direction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from asr.models.cells import CELLS
from asr.models.kernels import reference
from asr.models.recurrent import Direction
from asr.padded import Padded
from tests.bench.timing import interleave, print_table, threads, verdict

I, H, T = 640, 320, 400
PROJECTION = 160
ROUNDS = 5
GOALS = {  # of nn.LSTM's time, by batch size
    "peephole": {1: 1.5, 16: 2.0},
    "layer_norm": {1: 2.2, 16: 2.2},
    "projected": {1: 1.5, 16: 1.5},
    "gru": {1: 1.0, 16: 1.0},
}
SAME = 1e-4
Step = Callable[[], object]


def run() -> None:
    """Print a table for one utterance and for sixteen."""
    for batch in (1, 16):
        compare(batch)


def compare(batch: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, T, I, requires_grad=True)
    lengths = torch.full((batch,), T)
    steps: dict[str, Step] = {
        "nn.LSTM": _torch_step(nn.LSTM(I, H, batch_first=True), x),
        "nn.GRU": _torch_step(nn.GRU(I, H, batch_first=True), x),
        "nn.LSTM projected": _torch_step(nn.LSTM(I, H, batch_first=True, proj_size=PROJECTION), x),
    }
    worst = 0.0
    for name, cell in CELLS.items():
        layer = Direction(I, H, name, projection=PROJECTION if cell.projects else None)
        worst = max(worst, difference_from_reference(layer, x.detach()[:, :20]))
        steps[name] = _our_step(layer, Padded(x, lengths))
    with threads(1):
        seconds = interleave(steps, ROUNDS)
    base = seconds["nn.LSTM"]
    print_table(
        f"family: training step of one direction, B={batch} T={T} I={I} H={H}, one thread, "
        f"median of {ROUNDS}",
        ["", "ms", "to nn.LSTM"],
        [[name, f"{1000 * s:.0f}", f"{s / base:.2f}"] for name, s in seconds.items()],
    )
    print(f"  the cells differ from their reference by at most {worst:.1e} of their outputs")
    for name, goals in GOALS.items():
        ratio = seconds[name] / base
        verdict(f"{name} over nn.LSTM", ratio, f"<= {goals[batch]}", ratio <= goals[batch])
    ratio = seconds["gru"] / seconds["nn.GRU"]
    verdict("gru over nn.GRU", ratio, "< 1", ratio < 1)


def _torch_step(module: nn.Module, x: torch.Tensor) -> Step:
    return lambda: module(x)[0].sum().backward()


def _our_step(layer: Direction, x: Padded) -> Step:
    return lambda: layer(x)[0].values.sum().backward()


def difference_from_reference(layer: Direction, values: torch.Tensor) -> float:
    """Largest difference of outputs from the plain loop. Raises AssertionError beyond `SAME`."""
    x = Padded(values, torch.full((len(values),), values.shape[1]))
    with torch.no_grad():
        share = layer.input_projection(x).transpose(0, 1)
        weights = dict(layer.named_parameters(recurse=False))
        expected = reference.run(layer.cell, share, layer.initial_state(len(values)), weights)[0]
        difference = float((layer(x)[0].values.transpose(0, 1) - expected).abs().max())
    assert difference <= SAME, f"{layer.name} differs by {difference:.2g}"
    return difference
