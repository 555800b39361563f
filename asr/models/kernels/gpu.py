"""Recurrences on a GPU, for every cell: one matrix product and one Triton kernel per frame.

As on a CPU (cpu.py), the gradient is hand-written, and one product over all frames computes that of
the recurrent weights after the loop. The loops (gpu_loops.py) run as CUDA graphs (graphs.py). Gates
and memory are always float32; all else has the type of the input or of autocast.
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from asr.io.caches import set_cache_folders
from asr.models.cells import Cell, State, Weights
from asr.models.kernels.gates import GATES
from asr.models.kernels.gpu_loops import Backward, Forward
from asr.models.kernels.graphs import Graphs

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GRAPHS = Graphs()


def interpreted() -> bool:
    """Whether Triton's interpreter is on, which runs kernels without a GPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def serves(name: str, x: Tensor) -> bool:
    """Whether this path supports the cell with such an input."""
    if x.dtype not in DTYPES or not (x.is_cuda or interpreted()):
        return False
    return name in GATES and _works(x.device)


@functools.cache
def _works(device: torch.device) -> bool:
    """Whether Triton works there, tested once: it requires a C compiler and a recent GPU.

    A warning gives the reason if not.
    """
    set_cache_folders()
    try:
        one = torch.zeros(1, 1, 1, device=device)
        with torch.no_grad(), torch.cuda.device_of(one):
            Forward.over("rnn_tanh", one, one[0], None, one[0], None, ()).run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
    except Exception as error:  # Triton, its compiler and the driver have no common exception class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(
            f"recurrent layers that cuDNN lacks run as a plain loop, which is slow: Triton does "
            f"not work on {device}: {reason}",
            stacklevel=2,
        )
        return False
    return True


def run(name: str, cell: Cell, x: Tensor, state: State, weights: Weights) -> State:
    """The states after every frame; c in float32.

    Shape: x [T, B, G*H], state h [B, R] and c [B, H] -> h [T, B, R] and c [T, B, H].
    """
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    weight_hh, weight_hr = weights["weight_hh"].to(dtype), weights.get("weight_hr")
    hs, cs = _Recurrence.apply(
        name,
        x.to(dtype),
        state[0].to(dtype),
        state[1].float() if cell.memory else None,
        weight_hh,
        None if weight_hr is None else weight_hr.to(dtype),
        *(weights[vector].float() for vector in cell.vectors),
    )
    return (hs, cs) if cell.memory else (hs,)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        name: str,
        x: Tensor,
        h: Tensor,
        c: Tensor | None,
        weight_hh: Tensor,
        weight_hr: Tensor | None,
        *vectors: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        with torch.cuda.device_of(x):
            tape = Forward.over(name, x.contiguous(), h, c, weight_hh, weight_hr, vectors)
            _run(tape, x)
        ctx.name = name
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(
            tape.hs, tape.cs, tape.outputs, tape.saved, weight_hh, weight_hr, *vectors
        )
        return tape.hs[1:], None if tape.cs is None else tape.cs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dhs: Tensor | None, dcs: Tensor | None) -> tuple[Tensor | None, ...]:
        hs, cs, outputs, saved, weight_hh, weight_hr, *vectors = ctx.saved_tensors
        dhs = torch.zeros_like(hs[1:]) if dhs is None else dhs.contiguous()
        with torch.cuda.device_of(saved):
            tape = Backward.over(
                ctx.name, dhs, dcs, saved, hs, cs, weight_hh, weight_hr, tuple(vectors)
            )
            _run(tape, saved)
        dweight_hh = tape.du.flatten(0, 1).t() @ hs[:-1].flatten(0, 1)
        dweight_hr = None
        if tape.dprojected is not None:
            dweight_hr = tape.dprojected.flatten(0, 1).t() @ outputs.flatten(0, 1)
        dh = tape.dh if tape.carry is None else (tape.dh + tape.carry).to(tape.dh.dtype)
        dvectors = (rows.sum(0) for rows in tape.dvectors)
        return None, tape.dx, dh, tape.dc, dweight_hh, dweight_hr, *dvectors


def _run(tape: Forward | Backward, x: Tensor) -> None:
    if x.is_cuda and not interpreted():
        GRAPHS.run(tape)
    else:
        tape.run()
