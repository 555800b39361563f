"""An exponential moving average of the weights, which takes their place on dev and in the final
model (`train.ema`; Polyak and Juditsky 1992, Tarvainen and Valpola 2017).

The average is part of the checkpoint (`Loop.kept`). Training itself goes on with its own weights
and draws the same random numbers as without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from asr.training import distributed
from asr.training.run import Run


def decay_after(steps: int, decay: float) -> float:
    """The decay of a step, counted from 1: less at the beginning, so that the random initial
    weights are soon forgotten.

    >>> [round(decay_after(steps, 0.99), 2) for steps in (1, 10, 1000)]
    [0.18, 0.55, 0.99]
    """
    return min(decay, (1 + steps) / (10 + steps))


@torch.no_grad()
def update(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Move the average towards the present weights: mean = decay * mean + (1 - decay) * weight.

    Running statistics of normalisation are averaged too; they approximate those of the averaged
    weights. Frozen weights and counters are left out. A weight that is trained only from a later
    step on starts at its value of that step.
    """
    own = _averaged(model)
    for name in own.keys() - average.keys():
        average[name] = own[name].detach().clone()
    names = [name for name in average if name in own]
    means, weights = [average[name] for name in names], [own[name] for name in names]
    torch._foreach_lerp_(means, weights, 1 - decay)


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    saved = model.state_dict(keep_vars=True)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    return {
        name: value
        for name, value in saved.items()
        if name in trained or (name in buffers and value.is_floating_point())
    }


@contextmanager
def applied(average: dict[str, Tensor], model: nn.Module) -> Iterator[None]:
    """Give the model the averaged weights for a while; without an average, it keeps its own."""
    own = model.state_dict()
    before = {name: own[name].clone() for name in average}
    _put(average, own)
    try:
        yield
    finally:
        _put(before, own)


@torch.no_grad()
def _put(values: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    for name, value in values.items():
        own[name].copy_(value)


def broadcast(run: Run) -> None:
    """After a checkpoint has been read by the first process, give the average to all of them."""
    kept = distributed.broadcast(run.loop.kept)
    device = run.loop.accelerator.device
    run.loop.kept = {name: value.to(device) for name, value in kept.items()}


def finish(run: Run) -> None:
    """At the end, replace the weights by their average."""
    _put(run.loop.kept, run.model.state_dict())
    run.loop.kept = {}
