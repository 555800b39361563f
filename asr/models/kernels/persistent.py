"""The LSTM on a GPU with all frames of one or two directions in one launch: triton_persistent.py.

It is for half precision, and for layers whose recurrent weights fit on the chip. As in gpu.py,
gates and memory are float32, and one product over all frames computes the gradient of the recurrent
weights after the loop. T time, B batch, H cells, D directions.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asr.models.cells import State, Weights
from asr.models.kernels import gpu

CELLS = 16  # per program: its weights for 1024 cells take 128 KiB of shared memory
ROWS = (16, 32, 64)  # utterances per program
WARPS = 8
LARGEST = 1024
OLDEST, HOPPER = 8, 9  # compute capability
# Before Hopper, tensor cores read weights from registers; with more shared memory than this, a
# program has more weights than registers.
SPILLS = 98304
DTYPES = (torch.float16, torch.bfloat16)
NUMBERED = 2**31  # positions in an array are 32 bits


@dataclass(frozen=True)
class Plan:
    """How a batch is divided among programs: `blocks` of `rows` utterances run at once."""

    rows: int
    blocks: int


def plan(H: int, B: int, directions: int, processors: int, shared: int) -> Plan | None:
    """As few utterances per program as possible, if one program per multiprocessor suffices for
    that. None if a layer does not fit at once. `shared`: bytes of shared memory per program.

    >>> plan(512, 32, 2, processors=132, shared=232448)
    Plan(rows=16, blocks=2)
    >>> plan(1024, 32, 2, processors=132, shared=232448)
    Plan(rows=32, blocks=1)
    >>> plan(1024, 32, 2, processors=108, shared=232448)  # waiting for each other for ever
    """
    most = processors // (directions * H // CELLS)
    fitting = [rows for rows in ROWS if (4 * CELLS + rows) * width(H) * 2 <= shared]
    if not most or not fitting:
        return None
    rows = next((rows for rows in fitting if rows * most >= B), fitting[-1])
    return Plan(rows, min(most, -(-B // rows)))


def width(H: int) -> int:
    """H rounded up to a size of Triton's arrays."""
    return max(128, 1 << (H - 1).bit_length())


def serves(name: str, x: Tensor, dtype: torch.dtype, H: int, directions: int) -> bool:
    """Whether so many directions of H cells can run at once, computed in `dtype`.

    Shape: x [B, T, I].
    """
    if name != "lstm" or dtype not in DTYPES or H % CELLS or not 0 < H <= LARGEST:
        return False
    B, T, _ = x.shape
    if directions * (T + 1) * B * 4 * H >= NUMBERED or not gpu.serves(name, x):
        return False
    if gpu.interpreted():
        return True
    if torch.cuda.get_device_capability(x.device)[0] < OLDEST:
        return False
    return _plan(x.device, H, B, directions) is not None


