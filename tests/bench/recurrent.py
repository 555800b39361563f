"""One layer of variable length: ours, packed nn.LSTM, and dense nn.LSTM that ignores lengths."""

from __future__ import annotations

from functools import partial

import torch

from tests.bench.stacks import contestants, largest_difference, random_batch, training_step, twins
from tests.bench.timing import interleave, print_table, threads, verdict

B, T, H = 16, 400, 320
INPUTS = (H, 2 * H)  # what a first layer may be given, and what every later one is
SHORTEST = 0.6  # of T
ROUNDS = 5


def run() -> None:
    """Print a table for each input size."""
    for size in INPUTS:
        compare(size)


def compare(size: int) -> None:
    """One layer on an input of this size."""
    torch.manual_seed(0)
    ours, theirs = twins(size, H, layers=1)
    x = random_batch(torch.linspace(SHORTEST * T, T, B).long(), size)
    with threads(1):
        outputs, gradients = largest_difference(ours, theirs, x)
        steps = {
            name: partial(training_step, forward, module, [x])
            for name, (forward, module) in contestants(ours, theirs).items()
        }
        seconds = interleave(steps, ROUNDS)
    print_table(
        f"recurrent: training step of one layer, B={B} T={T} I={size} H={H}, "
        f"lengths {100 * SHORTEST:.0f} to 100 %, one thread, median of {ROUNDS}",
        ["", "ms", "to ours"],
        [
            [name, f"{1000 * value:.0f}", f"{value / seconds['ours']:.2f}"]
            for name, value in seconds.items()
        ],
    )
    print(f"  ours and packed differ by {outputs:.1e} (outputs), {gradients:.1e} (gradients)")
    gain = seconds["packed nn.LSTM"] / seconds["ours"]
    verdict("packed over ours", gain, ">= 4", gain >= 4)
    cost = seconds["ours"] / seconds["dense nn.LSTM"]
    verdict("ours over dense", cost, "<= 1.1", cost <= 1.1)
