"""The loops over frames on a GPU: one matrix product and one Triton kernel per frame.

Forward and Backward hold all tensors of such a loop, under the names of triton_gates.py, so that it
can run on a whole batch or in a CUDA graph on copies of its frames (graphs.py).

T time, B batch, H cells, R recurrent features, G gates, K kept values.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from asr.models.cells import CELLS
from asr.models.kernels.gates import GATES
from asr.models.kernels.graphs import Parts

BLOCK = 128  # cells per program: small ones spread a small batch over the whole GPU


@dataclass(frozen=True)
class Kernels:
    """The Triton pair of a cell; GATES has its other properties."""

    forward: Any
    backward: Any
    saved: int
    """Number of multiples of H values per frame that `backward` needs. Often fewer than for the
    compiled pair on a CPU, where arithmetic is the bottleneck; here it is memory."""
    whole: bool = False
    """Whether a program must have all cells of an utterance."""
    constants: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def kernels() -> Mapping[str, Kernels]:
    """By cell. Raises ImportError if torch has no Triton (it has on Linux)."""
    from asr.models.kernels import triton_gates as gates
    from asr.models.kernels import triton_layer_norm as norm

    lstm = Kernels(gates.lstm_forward, gates.lstm_backward, 4)
    return {
        "rnn_tanh": Kernels(gates.rnn_forward, gates.rnn_backward, 1, constants={"RELU": False}),
        "rnn_relu": Kernels(gates.rnn_forward, gates.rnn_backward, 1, constants={"RELU": True}),
        "lstm": lstm,
        "projected": lstm,
        "peephole": Kernels(gates.peephole_forward, gates.peephole_backward, 4),
        "coupled": Kernels(gates.coupled_forward, gates.coupled_backward, 3),
        "gru": Kernels(gates.gru_forward, gates.gru_backward, 4),
        "light_gru": Kernels(gates.light_gru_forward, gates.light_gru_backward, 2),
        "layer_norm": Kernels(norm.layer_norm_forward, norm.layer_norm_backward, 8, whole=True),
    }


@dataclass(frozen=True)
class Forward:
    """The tensors of the loop from the first frame to the last."""

    name: str
    x: Tensor
    u: Tensor
    hs: Tensor
    cs: Tensor | None
    outputs: Tensor
    saved: Tensor
    weight_hh: Tensor
    weight_hr: Tensor | None
    vectors: tuple[Tensor, ...]

    @staticmethod
    def over(
        name: str,
        x: Tensor,
        h: Tensor,
        c: Tensor | None,
        weight_hh: Tensor,
        weight_hr: Tensor | None,
        vectors: tuple[Tensor, ...],
    ) -> Forward:
        """Shape: x [T, B, G*H], h [B, R], c [B, H], each vector [n*H]."""
        T, B, rows = x.shape
        H = rows // CELLS[name].gates
        hs, cs = x.new_empty(T + 1, *h.shape), None
        hs[0] = h
        if c is not None:
            cs = c.new_empty(T + 1, B, H)
            cs[0] = c
        outputs = hs[1:] if weight_hr is None else x.new_empty(T, B, H)
        saved = x.new_empty(T, B, kernels()[name].saved * H)
        u = x.new_empty(B, rows)
        return Forward(name, x, u, hs, cs, outputs, saved, weight_hh, weight_hr, vectors)

    @property
    def size(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1]

    def run(self) -> None:
        T, B = self.size
        H = self.outputs.shape[2]
        pair = kernels()[self.name]
        grid, constants = _launch(pair, B, H)
        cs = self.saved if self.cs is None else self.cs
        frames, outputs = self.hs.unbind(0), self.outputs.unbind(0)
        for t in range(T):
            torch.mm(frames[t], self.weight_hh.t(), out=self.u)
            pair.forward[grid](
                self.x,
                self.u,
                self.hs,
                cs,
                self.outputs,
                self.saved,
                *self.vectors,
                t,
                H,
                **constants,
            )
            if self.weight_hr is not None:
                torch.mm(outputs[t], self.weight_hr.t(), out=frames[t + 1])

    def parts(self) -> Parts:
        own = () if self.weight_hr is None else (self.outputs,)
        return Parts(
            constant=_present(self.weight_hh, self.weight_hr, *self.vectors),
            start=(self.hs[0],) if self.cs is None else (self.hs[0], self.cs[0]),
            reads=(self.x,),
            writes=_present(
                self.hs[1:], None if self.cs is None else self.cs[1:], self.saved, *own
            ),
        )

    def resized(self, T: int, B: int) -> Forward:
        return Forward.over(
            self.name,
            self.x.new_empty(T, B, self.x.shape[2]),
            self.hs.new_empty(B, self.hs.shape[2]),
            None if self.cs is None else self.cs.new_empty(B, self.cs.shape[2]),
            torch.empty_like(self.weight_hh),
            None if self.weight_hr is None else torch.empty_like(self.weight_hr),
            tuple(torch.empty_like(vector) for vector in self.vectors),
        )

    def carry_state(self) -> None:
        self.hs[0].copy_(self.hs[-1])
        if self.cs is not None:
            self.cs[0].copy_(self.cs[-1])


@dataclass(frozen=True)
class Backward:
    """The tensors of the loop from the last frame to the first."""

    name: str
    dhs: Tensor
    dcs: Tensor | None
    saved: Tensor
    hs: Tensor | None
    cs: Tensor | None
    weight_hh: Tensor
    weight_hr: Tensor | None
    vectors: tuple[Tensor, ...]
    dh: Tensor
    dc: Tensor | None
    carry: Tensor | None
    doutput: Tensor
    dvectors: tuple[Tensor, ...]
    dx: Tensor
    du: Tensor
    dprojected: Tensor | None

    @staticmethod
    def over(
        name: str,
        dhs: Tensor,
        dcs: Tensor | None,
        saved: Tensor,
        hs: Tensor | None,
        cs: Tensor | None,
        weight_hh: Tensor,
        weight_hr: Tensor | None,
        vectors: tuple[Tensor, ...],
    ) -> Backward:
        """Shape: dhs [T, B, R], dcs [T, B, H], saved [T, B, K*H], hs [T + 1, B, R],
        cs [T + 1, B, H], each vector [n*H]."""
        gates = GATES[name]
        T, B, _ = dhs.shape
        rows = len(weight_hh)
        H = rows // CELLS[name].gates
        dh = torch.zeros_like(dhs[0])
        dx = dhs.new_empty(T, B, rows)
        zeros = functools.partial(torch.zeros, dtype=torch.float32, device=dhs.device)
        return Backward(
            name,
            dhs,
            dcs,
            saved,
            hs if gates.carries else None,
            cs,
            weight_hh,
            weight_hr,
            vectors,
            dh=dh,
            dc=None if cs is None else zeros(B, H),
            carry=zeros(B, H) if gates.carries else None,
            doutput=dh if weight_hr is None else dhs.new_empty(B, H),
            dvectors=tuple(zeros(B, len(vector)) for vector in vectors),
            dx=dx,
            du=torch.empty_like(dx) if gates.own_du else dx,
            dprojected=None if weight_hr is None else torch.empty_like(dhs),
        )

    @property
    def size(self) -> tuple[int, int]:
        return self.dhs.shape[0], self.dhs.shape[1]

    def run(self) -> None:
        T, B = self.size
        H = len(self.weight_hh) // CELLS[self.name].gates
        pair = kernels()[self.name]
        grid, constants = _launch(pair, B, H)
        no = self.saved  # replaces tensors that the cell does not have
        hs, cs, dc, carry = (
            no if v is None else v for v in (self.hs, self.cs, self.dc, self.carry)
        )
        for t in reversed(range(T)):
            if self.dc is not None and self.dcs is not None:
                self.dc.add_(self.dcs[t])
            if self.dprojected is not None and self.weight_hr is not None:
                torch.add(self.dh, self.dhs[t], out=self.dprojected[t])
                torch.mm(self.dprojected[t], self.weight_hr, out=self.doutput)
            pair.backward[grid](
                self.saved,
                hs,
                cs,
                self.dhs,
                self.doutput,
                dc,
                carry,
                self.dx,
                self.du,
                *self.vectors,
                *self.dvectors,
                t,
                H,
                DIRECT=self.dprojected is None,
                **constants,
            )
            torch.mm(self.du[t], self.weight_hh, out=self.dh)

    def parts(self) -> Parts:
        own_du = None if self.du is self.dx else self.du
        state = _present(self.dh, self.dc, self.carry, *self.dvectors)
        return Parts(
            constant=_present(self.weight_hh, self.weight_hr, *self.vectors),
            start=state,
            reads=_present(self.dhs, self.dcs, self.saved, self.hs, self.cs),
            writes=_present(self.dx, own_du, self.dprojected),
            end=state,
            backward=True,
        )

    def resized(self, T: int, B: int) -> Backward:
        def sized(v: Tensor | None, frames: int) -> Tensor | None:
            return None if v is None else v.new_empty(frames, B, v.shape[2])

        return Backward.over(
            self.name,
            self.dhs.new_empty(T, B, self.dhs.shape[2]),
            sized(self.dcs, T),
            self.saved.new_empty(T, B, self.saved.shape[2]),
            sized(self.hs, T + 1),
            sized(self.cs, T + 1),
            torch.empty_like(self.weight_hh),
            None if self.weight_hr is None else torch.empty_like(self.weight_hr),
            tuple(torch.empty_like(vector) for vector in self.vectors),
        )

    def carry_state(self) -> None:
        """Copy the gradients of the state to the input of the next chunk."""


def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor is not None)


def _launch(pair: Kernels, B: int, H: int) -> tuple[tuple[int, int], dict[str, Any]]:
    """The grid of a kernel, and its compile-time constants."""
    block = max(BLOCK, 1 << (H - 1).bit_length()) if pair.whole else BLOCK
    warps = min(16, max(4, block // BLOCK))
    return (B, -(-H // block)), {"BLOCK": block, "num_warps": warps, **pair.constants}