def run(
    projections: Sequence[Tensor], states: Sequence[State], weights: Sequence[Weights]
) -> list[State]:
    """The states after every frame of each direction; c in float32.

    Shape: each projected [T, B, 4*H], state h and c [B, H] -> h and c [T, B, H].
    """
    kind = projections[0].device.type
    dtype = (
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else projections[0].dtype
    )
    results = _Recurrence.apply(
        len(projections),
        *(projected.to(dtype) for projected in projections),
        *(state[0].to(dtype) for state in states),
        *(state[1].float() for state in states),
        *(part["weight_hh"].to(dtype) for part in weights),
    )
    return [(results[d], results[len(projections) + d]) for d in range(len(projections))]


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, directions: int, *given: Tensor) -> tuple[Tensor, ...]:
        """The tensors of `run`, each for all directions."""
        x, h, c, weight = (
            list(given[start : start + directions]) for start in range(0, len(given), directions)
        )
        x, w = _alike(x), torch.stack(weight)
        T, B, rows = x[0].shape
        hs = x[0].new_empty(directions, T + 1, B, rows // 4)
        cs = torch.empty_like(hs, dtype=torch.float32)
        saved = x[0].new_empty(directions, T, B, rows)
        for d in range(directions):
            hs[d, 0], cs[d, 0] = h[d], c[d]
        # The kernel has arguments for two directions; if there is one, the second is not used.
        _launch("lstm_forward", (x[0], x[-1], w, hs, cs, saved), x[0].stride())
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hs, cs, saved, w)
        ctx.strides = x[0].stride()
        return *(part[1:] for part in hs), *(part[1:] for part in cs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        hs, cs, saved, w = ctx.saved_tensors
        count = len(w)
        dh = _filled(slopes[:count], hs)
        remembers = any(slope is not None for slope in slopes[count:])
        dcs = _filled(slopes[count:], cs) if remembers else cs
        dc = torch.zeros_like(cs[:, 0])
        dx = hs.new_empty_strided(saved.shape, (saved[0].numel(), *ctx.strides))
        tensors = dh, w, dcs, dc, cs, saved, dx
        _launch("lstm_backward", tensors, ctx.strides, MEMORY=remembers)
        dweight = (
            _over_frames(part).t() @ _over_frames(h[:-1]) for part, h in zip(dx, hs, strict=True)
        )
        return None, *dx, *(dx[:, 0] @ w), *dc, *dweight


def _launch(
    kernel: str, tensors: Sequence[Tensor], strides: Sequence[int], **constants: bool
) -> None:
    """Run a kernel over all frames, for as many utterances at once as fit. `strides`: those of x.

    Shape: the last tensor [D, T, B, 4*H].
    """
    from asr.models.kernels import triton_persistent

    directions, T, B, rows = tensors[-1].shape
    H, x = rows // 4, tensors[-1]
    division = _plan(x.device, H, B, directions)
    assert division is not None  # `serves` has said so
    barrier = not gpu.interpreted()
    # Triton's interpreter runs one program after the other, so it gets a launch for every frame.
    spans = [(0, T)] if barrier else [(t, t + 1) for t in range(T)]
    if kernel == "lstm_backward":
        spans.reverse()
    starts = range(0, B, division.rows * division.blocks)
    counters = torch.zeros(
        len(starts), directions * division.blocks, dtype=torch.int32, device=x.device
    )
    with torch.cuda.device_of(x):
        for row, counter in zip(starts, counters, strict=True):
            blocks = min(division.blocks, -(-(B - row) // division.rows))
            for span in spans:
                getattr(triton_persistent, kernel)[H // CELLS, blocks, directions](
                    *(*tensors, counter, *span, T, B, row, *strides[:2]),
                    H=H,
                    WIDTH=width(H),
                    CELLS=CELLS,
                    ROWS=division.rows,
                    BARRIER=barrier,
                    **constants,
                    num_warps=WARPS,
                    num_stages=1,
                    launch_cooperative_grid=True,
                )


def _plan(device: torch.device, H: int, B: int, directions: int) -> Plan | None:
    if device.type != "cuda":  # interpreted
        return Plan(ROWS[0], 2)
    return plan(H, B, directions, *_room(device))


@functools.cache
def _room(device: torch.device) -> tuple[int, int]:
    """The number of multiprocessors, and the bytes of shared memory a program may have."""
    has: Any = torch.cuda.get_device_properties(device)
    shared = has.shared_memory_per_block_optin
    return has.multi_processor_count, shared if has.major >= HOPPER else min(shared, SPILLS)


def _filled(slopes: Sequence[Tensor | None], states: Tensor) -> Tensor:
    """Gradients of the states after every frame, zero where they are not given.

    Shape: each slope [T, B, H], states [D, T + 1, B, H] -> [D, T, B, H].
    """
    return torch.stack(
        [
            torch.zeros_like(part[1:]) if slope is None else slope
            for slope, part in zip(slopes, states, strict=True)
        ]
    )


def _alike(parts: Sequence[Tensor]) -> list[Tensor]:
    """The same values with the same strides, and no gaps. Shape: each [T, B, F]."""
    dense = parts[0].is_contiguous() or parts[0].transpose(0, 1).is_contiguous()
    if dense and all(part.stride() == parts[0].stride() for part in parts):
        return list(parts)
    return [part.contiguous() for part in parts]


def _over_frames(values: Tensor) -> Tensor:
    """Shape: [T, B, F] -> [B * T, F]; no copy for the outputs of a layer, which are [B, T, F]."""
    return values.transpose(0, 1).flatten(0, 1)
