"""Loops over frames as CUDA graphs: a GPU needs microseconds per frame, kernel launches longer.

A graph has fixed sizes and memory, but batches differ in their number of frames. Therefore the loop
over a few frames of a full batch is captured, and replayed as often as needed on copies of each
chunk of frames. All layers of the same sizes share a graph, except on different streams, which may
run concurrently. The copies are cheap: a chunk is copied at once. B batch, T frames.
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

from asr.errors import lacks_memory
from asr.models.kernels.choice import rounded
from asr.models.kernels.streams import end_capture, is_single_stream

FRAMES = 32  # in a graph: fewer would be copied more often, more would be wasted
KEPT = 64  # graphs: eight batch sizes in two passes of two directions of two kinds of layer
SHORTEST = 4  # frames for which a replay is faster than the plain loop


@dataclass(frozen=True)
class Parts:
    """The tensors of a loop, by the relation of a chunk's part to the whole."""

    constant: tuple[Tensor, ...]
    """The same for all frames."""
    start: tuple[Tensor, ...]
    """Shape: [B, ...]. Initial values of the first chunk; the loop carries them over itself."""
    reads: tuple[Tensor, ...]
    """Shape: [T, B, ...] or [T + 1, B, ...]."""
    writes: tuple[Tensor, ...]
    """Shape: [T, B, ...]."""
    end: tuple[Tensor, ...] = ()
    """Shape: [B, ...]. Results of the last chunk."""
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
        """A tape for other sizes, with undefined values."""

    def run(self) -> None: ...

    def carry_state(self) -> None:
        """Make the state after the last frame the start of the next chunk."""


class Graphs:
    """Captured loops; the least recently used are dropped. Usable from any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[Tape, Callable[[], None]]] = OrderedDict()
        self._lock = threading.Lock()
        self._failed = False

    def run(self, tape: Tape) -> None:
        """Run the loop of `tape`, by a graph if possible."""
        if self._failed or tape.size[0] < SHORTEST or is_single_stream():
            return tape.run()
        stream = torch.cuda.current_stream(tape.parts().writes[0].device)
        with self._lock:
            captured = self.captured(tape, stream.cuda_stream)
            if captured is None:
                return tape.run()
            replay(tape, *captured)

    def captured(self, tape: Tape, stream: int = 0) -> tuple[Tape, Callable[[], None]] | None:
        """The graph for such a tape on a stream, and its tape; None, after a warning, if the
        capture fails."""
        rows = rounded(tape.size[1])
        key = stream, _key(tape, rows)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        try:
            with torch.inference_mode(False), torch.no_grad():
                fixed = tape.resized(FRAMES, rows)
                self._kept[key] = fixed, capture(fixed)
        except RuntimeError as error:
            if lacks_memory(error):  # later batches may be smaller
                return None
            self._failed = True
            warnings.warn(
                f"recurrent layers run without CUDA graphs, which is slower: {error}", stacklevel=2
            )
            return None
        if len(self._kept) > KEPT:
            if torch.cuda.is_initialized():  # it may still be running
                torch.cuda.synchronize()
            self._kept.popitem(last=False)
        return self._kept[key]


def capture(tape: Tape) -> Callable[[], None]:
    """A function that repeats the loop of `tape` and its `carry_state` on the GPU."""
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    before = torch.cuda.current_stream()
    side = _side_stream(torch.cuda.current_device(), before.cuda_stream)
    side.wait_stream(before)
    drawn = torch.cuda.get_rng_state()  # which `end_capture` replaces
    with torch.cuda.stream(side):
        # Kernels are compiled and libraries set up at first use, which cannot be captured.
        tape.run()
        tape.carry_state()
        try:
            # Not torch.cuda.graph(): it would first return all unused memory to the driver. Other
            # threads, such as a data loader, may run meanwhile.
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                tape.run()
                tape.carry_state()
            finally:
                graph.capture_end()
        except BaseException:
            end_capture(torch.device("cuda", torch.cuda.current_device()), pool)
            torch.cuda.set_rng_state(drawn)
            raise
    before.wait_stream(side)
    return graph.replay


def replay(whole: Tape, fixed: Tape, again: Callable[[], None]) -> None:
    """Process all frames of `whole` in chunks with `fixed`; `again` runs the loop of `fixed`."""
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
                # Backwards, padded frames come first and must leave no gradient. Forwards they come
                # last. Rows of the batch never affect each other.
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
def _side_stream(device: int, stream: int) -> torch.cuda.Stream:
    """One stream for all captures that are replayed on a stream: cuBLAS keeps a workspace per
    stream, which its captured kernels use."""
    return torch.cuda.Stream(device)
