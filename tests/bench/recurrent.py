"""Layers on variable lengths: ours, packed nn.LSTM, and dense nn.LSTM that ignores lengths."""

from __future__ import annotations

from functools import partial

import torch

from tests.bench.stacks import contestants, largest_difference, random_batch, training_step, twins
from tests.bench.timing import interleave, print_ratios, threads, verdict

B, T, H = 16, 400, 320
STACKS = ((H, 1), (2 * H, 1), (H, 4))  # input size, layers: a first, a later one, and a stack
SHORTEST = 0.6  # of T
ROUNDS = 5


def run() -> None:
    """Print a table for each stack."""
    for size, layers in STACKS:
        compare(size, layers)


def compare(size: int, layers: int) -> None:
    """So many layers on an input of this size."""
    torch.manual_seed(0)
    ours, theirs = twins(size, H, layers)
    x = random_batch(torch.linspace(SHORTEST * T, T, B).long(), size)
    with threads(1):
        outputs, gradients = largest_difference(ours, theirs, x)
        steps = {
            name: partial(training_step, forward, module, [x])
            for name, (forward, module) in contestants(ours, theirs).items()
        }
        seconds = interleave(steps, ROUNDS)
    print_ratios(
        f"recurrent: training step, layers={layers} B={B} T={T} I={size} H={H}, "
        f"lengths {100 * SHORTEST:.0f} to 100 %, one thread, median of {ROUNDS}",
        "ms",
        seconds,
        lambda value: f"{1000 * value:.0f}",
    )
    print(f"  ours and packed differ by {outputs:.1e} (outputs), {gradients:.1e} (gradients)")
    gain = seconds["packed nn.LSTM"] / seconds["ours"]
    verdict("packed over ours", gain, ">= 4", gain >= 4)
    cost = seconds["ours"] / seconds["dense nn.LSTM"]
    verdict("ours over dense", cost, "<= 1.1", cost <= 1.1)
