"""Network, loss and gradient of a step as CUDA graphs, one pair for each shape of batch.

A GPU needs less time for many kernels than the host for their launches. A graph has a fixed shape
and memory, but every batch has another shape. Batches are therefore padded to a ladder of shapes,
by frames and by utterances of length zero, which count for nothing. The first batch of a shape is
computed eagerly, which also measures which recurrent kernels are fastest. The second is recorded;
from then on the shape is replayed. Augmentation stays outside; clipping and the optimizer have a
graph of their own (graphed_update.py).
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from asr.ctc import kernel
from asr.models.acoustic import AcousticModel, Outputs
from asr.models.kernels.streams import end_capture, single_stream
from asr.padded import Padded
from asr.training import distributed
from asr.training.loop import Loss
from asr.training.step import Compute, Masked, Network

KEPT = 32  # shapes
STEPS = 8  # rungs of the ladder per doubling, so that 3 to 6 % of each size is padding on average
ROWS, FRAMES, TOKENS = 8, 32, 31  # smallest rungs

Pass = Callable[[], None]
Record = Callable[[Pass, Pass], tuple[Pass, Pass]]


@dataclass(frozen=True)
class Shape:
    """Sizes of a padded batch: utterances, frames of features, tokens of the targets, and tokens of
    the targets of the hierarchical CTC layer (0 without one)."""

    rows: int
    frames: int
    tokens: int
    spelled: int


def rung(size: int, least: int) -> int:
    """The lowest rung of the ladder that is not below a size.

    >>> [rung(size, 32) for size in (0, 1, 32, 33, 300, 1000, 1025)]
    [32, 32, 32, 64, 320, 1024, 1152]
    """
    step = max(least, 2 ** (max(1, size).bit_length() - 1) // STEPS)
    return max(1, -(-size // step)) * step


def token_rung(size: int) -> int:
    """The same for tokens: the most for which CTC's kernel needs no larger array.

    >>> [token_rung(size) for size in (0, 31, 32, 64)]
    [31, 31, 63, 127]
    """
    return max(TOKENS, 2 ** size.bit_length() - 1)


def shape_of(given: Masked) -> Shape:
    """The shape to which a batch is padded."""
    spelled = 0 if given.spelled is None else token_rung(given.spelled.values.shape[1])
    return Shape(
        rung(given.targets.values.shape[0], ROWS),
        rung(given.features.values.shape[1], FRAMES),
        token_rung(given.targets.values.shape[1]),
        spelled,
    )


def fitted(given: Masked, shape: Shape) -> Masked:
    """The batch, padded to a shape, in memory of its own."""
    features, rows = given.features.values, shape.rows

    def room(like: Padded, count: int, size: int) -> Padded:
        values = like.values.new_zeros(count, size, *like.values.shape[2:])
        return Padded(values, like.lengths.new_zeros(count))

    fixed = Masked(
        room(given.features, given.views * rows, shape.frames),
        room(given.targets, rows, shape.tokens),
        None if given.spelled is None else room(given.spelled, rows, shape.spelled),
        features.new_zeros(rows, dtype=torch.float32),
        given.views,
    )
    fill(fixed, given)
    return fixed


@torch.no_grad()
def fill(fixed: Masked, given: Masked) -> None:
    """Put a batch into the memory of a padded one."""
    _put(fixed.features, given.features, given.views)
    _put(fixed.targets, given.targets)
    if given.spelled is not None and fixed.spelled is not None:
        _put(fixed.spelled, given.spelled)
    assert fixed.weights is not None
    fixed.weights.zero_()
    own = fixed.weights[: len(given.targets.lengths)]
    if given.weights is None:
        own.fill_(1.0)
    else:
        own.copy_(given.weights)


def _put(fixed: Padded, given: Padded, views: int = 1) -> None:
    values, lengths = (part.unflatten(0, (views, -1)) for part in (given.values, given.lengths))
    rows, size = values.shape[1:3]
    for tensor in (fixed.values, fixed.lengths):
        tensor.zero_()
    fixed.values.unflatten(0, (views, -1))[:, :rows, :size].copy_(values)
    fixed.lengths.unflatten(0, (views, -1))[:, :rows].copy_(lengths)


def replay(
    model: AcousticModel, device: torch.device, say: Callable[[str], None]
) -> GraphReplay | None:
    """How steps of a training are replayed; None, after saying why, if they cannot be."""
    if reason := _obstacle(model, device):
        say(f"train.cuda_graphs is ignored: {reason}")
        return None
    return GraphReplay(model, say)


def _obstacle(model: AcousticModel, device: torch.device) -> str | None:
    if device.type != "cuda":
        return "there is no CUDA device"
    if distributed.is_joined():
        return "several processes train together"
    if model.features.pretrained is not None:
        return "features.kind is pretrained"
    if model.config.chunk or model.config.zoneout:
        return f"model.{'chunk' if model.config.chunk else 'zoneout'} is set"
    return None


class GraphReplay:
    """Replays network, loss and gradient of batches. A `step.Replay`."""

    def __init__(
        self, model: AcousticModel, say: Callable[[str], None], record: Record | None = None
    ) -> None:
        """`say` reports that recording has failed, once; from then on steps are eager. `record`
        turns the forward and the backward pass into what repeats them."""
        self._model, self._say = model, say
        self._record = record or Recorder(next(model.parameters()).device)
        self._kept: OrderedDict[Hashable, _Graph | None] = OrderedDict()
        self._off = False
        # The same for all shapes: a gradient is used up before the next one is computed.
        self._slopes = {
            name: torch.zeros_like(value)
            for name, value in model.named_parameters()
            if value.requires_grad
        }

    def __call__(self, compute: Compute, given: Masked) -> Loss:
        rows = len(given.targets.lengths)
        loss = None if self._off else self._replayed(compute, given)
        if loss is None:
            return compute(self._model.outputs, given)
        return Loss(loss.objective, loss.items[:rows], loss.units[:rows])

    def _replayed(self, compute: Compute, given: Masked) -> Loss | None:
        """None if recording has failed."""
        shape = shape_of(given)
        key = shape, given.views
        if key not in self._kept:
            self._keep(key, None)
            return compute(self._model.outputs, fitted(given, shape))
        self._kept.move_to_end(key)
        graph = self._kept[key]
        if graph is None:
            try:
                graph = self._recorded(compute, fitted(given, shape))
            except Exception as error:  # torch, Triton and the driver have no common class
                self._fail(error)
                return None
            self._kept[key] = graph
        else:
            fill(graph.fixed, given)
        parameters = dict(self._model.named_parameters())
        return Loss(*_Replayed.apply(graph, *(parameters[name] for name in self._slopes)))

    def _keep(self, key: Hashable, graph: _Graph | None) -> None:
        self._kept[key] = graph
        if len(self._kept) > KEPT:
            _, oldest = self._kept.popitem(last=False)
            if oldest is not None and torch.cuda.is_initialized():  # it may still be running
                torch.cuda.synchronize()

    def _recorded(self, compute: Compute, fixed: Masked) -> _Graph:
        scores = fixed.features.values
        if scores.is_cuda and not kernel.serves(scores, fixed.targets.values):
            raise RuntimeError("CTC has no kernel here, and torch's own waits for the GPU")
        graph = _Graph(self._model, compute, fixed, self._slopes)
        with _unchanged(self._model, scores.device):
            graph.replays = self._record(graph.forward, graph.backward)
        graph.objective = None  # what the gradient needs is in memory of the graphs
        return graph

    def _fail(self, error: Exception) -> None:
        self._off = True
        if torch.cuda.is_initialized():  # a graph may still be running
            torch.cuda.synchronize()
        self._kept.clear()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        self._say(f"training runs without CUDA graphs (train.cuda_graphs): {reason}")


class _Graph:
    """The two passes over a padded batch, and the tensors that they read and write."""

    def __init__(
        self, model: AcousticModel, compute: Compute, fixed: Masked, slopes: dict[str, Tensor]
    ) -> None:
        self.fixed, self.slopes = fixed, slopes
        self.replays: tuple[Pass, Pass] = self.forward, self.backward
        rows, features = len(fixed.targets.lengths), fixed.features.values
        self.results = (
            features.new_zeros(()),
            features.new_zeros(rows),
            fixed.targets.lengths.new_zeros(rows),
        )
        self.slope = features.new_ones(())
        self.used: list[bool] = []
        """Whether each parameter has a gradient."""
        self.objective: Tensor | None = None
        self._compute = compute
        # autograd ties a leaf to the stream of its first use, which for those of the model is not
        # the one that is captured. These share their memory.
        parameters = dict(model.named_parameters())
        self._leaves = {name: parameters[name].detach().requires_grad_() for name in slopes}
        weights = {f"model.{name}": leaf for name, leaf in self._leaves.items()}
        whole = _Whole(model)
        self._network: Network = lambda *read: functional_call(whole, weights, read)

    def forward(self) -> None:
        kind = self.fixed.features.values.device.type

        def network(*read: Padded) -> Outputs:
            # Weights that autocast keeps in half precision would be those of the recording.
            with torch.autocast(
                kind,
                dtype=torch.get_autocast_dtype(kind),
                enabled=torch.is_autocast_enabled(kind),
                cache_enabled=False,
            ):
                return self._network(*read)

        with torch.enable_grad():
            loss = self._compute(network, self.fixed)
        self.objective = loss.objective
        for result, value in zip(
            self.results, (loss.objective, loss.items, loss.units), strict=True
        ):
            result.copy_(value.detach())

    def backward(self) -> None:
        assert self.objective is not None
        found = torch.autograd.grad(
            self.objective, list(self._leaves.values()), self.slope, allow_unused=True
        )
        self.objective = None
        self.used = [slope is not None for slope in found]
        pairs = zip(self.slopes.values(), found, strict=True)
        used = [(to, new) for to, new in pairs if new is not None]
        torch._foreach_copy_([to for to, _ in used], [new for _, new in used])


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: _Graph, *parameters: Tensor) -> tuple[Tensor, ...]:
        graph.replays[0]()
        ctx.graph = graph
        # Copies, because `DeferredValues` may read them after the graph has been replayed again.
        objective, items, units = (result.clone() for result in graph.results)
        ctx.mark_non_differentiable(items, units)
        return objective, items, units

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        graph: _Graph = ctx.graph
        graph.slope.copy_(slope)
        graph.replays[1]()
        pairs = zip(graph.slopes.values(), graph.used, strict=True)
        return None, *(own.detach() if used else None for own, used in pairs)


@contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore running statistics and random states."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)


class _Whole(nn.Module):
    """A model whose `forward` is `outputs`: `functional_call` calls no other."""

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *read: Padded) -> Outputs:
        return self.model.outputs(*read)


class Recorder:
    """Records pairs of passes as CUDA graphs. All graphs share memory for what they need while they
    run: they run in the order of their passes, never at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._first: torch.cuda.CUDAGraph | None = None

    def __call__(self, forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
        """What repeats each pass."""
        before = torch.cuda.current_stream(self._device)
        self._side.wait_stream(before)
        try:
            with single_stream(), torch.cuda.stream(self._side):
                # Kernels are compiled and libraries set up at first use, which cannot be captured.
                forward()
                backward()
                # During capture the allocator cannot reclaim what earlier steps left in its cache.
                gc.collect()
                torch.cuda.synchronize(self._device)
                torch.cuda.empty_cache()
                self._keep_pool()
                graphs = [self._captured(work) for work in (forward, backward)]
        except BaseException:
            end_capture(self._device, self._pool)
            raise
        finally:
            before.wait_stream(self._side)
        return graphs[0].replay, graphs[1].replay

    def alone(self, work: Pass) -> Pass:
        """What repeats a pass whose kernels have run before; it is not run here."""
        before = torch.cuda.current_stream(self._device)
        drawn = torch.cuda.get_rng_state(self._device)  # which `end_capture` replaces
        self._side.wait_stream(before)
        try:
            with torch.cuda.stream(self._side):
                torch.cuda.synchronize(self._device)
                self._keep_pool()
                return self._captured(work).replay
        except BaseException:
            end_capture(self._device, self._pool)
            torch.cuda.set_rng_state(drawn, self._device)
            raise
        finally:
            before.wait_stream(self._side)

    def _keep_pool(self) -> None:
        """torch drops a pool of memory that no graph uses, and cannot share it again: a small graph
        keeps it."""
        if self._first is None:
            self._first = self._captured(lambda: torch.zeros(1, device=self._device))

    def _captured(self, work: Callable[[], object]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as the one that loads data, may run meanwhile.
        graph.capture_begin(self._pool, capture_error_mode="thread_local")
        try:
            work()
        finally:
            graph.capture_end()
        return graph
