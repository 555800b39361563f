"""Loops over frames as CUDA graphs: a GPU takes microseconds a frame, starting its kernels longer.

A graph is fixed in its sizes and in the memory it works on, while hardly two batches have the same
number of frames. So what is captured is the loop over a few frames of a full batch; it is replayed
as often as the frames need, on copies of each chunk of them. Every layer of the same sizes shares
it, but no two streams do, which may be at work at once. The copies cost little: all of a chunk
moves at once. B batch, T frames.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

FRAMES = 32  # in a graph: fewer would be copied more often, more would be computed in vain
ROWS = 8  # of a batch are the same work as one
SPARE = 4  # a share of 1 / SPARE of a large batch more, so that batches of similar sizes share
KEPT = 64  # graphs: eight batch sizes in two passes of two directions of two kinds of layer
SHORTEST = 4  # frames for which a replay is faster than the plain loop


@dataclass(frozen=True)
class Parts:
    """What a loop works on, by how a chunk of the frames relates to all of them."""

    constant: tuple[Tensor, ...]
    """The same for all frames."""
    start: tuple[Tensor, ...]
    """Shape: [B, ...]. What the first chunk begins with; a loop hands the rest on by itself."""
    reads: tuple[Tensor, ...]
    """Shape: [T, B, ...] or [T + 1, B, ...]."""
    writes: tuple[Tensor, ...]
    """Shape: [T, B, ...]."""
    end: tuple[Tensor, ...] = ()
    """Shape: [B, ...]. What the last chunk leaves behind."""
    backward: bool = False
    """Whether the loop goes from the last frame to the first."""


class Tape(Protocol):
    """The tensors of a loop over frames, and the loop."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]:
        """T and B."""

    def parts(self) -> Parts: ...

    def resized(self, T: int, B: int) -> Self:
        """One for other sizes, with anything in it."""

    def run(self) -> None: ...

    def hand_on(self) -> None:
        """Make what the last frame left the start of the next chunk."""


class Graphs:
    """Captured loops, those used least recently forgotten. One may be used from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[Tape, Callable[[], None]]] = OrderedDict()
        self._lock = threading.Lock()
        self._failed = False

    def run(self, tape: Tape) -> None:
        """Run the loop of `tape`, by a graph if that can be."""
        if self._failed or tape.size[0] < SHORTEST or torch.cuda.is_current_stream_capturing():
            return tape.run()
        stream = torch.cuda.current_stream(tape.parts().writes[0].device)
        with self._lock:
            captured = self.captured(tape, stream.cuda_stream)
            if captured is None:
                return tape.run()
            replay(tape, *captured)

    def captured(self, tape: Tape, stream: int = 0) -> tuple[Tape, Callable[[], None]] | None:
        """The graph for such a tape on a stream, and what it works on; None, after a warning, if it
        fails."""
        rows = _rows(tape.size[1])
        key = stream, _key(tape, rows)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        try:
            with torch.inference_mode(False), torch.no_grad():
                fixed = tape.resized(FRAMES, rows)
                self._kept[key] = fixed, capture(fixed)
        except RuntimeError as error:
            self._failed = True
            warnings.warn(
                f"recurrent layers run without CUDA graphs, which is slower: {error}", stacklevel=2
            )
            return None
        if len(self._kept) > KEPT:
            if torch.cuda.is_initialized():  # it may still be at work
                torch.cuda.synchronize()
            self._kept.popitem(last=False)
        return self._kept[key]


def capture(tape: Tape) -> Callable[[], None]:
    """A function that does again on the GPU what the loop of `tape` and its `hand_on` do."""
    graph = torch.cuda.CUDAGraph()
    before = torch.cuda.current_stream()
    side = _side_stream(torch.cuda.current_device(), before.cuda_stream)
    side.wait_stream(before)
    with torch.cuda.stream(side):
        # Kernels are compiled and libraries set up at their first use, which cannot be captured.
        tape.run()
        tape.hand_on()
        # Not torch.cuda.graph(): it would give all unused memory back to the driver first. Other
        # threads may go on meanwhile, such as one that loads data.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            tape.run()
            tape.hand_on()
        finally:
            graph.capture_end()
    before.wait_stream(side)
    return graph.replay


def replay(whole: Tape, fixed: Tape, again: Callable[[], None]) -> None:
    """Take all frames of `whole` through `fixed` in chunks; `again` runs the loop of `fixed`."""
    T, B = whole.size
    frames, _ = fixed.size
    ours, theirs = whole.parts(), fixed.parts()
    for mine, part in zip(ours.constant, theirs.constant, strict=True):
        part.copy_(mine)
    for mine, part in zip(ours.start, theirs.start, strict=True):
        part[:B].copy_(mine)
    starts = range(0, T, frames)
    for start in reversed(starts) if ours.backward else starts:
        size = min(frames, T - start)
        for mine, part in zip(ours.reads, theirs.reads, strict=True):
            rows = size + len(part) - frames
            part[:rows, :B].copy_(mine[start : start + rows])
            if ours.backward:
                # These go first, and must leave no gradient. Forwards they come after all others;
                # nor does ever one row of the batch reach another.
                part[rows:].zero_()
        again()
        for mine, part in zip(ours.writes, theirs.writes, strict=True):
            mine[start : start + size].copy_(part[:size, :B])
    for mine, part in zip(ours.end, theirs.end, strict=True):
        mine.copy_(part[:B])


def _rows(batch: int) -> int:
    """Rows of the graph for a batch.

    >>> [_rows(batch) for batch in (1, 9, 100, 137, 240)]
    [8, 16, 112, 160, 256]
    """
    step = max(ROWS, 2 ** (batch.bit_length() - 1) // SPARE)
    return -(-batch // step) * step


def _key(tape: Tape, rows: int) -> Hashable:
    parts = tape.parts()
    over_time = tuple((v.device, v.dtype, v.shape[2:]) for v in (*parts.reads, *parts.writes))
    return type(tape), tape.name, rows, over_time, tuple(v.shape for v in parts.constant)


@functools.cache
def _side_stream(device: int, stream: int) -> torch.cuda.Stream:
    """One for all captures that are replayed on a stream: cuBLAS keeps a work space for every
    stream it has seen, and what is captured there works in it."""
    return torch.cuda.Stream(device)
