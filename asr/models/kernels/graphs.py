"""Loops over frames as CUDA graphs: a GPU takes microseconds a frame, starting its kernels longer.

A graph is fixed in its sizes and in the memory it works on, while hardly two batches have the same
number of frames. So what is captured is the loop over a few frames of a full batch; it is replayed
as often as the frames need, on copies of each chunk of them. Every layer of the same sizes shares
it. The copies cost little: all of a chunk moves at once. B batch, T frames.
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
ROWS = 8  # of a batch are the same work as one, so that batches of similar sizes share a graph
KEPT = 32  # graphs: four batch sizes in two passes of four kinds of layer
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
        self._done: dict[torch.device, torch.cuda.Event] = {}
        self._failed = False

    def run(self, tape: Tape) -> None:
        """Run the loop of `tape`, by a graph if that can be."""
        if self._failed or tape.size[0] < SHORTEST or torch.cuda.is_current_stream_capturing():
            return tape.run()
        device = tape.parts().writes[0].device
        with self._lock:
            captured = self.captured(tape)
            if captured is None:
                return tape.run()
            # Graphs share their memory between all who use them, on whatever stream.
            stream = torch.cuda.current_stream(device)
            done = self._done.setdefault(device, torch.cuda.Event())
            stream.wait_event(done)
            replay(tape, *captured)
            done.record(stream)

    def captured(self, tape: Tape) -> tuple[Tape, Callable[[], None]] | None:
        """The graph for such a tape and what it works on; None, after a warning, if it fails."""
        rows = -(-tape.size[1] // ROWS) * ROWS
        key = _key(tape, rows)
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
            for done in self._done.values():
                done.synchronize()  # it may still be running on another stream than its memory's
            self._kept.popitem(last=False)
        return self._kept[key]


def capture(tape: Tape) -> Callable[[], None]:
    """A function that does again on the GPU what the loop of `tape` and its `hand_on` do."""
    graph = torch.cuda.CUDAGraph()
    before = torch.cuda.current_stream()
    side = _side_stream(torch.cuda.current_device())
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


def _key(tape: Tape, rows: int) -> Hashable:
    parts = tape.parts()
    over_time = tuple((v.device, v.dtype, v.shape[2:]) for v in (*parts.reads, *parts.writes))
    return type(tape), tape.name, rows, over_time, tuple(v.shape for v in parts.constant)


@functools.cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """One a device for all captures: cuBLAS keeps a work space for every stream it has seen."""
    return torch.cuda.Stream(device)
