"""Two pieces of work at once on a GPU that neither of them fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

A = TypeVar("A")


def side_by_side(
    first: Callable[[], A], second: Callable[[], Tensor], shared: Sequence[Tensor]
) -> tuple[A, Tensor]:
    """What both give. On a GPU the second runs on a stream of its own, so that one need not wait
    for the other; so does its backward pass. `shared`: what the second reads of the work before.

    A step of a recurrent layer keeps a fraction of a large GPU busy, and its two directions know
    nothing of each other.
    """
    if not shared[0].is_cuda or torch.cuda.is_current_stream_capturing():
        return first(), second()
    main, side = torch.cuda.current_stream(), _side(shared[0].device)
    side.wait_stream(main)
    one = first()
    with torch.cuda.stream(side):
        other = second()
    main.wait_stream(side)
    # Memory is not given to others before both streams are done with it.
    for tensor in shared:
        tensor.record_stream(side)
    other.record_stream(main)
    return one, other


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
