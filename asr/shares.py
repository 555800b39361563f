"""A batch that several processes share: each computes some of its utterances.

Random numbers are drawn for the whole batch in every process, which keeps the rows of its own
utterances; sums run over all processes. So the result does not depend on their number. In a single
process, nothing is shared, and the functions draw and sum plainly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from asr.padded import Padded


@dataclass(frozen=True)
class Share:
    """The utterances of this process: `count` rows of a batch of `total`.

    If a batch has fewer utterances than there are processes, some compute one that another process
    has too and that does not count: `real` is false.
    """

    total: int
    rows: slice | Tensor
    count: int
    real: bool = True


_current: Share | None = None


@contextmanager
def sharing(share: Share | None) -> Iterator[None]:
    """Compute this share of a batch while entered; None is a whole batch."""
    global _current
    before, _current = _current, share
    try:
        yield
    finally:
        _current = before


def current() -> Share | None:
    """The share that is being computed; None if batches are not shared."""
    return _current


def share_of(total: int, rank: int, size: int) -> Share:
    """Every `size`-th utterance from number `rank` on, so that a batch in order of length is split
    evenly.

    >>> share_of(5, 1, 2)
    Share(total=5, rows=slice(1, None, 2), count=2, real=True)
    >>> share_of(1, 1, 2)
    Share(total=1, rows=slice(0, 1, None), count=1, real=False)
    """
    if rank >= total:
        return Share(total, slice(0, 1), 1, real=False)
    return Share(total, slice(rank, None, size), len(range(rank, total, size)))


def draw(function: Callable[[int], Tensor], count: int) -> Tensor:
    """Rows for the `count` utterances of this process, of those that `function` draws for all.

    `count` may be a multiple of the utterances, for several views of a batch, one after another.

    Shape: function(n) gives [n, ...] -> [count, ...].
    """
    if _current is None:
        return function(count)
    views = count // _current.count if _current.count else 1
    drawn, rows = function(views * _current.total), _current.rows
    if isinstance(rows, Tensor):
        rows = rows.to(drawn.device, non_blocking=True)
    return drawn.unflatten(0, (views, _current.total))[:, rows].flatten(0, 1)


def rand(count: int, *rest: int, device: torch.device) -> Tensor:
    """Uniform numbers from 0 to 1. Shape: [count, *rest]."""
    return draw(lambda n: torch.rand(n, *rest, device=device), count)


def randn(count: int, *rest: int, device: torch.device) -> Tensor:
    """Standard normal numbers. Shape: [count, *rest]."""
    return draw(lambda n: torch.randn(n, *rest, device=device), count)


def dropout(values: Tensor, rate: float, training: bool) -> Tensor:
    """torch's dropout. Shape: [B, T, F] -> the same."""
    if _current is None or not training or not rate:
        return functional.dropout(values, rate, training)
    shape = values.shape[1:]
    return values * draw(
        lambda n: functional.dropout(values.new_ones(n, *shape), rate), len(values)
    )


def pick(prob: float, count: int, device: torch.device) -> tuple[Tensor, Share | None]:
    """Choose utterances with this probability: the rows chosen here, and their share in all chosen
    ones, in which to make further draws for them. Their number must be known on the host, so they
    are drawn there: to read it from a GPU would wait for all queued work. Shape: rows [M]."""
    if _current is None:
        chosen = torch.rand(count) < prob
        return chosen.nonzero()[:, 0].to(device, non_blocking=True), None
    chosen = torch.rand(_current.total) < prob
    own = chosen[_current.rows]
    places = (chosen.cumsum(0) - 1)[_current.rows][own]
    rows = own.nonzero()[:, 0].to(device, non_blocking=True)
    return rows, Share(int(chosen.sum()), places, len(places))


def whole(values: Tensor) -> Tensor:
    """The values of all utterances of the batch, without a gradient.

    Shape: [B, ...] -> [total, ...].
    """
    if _current is None:
        return values
    everything = values.new_zeros(_current.total, *values.shape[1:])
    if _current.real:
        everything[_current.rows] = values.detach()
    dist.all_reduce(everything)
    return everything


def objective(value: Tensor) -> Tensor:
    """What a process minimises so that the mean of the gradients of all processes, which
    DistributedDataParallel computes, is the gradient of the sum of `value` over them. Shape: []."""
    if _current is None:
        return value
    return value * (dist.get_world_size() if _current.real else 0)


def same_length(x: Padded) -> Padded:
    """The same, padded to the longest utterance of all processes, so that the spectra and the draws
    for each frame are those of the whole batch. Shape: [B, S] -> [B, S']."""
    if _current is None:
        return x
    length = x.values.shape[1]
    longest = torch.tensor(length)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    return Padded(functional.pad(x.values, (0, int(longest) - length)), x.lengths)
