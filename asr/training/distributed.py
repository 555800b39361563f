"""One training in several processes, on one host or many.

`torchrun`, `accelerate launch` and others start the processes and tell each its rank and where to
meet. The first (rank 0) alone reads and writes the folder of the run. Every step is taken by all:
each computes its share of the batch (`asr.shares`), and gradients are summed
(`asr.training.gradients`). In a training of one process, all functions here do nothing.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from asr.errors import AsrError, TrainingError
from asr.training.interrupt import InterruptedTraining

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""Longest wait for another process, in which it may read data or write a checkpoint."""
SETTLE_S = 0.5
"""In which the threads of a group release the tensors of their last exchange. They need Python's
lock for that, and a group that ends with the lock held would wait for them forever."""
ANSWER_S = 5.0
"""Longest wait for the store when a process fails."""
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that tell a process its place and where to meet the others."""


@dataclass(frozen=True)
class _Group:
    rank: int
    size: int
    store: dist.Store


_group: _Group | None = None
_joins = 0


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several, and told where to meet."""
    size = os.environ.get("WORLD_SIZE", "")
    return size.isdecimal() and int(size) > 1 and all(name in os.environ for name in NEEDED)


def is_joined() -> bool:
    """Whether this process trains together with others."""
    return _group is not None


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return _group.size if _group else 1


def is_first() -> bool:
    """Whether this process has rank 0, which reads and writes the folder of the run."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Train together with the other processes of a launcher, if there are any, until `leave`.

    If one fails, the others end as well. Only one of them reports it; the others exit with status
    1, as the processes other than the first exit after a stop signal.

    Raises TrainingError if processes do not arrive, or if one is lost.
    """
    global _group
    if _group is not None or not is_launched():
        yield
        return
    _join()
    try:
        yield
    except InterruptedTraining as stop:
        if not is_first():
            sys.exit(128 + stop.signal)
        raise
    except Exception as error:
        lost, group = is_lost(error), _group
        _group = None
        if group is None:  # the first one went on alone
            raise
        _ignore_sigterm()  # of a launcher that sees one process fail and ends all
        time.sleep(SETTLE_S)
        if not _is_first_to_fail(group):
            sys.exit(1)
        if lost:
            raise TrainingError(
                f"expected all {group.size} processes of the training to go on, lost one, as "
                f"process {group.rank} on {platform.node()} noticed: the same command resumes "
                "the training"
            ) from error
        if isinstance(error, AsrError) and group.rank:
            raise TrainingError(
                f"process {group.rank} of {group.size}, on {platform.node()}: {error}"
            ) from error
        raise
    leave()


def _join() -> None:
    global _group, _joins
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    gpu = torch.cuda.is_available()
    if gpu:
        _take_gpu()
    try:
        store, number, count = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
        _joins += 1
        store = dist.PrefixStore(f"training {_joins}", store)
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(
            backend, store=store, rank=number, world_size=count, timeout=TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"expected {os.environ['WORLD_SIZE']} processes to meet at {where} within "
            f"{TIMEOUT.total_seconds():g} s, got fewer ({str(error).splitlines()[0]}): start the "
            "same command on every host, and check that hosts reach each other"
        ) from None
    _group = _Group(number, count, store)


def _take_gpu() -> None:
    place, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= count:
        raise TrainingError(
            f"expected a GPU for each process of a host, got {count} on {platform.node()} for "
            f"process {place + 1} there: start {count} (torchrun --nproc-per-node {count})"
        )
    torch.cuda.set_device(place)


def leave() -> None:
    """Go on without the other processes."""
    global _group
    if _group is not None:
        _group = None
        time.sleep(SETTLE_S)
        dist.destroy_process_group()


def _ignore_sigterm() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _is_first_to_fail(group: _Group) -> bool:
    """Whether no other process has reported a failure; also if the store does not answer, which
    ends, or hangs, with the process that has it."""
    counts: list[int] = []

    def count() -> None:
        with suppress(RuntimeError):
            counts.append(group.store.add("failed", 1))

    asking = threading.Thread(target=count, daemon=True)
    with _silent():
        asking.start()
        asking.join(ANSWER_S)
    return counts in ([], [1])


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what torch writes to stderr about a store that has ended: a stack trace of C++."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process has ended, or cannot be reached."""
    if _group is None or not isinstance(error, RuntimeError):
        return False
    words = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in words or "nccl" in words


def broadcast(value: T) -> T:
    """The value that the first process has."""
    if _group is None:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def all_gather(value: T) -> list[T]:
    """The values of all processes, by rank."""
    if _group is None:
        return [value]
    values: list[Any] = [None] * _group.size
    dist.all_gather_object(values, value)
    return values


def own(batches: Sequence[T]) -> Sequence[T]:
    """The batches that this process computes, of those that are divided among all."""
    return batches[_group.rank :: _group.size] if _group else batches


def all_reduce_max(number: int) -> int:
    """The greatest of the numbers of all processes."""
    if _group is None:
        return number
    value = torch.tensor(number)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return int(value)


def all_reduce_min(number: int) -> int:
    """The least of the numbers of all processes."""
    return -all_reduce_max(-number)


def barrier() -> None:
    """Wait until every process is here."""
    all_reduce_max(0)


def all_reduce(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their sums over all processes."""
    if _group is not None:
        for tensor in tensors:
            dist.all_reduce(tensor)


def require_same(settings: Mapping[str, Any]) -> None:
    """Raise TrainingError naming the first setting that differs between processes."""
    everyone = all_gather((platform.node(), dict(settings)))
    home, expected = everyone[0]
    for number, (host, found) in enumerate(everyone):
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key):
                raise TrainingError(
                    f"expected the same recipe, data and versions in all processes, got "
                    f"{key}={found.get(key)} in process {number} on {host} and "
                    f"{expected.get(key)} in process 0 on {home}: start the same command with "
                    "the same files everywhere"
                )
