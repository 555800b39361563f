"""Recurrences on a CPU, for every cell: one matrix product and one compiled pass per frame.

The gradient is hand-written. Under autograd, a loop adds an outer product per frame to the gradient
of the recurrent weights; here one product over all frames computes it after the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asr.models.cells import Cell, State, Weights
from asr.models.kernels.compiled import times
from asr.models.kernels.gates import GATES, Gates

# Up to this many rows, the compiled product takes half the time of MKL's on an AMD EPYC; with four
# rows, both take the same.
FEWEST = 2
# Up to this many rows, MKL multiplies by a transposed matrix 15 to 30 % faster.
FEW = 16


def serves(name: str, x: Tensor) -> bool:
    """Whether this path supports the cell with such an input."""
    return name in GATES and x.device.type == "cpu" and x.dtype == torch.float32


def run(name: str, cell: Cell, x: Tensor, state: State, weights: Weights) -> State:
    """The states after every frame. T time, B batch, H cells, R recurrent features, G gates.

    Shape: x [T, B, G*H], state h [B, R] and c [B, H] -> h [T, B, R] and c [T, B, H].
    """
    h, c = state if cell.memory else (state[0], None)
    vectors = [weights[vector] for vector in cell.vectors]
    hs, cs = _Recurrence.apply(
        GATES[name], x, h, c, weights["weight_hh"], weights.get("weight_hr"), *vectors
    )
    return (hs, cs) if cell.memory else (hs,)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates: Gates,
        x: Tensor,
        h: Tensor,
        c: Tensor | None,
        weight_hh: Tensor,
        weight_hr: Tensor | None,
        *vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        T, B, _ = x.shape
        H = (h if c is None else c).shape[1]
        x = x.contiguous()
        hs = x.new_empty(T + 1, *h.shape)
        # Without a memory, all frames share an unused row.
        cs = x.new_empty(1, B, H).expand(T + 1, -1, -1) if c is None else x.new_empty(T + 1, B, H)
        # Output of the gates: the output itself, or the input of the projection.
        outputs = hs[1:] if weight_hr is None else x.new_empty(T, B, H)
        needed = any(ctx.needs_input_grad)
        row = gates.saved * H + 2
        # Without a gradient, all frames share an unused row.
        saved = x.new_empty(T, B, row) if needed else x.new_empty(1, B, row).expand(T, -1, -1)
        u = x.new_empty(B, x.shape[2])
        hs[0] = h
        if c is not None:
            cs[0] = c
        frames, recur = hs.unbind(0), _product(hs, weight_hh, u)
        own = [vector.numpy() for vector in vectors]
        x_, u_, h_, c_, out_, saved_ = (v.numpy() for v in (x, u, hs, cs, outputs, saved))
        for t in range(T):
            recur(t)
            gates.forward(x_[t], u_, h_[t], c_[t], out_[t], c_[t + 1], saved_[t], *own)
            if weight_hr is not None:
                torch.mm(outputs[t], weight_hr.t(), out=frames[t + 1])
        ctx.gates = gates
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hs, cs, outputs, saved, weight_hh, weight_hr, *vectors)
        return hs[1:], cs[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dhs: Tensor | None, dcs: Tensor | None) -> tuple[Tensor | None, ...]:
        hs, cs, outputs, saved, weight_hh, weight_hr, *vectors = ctx.saved_tensors
        gates: Gates = ctx.gates
        T, B, _ = outputs.shape
        dx = saved.new_empty(T, B, weight_hh.shape[0])
        du = torch.empty_like(dx) if gates.own_du else dx
        dh, dc, carry = torch.zeros_like(hs[0]), torch.zeros_like(cs[0]), torch.zeros_like(cs[0])
        doutput = dh if weight_hr is None else torch.empty_like(cs[0])
        dprojected = None if weight_hr is None else torch.empty_like(hs[1:])
        dvectors = [torch.zeros_like(vector) for vector in vectors]
        own = [vector.numpy() for vector in (*vectors, *dvectors)]
        h_, c_, saved_, dx_, du_ = (v.numpy() for v in (hs, cs, saved, dx, du))
        state_ = doutput.numpy(), dc.numpy()
        carry_, recur = carry.numpy(), _product(du, weight_hh.t(), dh)
        for t in reversed(range(T)):
            if dhs is not None:
                dh += dhs[t]
            if dcs is not None:
                dc += dcs[t]
            if dprojected is not None:
                dprojected[t] = dh
                torch.mm(dh, weight_hr, out=doutput)
            gates.backward(
                saved_[t], h_[t], c_[t], c_[t + 1], *state_, dx_[t], du_[t], carry_, *own
            )
            recur(t)
            if gates.carries:
                dh += carry
        dweight_hh = du.flatten(0, 1).t() @ hs[:-1].flatten(0, 1)
        dweight_hr = (
            None if dprojected is None else dprojected.flatten(0, 1).t() @ outputs.flatten(0, 1)
        )
        dc0 = dc if ctx.needs_input_grad[3] else None
        return None, dx, dh, dc0, dweight_hh, dweight_hr, *dvectors


def _product(rows: Tensor, weight: Tensor, out: Tensor) -> Callable[[int], object]:
    """A function of t that computes out = rows[t] @ weight.T, the fastest way for this batch.

    Shape: rows [T, B, R], weight [N, R], out [B, N].
    """
    B = len(out)
    if B <= FEWEST:
        rows_, weight_, out_ = rows.numpy(), weight.contiguous().numpy(), out.numpy()
        return lambda t: times(rows_[t], weight_, out_)
    frames, turned = rows.unbind(0), weight.t()
    if B <= FEW:
        turned = turned.contiguous()
    return lambda t: torch.mm(frames[t], turned, out=out)
