"""Clipping, the optimizer's step and the check of the gradient as one CUDA graph.

The end of a step (`deferred.finish_step`) takes dozens of launches, and no decision on the host: a
bad gradient, and the factor by which fp16 is scaled, are found and acted on by the GPU. Its memory
is fixed, all but the gradient and the buffers before the step, which are copied into that of the
recording unless they are there already. The learning rate becomes a tensor. The optimizer's moments
must exist, and its kernels must have run, so the first step of a session is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from asr.training.deferred import finish_step
from asr.training.graphed import Pass, Recorder


class GraphedUpdate:
    """Replays the end of steps. A `deferred.Update`."""

    def __init__(
        self,
        device: torch.device,
        say: Callable[[str], None],
        record: Callable[[Pass], Pass] | None = None,
    ) -> None:
        """`say` reports that recording has failed, once; from then on nothing is replayed. `record`
        returns what repeats a pass, which it does not compute."""
        self._record = record or Recorder(device).alone
        self._say = say
        self._kept: _Update | None = None
        self._off = False
        self._warm = False
        """Whether the kernels of the update have run in this process, as recording requires."""

    def __call__(
        self,
        model: nn.Module,
        optimizer: Any,
        accelerator: Accelerator,
        clip_norm: float,
        statistics: list[Tensor],
    ) -> Tensor:
        used = [parameter for parameter in model.parameters() if parameter.grad is not None]
        moments = optimizer.optimizer.state
        ready = self._warm and all(parameter in moments for parameter in used)
        if not used or self._off or not ready:
            self._warm = True
            return finish_step(model, optimizer, accelerator, clip_norm, statistics)
        if self._kept is None or not self._kept.is_for(used):
            self._kept = None
            update = _Update(model, optimizer, accelerator, clip_norm, statistics, used)
            try:
                update.again = self._record(update.work)
            except Exception as error:  # torch and the driver have no common class
                self._fail(error)
                update.put_back()
                return finish_step(model, optimizer, accelerator, clip_norm, statistics)
            self._kept = update
        return self._kept.replay(statistics)

    def _fail(self, error: Exception) -> None:
        self._off = True
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        self._say(f"the optimizer runs without CUDA graphs (train.cuda_graphs): {reason}")


class _Update:
    """The end of a step, and the tensors that it reads and writes."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        accelerator: Accelerator,
        clip_norm: float,
        statistics: list[Tensor],
        used: list[nn.Parameter],
    ) -> None:
        self._model, self._optimizer, self._accelerator = model, optimizer, accelerator
        self._clip_norm, self._statistics, self._used = clip_norm, statistics, used
        self._slopes = [_gradient(parameter) for parameter in used]
        device = used[0].device
        # float32 is what the fused AdamW reads.
        self._rates = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        self._norm = torch.zeros((), device=device)
        self.again: Pass = self.work

    def is_for(self, used: list[nn.Parameter]) -> bool:
        """Whether these are the parameters that have a gradient."""
        return len(used) == len(self._used) and all(map(_is, used, self._used))

    def work(self) -> None:
        with _rates(self._optimizer, self._rates):
            norm = finish_step(
                self._model, self._optimizer, self._accelerator, self._clip_norm, self._statistics
            )
        self._norm.copy_(norm)

    @torch.no_grad()
    def replay(self, statistics: list[Tensor]) -> Tensor:
        """The norm of the gradient before clipping."""
        for parameter, slope in zip(self._used, self._slopes, strict=True):
            if parameter.grad is not None and parameter.grad.data_ptr() != slope.data_ptr():
                slope.copy_(parameter.grad)
            parameter.grad = slope
        if statistics and statistics is not self._statistics:
            torch._foreach_copy_(self._statistics, statistics)
        for rate, group in zip(self._rates, self._optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.again()
        self._optimizer.zero_grad()
        return self._norm.clone()

    def put_back(self) -> None:
        """Leave gradients and the scaler as they were before a recording that has failed."""
        for parameter, slope in zip(self._used, self._slopes, strict=True):
            parameter.grad = slope
        if self._accelerator.scaler is not None:
            self._accelerator.scaler._per_optimizer_states.clear()


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _is(one: object, other: object) -> bool:
    return one is other


@contextmanager
def _rates(optimizer: Any, rates: list[Tensor]) -> Iterator[None]:
    """Take the learning rates from tensors, as a recording requires."""
    groups = optimizer.param_groups
    before = [(group["lr"], group["capturable"]) for group in groups]
    captured = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    for group, rate in zip(groups, rates, strict=True):
        group["lr"], group["capturable"] = rate, captured
    try:
        yield
    finally:
        for group, (rate, capturable) in zip(groups, before, strict=True):
            group["lr"], group["capturable"] = rate, capturable
