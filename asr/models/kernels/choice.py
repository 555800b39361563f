"""The fastest of several paths on a GPU, found by measuring each once per size.

cuDNN and the kernels here compute the same, up to rounding. Which is fastest depends on the GPU and
on the size, and no rule holds for all of them: docs/speed.md.

A choice is kept as long as the process lives. Another process may choose differently where two
paths take almost the same time, and its results then differ by rounding.
`torch.use_deterministic_algorithms(True)` turns measuring off: the first path is used, as it is
while a CUDA graph is captured.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from asr.models.cells import Weights

ROUNDS = 3
GAIN = 0.97  # of the first path's time: noise must not decide
KEPT = 256  # sizes
STEPS = 4  # sizes per doubling of the batch or of the frames

Run = Callable[[], Sequence[Tensor]]


def milliseconds(run: Run) -> float:
    """The shortest of a few runs on the current GPU, after one that compiles and captures.

    Raises ArithmeticError if that one gives NaN, as the persistent kernel does after a fault.
    """
    if any(bool(result.isnan().any()) for result in run()):
        raise ArithmeticError("its results are NaN")
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)


def may_measure() -> bool:
    """Whether time may be taken now: a CUDA graph that is being captured allows no waiting."""
    if torch.are_deterministic_algorithms_enabled():
        return False
    return not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


class Choices:
    """The fastest path of each size. Usable from any thread."""

    def __init__(self, measure: Callable[[Run], float] = milliseconds) -> None:
        self._measure = measure
        self._kept: OrderedDict[Hashable, str] = OrderedDict()
        self._failed: set[str] = set()
        self._lock = threading.RLock()

    def fastest(self, size: Hashable, paths: Mapping[str, Run]) -> str:
        """The name of the path to use; the first one if nothing was or can be measured.

        A path that raises an error is never used again, after a warning; one that does not fit
        into memory is not used for this size.
        """
        with self._lock:
            sound = {name: run for name, run in paths.items() if name not in self._failed}
            names = list(sound or paths)
            if self._kept.get(size) in names:
                self._kept.move_to_end(size)
                return self._kept[size]
            if len(names) == 1 or not sound or not may_measure():
                return names[0]
            times = {name: self._time(name, run) for name, run in sound.items()}
            if not math.isnan(times[names[0]]):  # else the input is at fault, not the paths
                for name in [name for name, time in times.items() if math.isnan(time)]:
                    self._leave_out(name, "its results are NaN")
            times = {name: math.inf if math.isnan(time) else time for name, time in times.items()}
            self._kept[size] = _winner(times)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[size]

    def _time(self, name: str, run: Run) -> float:
        """Infinite for a path that fails, NaN for one that gives NaN."""
        try:
            return self._measure(run)
        except torch.OutOfMemoryError:
            return math.inf
        except ArithmeticError:
            return math.nan
        except Exception as error:  # Triton, its compiler and the driver have no common class
            self._leave_out(name, (str(error).splitlines() or [type(error).__name__])[0])
            return math.inf

    def _leave_out(self, name: str, reason: str) -> None:
        self._failed.add(name)
        warnings.warn(
            f"recurrent layers do not use the {name} path, which does not work here: {reason}",
            stacklevel=5,
        )


CHOICES = Choices()


def _winner(times: Mapping[str, float]) -> str:
    """The first path, unless another one is clearly faster.

    >>> _winner({"cudnn": 1.0, "frames": 0.98})
    'cudnn'
    >>> _winner({"cudnn": 1.0, "frames": 0.95, "persistent": 0.9})
    'persistent'
    """
    first = next(iter(times))
    best = min(times, key=times.__getitem__)
    return best if times[best] < GAIN * times[first] else first


def rounded(size: int) -> int:
    """The size that stands for similar ones: a training has thousands of sizes of batches.

    >>> [rounded(size) for size in (1, 9, 100, 137, 240)]
    [8, 16, 112, 160, 256]
    """
    step = max(8, 2 ** (size.bit_length() - 1) // STEPS)
    return -(-size // step) * step


def timed_pass(
    run: Callable[[Tensor, list[dict[str, Tensor]]], Tensor],
    values: Tensor,
    weights: Sequence[Weights],
) -> Run:
    """A pass of `run` forward, and backward if gradients are enabled; returns its output and the
    gradients.

    It gets copies of values and weights, and so leaves no gradient and nothing in the graph of the
    caller. Autocast would keep each copy in half precision until the caller leaves it.
    """

    def once() -> Sequence[Tensor]:
        kind, trained = values.device.type, torch.is_grad_enabled()
        x = values.detach().nan_to_num().requires_grad_(trained)
        copies = [
            {name: weight.detach().requires_grad_(trained) for name, weight in part.items()}
            for part in weights
        ]
        with torch.autocast(
            kind,
            dtype=torch.get_autocast_dtype(kind),
            enabled=torch.is_autocast_enabled(kind),
            cache_enabled=False,
        ):
            outputs = run(x, copies)
        if not trained:
            return [outputs]
        leaves = [x, *(weight for part in copies for weight in part.values())]
        slopes = torch.autograd.grad(outputs, leaves, torch.ones_like(outputs), allow_unused=True)
        return [outputs, *(slope for slope in slopes if slope is not None)]

    return once
