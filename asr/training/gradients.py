"""Gradients summed over the processes that share a batch, while they are computed.

Gradients are copied into a few buckets. Each bucket is all-reduced as soon as it is full, while
other gradients are computed. torch's DistributedDataParallel does the same, but rebuilds its
buckets in the second step with collectives of its own. A process that has failed in the middle of a
step could not complete these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from asr import shares

FIRST_BYTES, BYTES = 1 << 20, 25 << 20
"""Size of the first bucket, small so that its sum begins early, and of the others, as in
DistributedDataParallel."""


class _Bucket:
    """Gradients of some parameters in one tensor."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        sizes = [parameter.numel() for parameter in parameters]
        self.values = parameters[0].new_zeros(sum(sizes), requires_grad=False)
        parts = self.values.split(sizes)
        self.views = [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
        self.filled = 0
        self.copied: list[torch.cuda.Event] = []
        """When each gradient is there: two directions of a layer may copy on two streams."""
        self.work: Any = None

    def fill(self, place: int) -> None:
        """Take a parameter's gradient over."""
        parameter, view = self.parameters[place], self.views[place]
        view.copy_(parameter.grad)
        parameter.grad = view
        self.filled += 1
        if view.is_cuda:
            self.copied.append(torch.cuda.current_stream(view.device).record_event())

    def send(self) -> None:
        """Begin to sum; gradients that are missing, in all processes, count as zero."""
        if self.filled < len(self.parameters):
            for parameter, view in zip(self.parameters, self.views, strict=True):
                if parameter.grad is None:
                    view.zero_()
        self.work = shares.make(self._sum, self._sum_zeros)

    def _sum(self) -> Any:
        for event in self.copied:  # the exchange itself waits for the current stream only
            torch.cuda.current_stream(self.values.device).wait_event(event)
        return dist.all_reduce(self.values, async_op=True)

    def _sum_zeros(self, _total: int) -> Any:
        self.values.zero_()
        return self._sum()

    def wait(self) -> None:
        if self.work is not None:
            self.work.wait()
        self.work, self.filled = None, 0
        self.copied.clear()


class SummedGradients:
    """The gradients of a model, which from now on are summed over all processes in the backward
    passes between `begin` and `finish`. All processes start with the weights of the first."""

    def __init__(self, model: nn.Module) -> None:
        with torch.no_grad():
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor, 0)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # Backward passes reach the last ones first.
        self._buckets = [_Bucket(part) for part in _divided(trained[::-1])]
        self._sent: int | None = None
        for bucket in self._buckets:
            for place, parameter in enumerate(bucket.parameters):
                parameter.register_post_accumulate_grad_hook(partial(self._fill, bucket, place))

    def begin(self) -> None:
        """Begin a step."""
        shares.begin()
        self._sent = 0
        for bucket in self._buckets:
            bucket.wait()

    def _fill(self, bucket: _Bucket, place: int, _parameter: Tensor) -> None:
        if self._sent is None:
            return
        bucket.fill(place)
        # In the same order in all processes.
        while self._sent < len(self._buckets):
            first = self._buckets[self._sent]
            if first.filled < len(first.parameters):
                break
            first.send()
            self._sent += 1

    def finish(self) -> None:
        """Wait for the sums, at the end of a backward pass."""
        if self._sent is None:
            return
        for bucket in self._buckets[self._sent :]:
            bucket.send()
        self.leave()

    def leave(self) -> None:
        """Wait for the sums that have begun, at the end of a step, also of one that has failed."""
        self._sent = None
        for bucket in self._buckets:
            bucket.wait()


def _divided(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    part: list[nn.Parameter] = []
    room = FIRST_BYTES
    for parameter in parameters:
        size = parameter.numel() * parameter.element_size()
        if part and (size > room or parameter.dtype != part[0].dtype):
            yield part
            part, room = [], BYTES
        part.append(parameter)
        room -= size
    if part:
        yield part
