"""Recurrences as a plain loop over a cell's step: slow, but for every device and option."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

from asr import shares
from asr.models.cells import Cell, State, Weights


def run(
    cell: Cell, x: Tensor, state: State, weights: Weights, zoneout: float = 0.0, draw: bool = False
) -> State:
    """The states after every frame. T time, B batch.

    With `zoneout`, each element of the state keeps its old value with that probability, drawn again
    for each frame if `draw`; else the two are mixed in that proportion (Krueger et al. 2017, eq.
    4).

    Shape: x [T, B, G*H], state h [B, R] and c [B, H] -> h [T, B, R] and c [T, B, H].
    """
    states = []
    for frame in x:
        new = cell.step(frame, state, weights)
        if zoneout:
            new = tuple(
                _zoneout(old, part, zoneout, draw) for old, part in zip(state, new, strict=True)
            )
        state = new
        states.append(state)
    return tuple(torch.stack(part) for part in zip(*states, strict=True))


def _zoneout(old: Tensor, new: Tensor, rate: float, draw: bool) -> Tensor:
    if not draw:
        return rate * old + (1 - rate) * new
    drawn = shares.draw(lambda n: torch.rand_like(new.new_empty(n, new.shape[1])), len(new))
    return torch.where(drawn < rate, old, new)


@functools.cache
def warn_slow(layer: str, why: str) -> None:
    """Warn that a layer runs as this loop, once per process for each reason."""
    warnings.warn(
        f"layers of {layer} run as a plain loop, which is slow: no fast path serves {why}",
        stacklevel=4,
    )
