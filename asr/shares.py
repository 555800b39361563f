"""A batch that several processes share: each computes some of its utterances.

Random numbers are drawn for the whole batch in every process, which keeps the rows of its own
utterances; sums run over all processes. So the result does not depend on their number. In a single
process, nothing is shared, and the functions draw and sum plainly.

All processes make the same collective calls (exchanges) in each step, in the same order. A process
that runs out of memory in a step completes the remaining calls with zeros (`complete_with_zeros`):
no process blocks, and all drop the step. A rehearsal records the calls of a step without
communication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

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


Exchange = Callable[[int], Any]
"""An exchange to which this process contributes zeros, for a batch of so many utterances. Returns
torch's `Work` if others may still be waited for."""

_made = 0
"""Exchanges of the current step that this process has made, or has begun."""
_rehearsed: list[Exchange] | None = None
"""In a rehearsal: the exchanges so far, which are not made."""
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


def gather_batch(values: Tensor) -> Tensor:
    """The values of all utterances of the batch, without a gradient.

    Shape: [B, ...] -> [total, ...].
    """
    if _current is None:
        return values
    everything = values.new_zeros(_current.total, *values.shape[1:])
    if _current.real:
        everything[_current.rows] = values.detach()
    all_reduce_rows(everything)
    return everything


def statistics(
    share: Share, count: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and variance of the rows of all processes, from those of this one, in the type
    of the mean. Shape: [], [F], [F]."""
    F = len(mean)
    own = torch.cat([(count * int(share.real))[None], mean, variance]).double()
    counts, means, variances = all_gather(own).split([1, F, F], dim=1)
    total = counts.sum()
    found = (counts * means).sum(dim=0) / total.clamp(min=1)
    # The variance within the processes and that between them (Chan et al. 1979).
    spread = (counts * (variances + (means - found).square())).sum(dim=0) / total.clamp(min=1)
    return total.to(mean.dtype), found.to(mean.dtype), spread.to(mean.dtype)


def objective(value: Tensor) -> Tensor:
    """What a process minimises so that the sum of the gradients of all processes is the gradient of
    the sum of `value` over them. Shape: []."""
    return value if _current is None or _current.real else value * 0


def same_length(x: Padded) -> Padded:
    """The same, padded to the longest utterance of all processes, so that the spectra and the draws
    for each frame are those of the whole batch. Shape: [B, S] -> [B, S']."""
    if _current is None:
        return x
    length = x.values.shape[1]
    longest = all_reduce_max(length)
    return Padded(functional.pad(x.values, (0, longest - length)), x.lengths)


# --- exchanges ---


def begin() -> None:
    """Begin a step."""
    global _made
    _made = 0


@contextmanager
def rehearsal() -> Iterator[list[Exchange]]:
    """While entered, exchanges only enter the list, and this process counts as the only one."""
    global _rehearsed
    before, _rehearsed = _rehearsed, []
    try:
        yield _rehearsed
    finally:
        _rehearsed = before


def complete_with_zeros(total: int, step: Sequence[Exchange]) -> None:
    """Make what is left of the exchanges of a step, for a batch of `total` utterances."""
    for work in [exchange(total) for exchange in step[_made:]]:
        if work is not None:
            work.wait()


def make(real: Callable[[], Any], zeros: Exchange) -> Any:
    """Make an exchange; its tensors must be allocated already. Returns the result of `real`.

    Raises torch's DistError if memory runs out: other processes may already have taken part, so
    `complete_with_zeros` cannot complete the exchange.
    """
    global _made
    if _rehearsed is not None:
        _rehearsed.append(zeros)
        return None
    _made += 1
    try:
        return real()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise dist.DistError(f"no memory to exchange: {error}") from error


def all_reduce(values: Tensor) -> None:
    """Replace values by their sums over all processes."""
    zeros = _zeros_like(values)
    make(lambda: dist.all_reduce(values), lambda _: dist.all_reduce(zeros()))


def all_reduce_rows(values: Tensor) -> None:
    """The same for values with a row for each utterance of the batch. Shape: [total, ...]."""
    row = _zeros_like(values[0])  # a batch has one utterance at least
    make(
        lambda: dist.all_reduce(values),
        lambda total: dist.all_reduce(torch.stack([row()] * total)),
    )


def all_reduce_max(number: int) -> int:
    """The greatest of the numbers of all processes, which are not negative."""
    value = torch.tensor(number)
    make(
        lambda: dist.all_reduce(value, dist.ReduceOp.MAX),
        lambda _: dist.all_reduce(torch.tensor(0), dist.ReduceOp.MAX),
    )
    return int(value)


def all_gather(values: Tensor) -> Tensor:
    """The values of all N processes. Shape: [F] -> [N, F]."""
    size, zeros = dist.get_world_size(), _zeros_like(values)
    everyone = values.new_zeros(size, *values.shape)
    make(
        lambda: dist.all_gather_into_tensor(everyone, values[None]),
        lambda _: dist.all_gather_into_tensor(torch.stack([zeros()] * size), zeros()[None]),
    )
    return values[None] if _rehearsed is not None else everyone


def _zeros_like(values: Tensor) -> Callable[[], Tensor]:
    """Makes zeros of the same shape, and keeps nothing of the values."""
    return partial(torch.zeros, values.shape, dtype=values.dtype, device=values.device)
