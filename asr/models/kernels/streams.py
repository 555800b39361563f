"""Two computations at once on a GPU that neither of them fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

A = TypeVar("A")

_plain = False  # for all threads: autograd computes gradients in one of its own


@contextmanager
def single_stream() -> Iterator[None]:
    """Run on one stream, and loops without graphs of their own, as inside a CUDA graph."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def is_single_stream() -> bool:
    """Whether `single_stream` is entered, or the current stream is being captured."""
    return _plain or torch.cuda.is_current_stream_capturing()


def side_by_side(
    first: Callable[[], A], second: Callable[[], Tensor], shared: Sequence[Tensor]
) -> tuple[A, Tensor]:
    """The results of both. On a GPU the second runs on its own stream, concurrently with the first,
    and so does its backward pass. `shared`: earlier results that the second reads.

    A step of a recurrent layer uses a fraction of a large GPU, and its two directions are
    independent.
    """
    if not shared[0].is_cuda or is_single_stream():
        return first(), second()
    main, side = torch.cuda.current_stream(shared[0].device), _side(shared[0].device)
    side.wait_stream(main)
    one = first()
    with torch.cuda.stream(side):
        other = second()
    main.wait_stream(side)
    # The allocator must not reuse memory before both streams are done with it.
    for tensor in shared:
        tensor.record_stream(side)
    other.record_stream(main)
    return one, other


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def end_capture(device: torch.device, pool: Any) -> None:
    """After a capture that the driver has refused, torch's allocator and its generator of random
    numbers would remain in it: the one would free nothing any more, the other refuse to draw."""
    number = torch.cuda.current_device() if device.index is None else device.index
    with suppress(RuntimeError):  # it has ended
        torch._C._cuda_endAllocateToPool(number, pool)
    fresh = torch.Generator(torch.device("cuda", number))
    torch.cuda.default_generators[number].graphsafe_set_state(fresh.graphsafe_get_state())
