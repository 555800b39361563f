"""One layer of variable length: ours, packed nn.LSTM, and dense nn.LSTM that ignores lengths."""

from __future__ import annotations

from functools import partial

import torch

from tests.bench.stacks import contestants, largest_difference, random_batch, training_step, twins
from tests.bench.timing import interleave, print_table, threads, verdict

B, T, INPUT, H = 16, 400, 640, 320
SHORTEST = 0.6  # of T
ROUNDS = 9


def run() -> None:
    """Print the table."""
    torch.manual_seed(0)
    ours, theirs = twins(INPUT, H, layers=1)
    x = random_batch(torch.linspace(SHORTEST * T, T, B).long(), INPUT)
    with threads(1):
        outputs, gradients = largest_difference(ours, theirs, x)
        steps = {
            name: partial(training_step, forward, module, [x])
            for name, (forward, module) in contestants(ours, theirs).items()
        }
        seconds = interleave(steps, ROUNDS)
    print_table(
        f"recurrent: training step of one layer, B={B} T={T} I={INPUT} H={H}, "
        f"lengths {SHORTEST:.0%} to 100 %, one thread, median of {ROUNDS}",
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
