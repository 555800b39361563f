"""Masked batch norm on a GPU, forward and backward: one kernel each, two, and plain operators.

The batches have the sizes of the front end's two convolutions and of a normalised recurrent layer
in Mini LibriSpeech's steps, in half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest import mock

import torch

from asr.models.batch_norm import MaskedBatchNorm
from asr.models.kernels import batch_norm as kernel
from asr.padded import Padded
from tests.bench.timing import interleave, print_ratios, verdict

SIZES = ((160, 200, 40, 32), (160, 100, 20, 32), (160, 100, 2048))
SHORTEST = 0.8  # of the frames
ROUNDS = 20


def run() -> None:
    """Print a table for each size."""
    if not torch.cuda.is_available():
        print("\nbatch_norm: no GPU: left out, for there is no CUDA device")
        return
    for size in SIZES:
        compare(size)


def compare(size: tuple[int, ...]) -> None:
    """Batches of noise of this size."""
    torch.manual_seed(0)
    norm = MaskedBatchNorm(size[-1]).cuda()
    lengths = torch.linspace(SHORTEST * size[1], size[1], size[0]).long().cuda()
    x = Padded(torch.randn(size, device="cuda").half().requires_grad_(), lengths)
    ways: dict[str, Callable[[Padded], Padded]] = {
        "ours": norm,
        "in two launches": partial(_in_two, norm),
        "operators": lambda x: Padded(norm._of_masked(x.values.float(), x), x.lengths),
    }
    steps = {name: partial(_step, way, x) for name, way in ways.items()}
    seconds = interleave(steps, ROUNDS)
    title = f"batch_norm: forward and backward of {list(size)} in float16, median of {ROUNDS}"
    print_ratios(title, "ms", seconds, lambda value: f"{1000 * value:.2f}")
    if not kernel.serves(x.values, norm.weight):
        print("  the kernels do not work here: ours are the operators")
    gain = seconds["operators"] / seconds["ours"]
    verdict(f"batch norm of {list(size)}, operators over ours", gain, ">= 1.5", gain >= 1.5)


def _in_two(norm: MaskedBatchNorm, x: Padded) -> Padded:
    with mock.patch.object(kernel, "_cooperates", return_value=False):
        y: Padded = norm(x)
        y.values.backward(torch.ones_like(y.values))
        return Padded(y.values.detach(), y.lengths)


def _step(way: Callable[[Padded], Padded], x: Padded) -> None:
    y = way(x).values
    if y.requires_grad:
        y.backward(torch.ones_like(y))
    torch.cuda.synchronize()
