"""Layers on a GPU, in half precision on variable lengths: ours, ours through cuDNN, and torch's."""

from __future__ import annotations

from functools import partial
from unittest import mock

import torch
from torch import nn

from asr.models.kernels import gpu
from asr.padded import Padded
from tests.bench.stacks import (
    Forward,
    contestants,
    largest_difference,
    random_batch,
    training_step,
    twins,
)
from tests.bench.timing import interleave, print_ratios, verdict

B, T = 32, 1000
SIZES = (512, 1024)
LAYERS = 5
SHORTEST = 0.6  # of T
ROUNDS = 5
HALF = torch.float16


def run() -> None:
    """Print a table for each size."""
    if not torch.cuda.is_available():
        print("\ngpu: left out, for there is no CUDA device")
        return
    for hidden in SIZES:
        compare(hidden, LAYERS, B, T, "cuda")


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
    steps["ours through cuDNN"] = partial(_through_cudnn, steps["ours"])
    seconds = interleave(steps, ROUNDS)
    print_ratios(
        f"gpu: training step, half precision, layers={layers} B={rows} T={frames} H={hidden}, "
        f"lengths {100 * SHORTEST:.0f} to 100 %, median of {ROUNDS}",
        "ms",
        seconds,
        lambda value: f"{1000 * value:.1f}",
    )
    print(f"  ours and packed differ by {outputs:.1e} (outputs), {gradients:.1e} (gradients)")
    gain = seconds["packed nn.LSTM"] / seconds["ours"]
    verdict("packed over ours", gain, ">= 3", gain >= 3)


def _step(forward: Forward, module: nn.Module, x: Padded) -> None:
    with torch.autocast(x.values.device.type, HALF):
        training_step(forward, module, [x])
    if x.values.is_cuda:
        torch.cuda.synchronize()


def _through_cudnn(step: partial[None]) -> None:
    with mock.patch.object(gpu, "QUICKER", set()):
        step()
