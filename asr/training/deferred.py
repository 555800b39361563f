"""Steps of an optimizer whose results stay on the GPU until several are read together.

To read a number from a GPU waits for all queued work, and the GPU then idles until the next step is
queued. On a CPU, results are used at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

Update = Callable[[nn.Module, Any, Accelerator, float, list[Tensor]], Tensor]
MOST = 32  # uses that may wait: those of 16 steps of an acoustic model


def is_on_host(value: Tensor) -> bool:
    """Whether the value is in CPU memory, so that reading it does not synchronise a GPU."""
    return value.device.type == "cpu"


class DeferredValues:
    """Values that wait to be read, each with the function that uses them."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[..., None], tuple[Tensor, ...]]] = []

    @property
    def due(self) -> bool:
        """Whether so many values wait that they should be read."""
        return len(self._waiting) >= MOST

    def add(self, use: Callable[..., None], *values: Tensor) -> None:
        """Call `use` with these values on the CPU: now, if they are there and nothing waits, else
        when they are read."""
        if not self._waiting and all(map(is_on_host, values)):
            use(*values)
        else:
            self._waiting.append((use, tuple(value.detach() for value in values)))

    def read(self) -> None:
        """Use all values that wait, in the order in which they were added. Raises what `use`
        raises; values that then still wait are dropped."""
        waiting, self._waiting = self._waiting, []
        host = _copied([value for _, values in waiting for value in values])
        for use, values in waiting:
            use(*[next(host) for _ in values])


def _copied(values: list[Tensor]) -> Iterator[Tensor]:
    """The values on the CPU, by one copy for each type of number."""
    flat = {}
    for kind in {value.dtype for value in values}:
        alike = [value.flatten() for value in values if value.dtype == kind]
        flat[kind] = iter(torch.cat(alike).cpu().split([len(part) for part in alike]))
    for value in values:
        yield next(flat[value.dtype]).reshape(value.shape)


def step_if_finite(optimizer: Any, norm: Tensor, scaled: bool) -> Tensor:
    """Step accelerate's `optimizer`, unless the norm of the gradient is not finite; then weights
    and moments stay as they are. Returns whether it was not, as a tensor [] bool.

    The fused AdamW looks at `found_inf`, on the device. torch's GradScaler sets it as well, if
    gradients are `scaled`.
    """
    bad = ~torch.isfinite(norm)
    if not scaled:
        optimizer.optimizer.found_inf = bad.float()
    optimizer.step()
    return bad


@torch.no_grad()
def restore(model: nn.Module, statistics: list[Tensor], bad: Tensor) -> None:
    """After a `bad` step, undo the update of the running statistics of the normalisation in its
    forward pass: `statistics` are the buffers before it."""
    for buffer, before in zip(model.buffers(), statistics, strict=True):
        torch.where(bad.to(buffer.device), before, buffer, out=buffer)


def finish_step(
    model: nn.Module,
    optimizer: Any,
    accelerator: Accelerator,
    clip_norm: float,
    statistics: list[Tensor],
) -> Tensor:
    """Clip the gradient and step accelerate's `optimizer`, or undo a step whose gradient is not
    finite; `statistics` as in `restore`. Returns the norm of the gradient before clipping.

    Nothing is decided on the host, so that it can be recorded (graphed_update.py). Shape: -> [].
    """
    norm: Tensor = accelerator.clip_grad_norm_(model.parameters(), clip_norm)
    bad = step_if_finite(optimizer, norm, accelerator.scaler is not None)
    restore(model, statistics, bad)
    optimizer.zero_grad()
    return norm
