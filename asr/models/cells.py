"""One time step of every recurrent cell, in the notation of its paper.

These are the references: the fast paths (`asr/models/kernels`) must have the same outputs and
gradients. B batch, H hidden cells, R recurrent features (H; fewer for a cell with projection), G
gates: the weights are G blocks of H rows.

The input of a step is
    x      [B, G*H]  the contribution of the input to every gate, with bias, computed for all frames
    state  h [B, R], and c [B, H] for a cell with a memory
    w      the cell's own weights by name; `w["weight_hh"]` is [G*H, R]
The step returns the next state, whose first part, h, is the cell's output. In the docstrings x_i,
x_f and so on are the rows of x, U_i, U_f those of weight_hh, s is the logistic function, and * is
the elementwise product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

State = tuple[Tensor, ...]
Weights = Mapping[str, Tensor]
Step = Callable[[Tensor, State, Weights], State]


def rnn_tanh(x: Tensor, state: State, w: Weights) -> State:
    """h' = tanh(x + U h) (Elman 1990, "Finding structure in time")."""
    (h,) = state
    return (torch.tanh(x + h @ w["weight_hh"].T),)


def rnn_relu(x: Tensor, state: State, w: Weights) -> State:
    """h' = max(0, x + U h) (Le et al. 2015, "A simple way to initialize recurrent networks")."""
    (h,) = state
    return (torch.relu(x + h @ w["weight_hh"].T),)


def lstm(x: Tensor, state: State, w: Weights) -> State:
    """Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers et al. 2000).

    i = s(x_i + U_i h)    f = s(x_f + U_f h)    g = tanh(x_g + U_g h)    o = s(x_o + U_o h)
    c' = f * c + i * g    h' = o * tanh(c')
    """
    h, c = state
    i, f, g, o = (x + h @ w["weight_hh"].T).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(x: Tensor, state: State, w: Weights) -> State:
    """Gated recurrent unit (Cho et al. 2014), with the reset after the product as in cuDNN.

    r = s(x_r + U_r h)    z = s(x_z + U_z h)    n = tanh(x_n + r * (U_n h + b))
    h' = (1 - z) * n + z * h    with b = w["bias_n"] [H]
    """
    (h,) = state
    u_r, u_z, u_n = (h @ w["weight_hh"].T).chunk(3, dim=1)
    x_r, x_z, x_n = x.chunk(3, dim=1)
    z = torch.sigmoid(x_z + u_z)
    n = torch.tanh(x_n + torch.sigmoid(x_r + u_r) * (u_n + w["bias_n"]))
    return ((1 - z) * n + z * h,)


def peephole(x: Tensor, state: State, w: Weights) -> State:
    """LSTM whose gates depend on the memory (Gers and Schmidhuber 2000, "Recurrent nets that time
    and count"): s(x_i + U_i h + p_i * c), the same for f, and for o with c' instead of c.

    p_i, p_f, p_o are the thirds of w["peephole"] [3 H].
    """
    h, c = state
    i, f, g, o = (x + h @ w["weight_hh"].T).chunk(4, dim=1)
    p_i, p_f, p_o = w["peephole"].chunk(3)
    c_next = torch.sigmoid(f + p_f * c) * c + torch.sigmoid(i + p_i * c) * torch.tanh(g)
    return torch.sigmoid(o + p_o * c_next) * torch.tanh(c_next), c_next


def layer_norm_lstm(x: Tensor, state: State, w: Weights) -> State:
    """LSTM with normalised sums (Ba et al. 2016, "Layer normalization", eq. 20 to 22).

    The four rows of U h are normalised together, N(v) = (v - mean) / deviation; so is the memory at
    the output. x is already normalised; its bias replaces all three of the paper.
    i, f, g, o as in an LSTM, from x + gain_h * N(U h)    h' = o * tanh(gain_c * N(c') + bias_c)
    """
    h, c = state
    u = functional.layer_norm(h @ w["weight_hh"].T, x.shape[1:]) * w["gain_h"]
    i, f, g, o = (x + u).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    shown = functional.layer_norm(c, c.shape[1:]) * w["gain_c"] + w["bias_c"]
    return torch.sigmoid(o) * torch.tanh(shown), c


def projected(x: Tensor, state: State, w: Weights) -> State:
    """LSTM with fewer output features than cells (Sak et al. 2014, "Long short-term memory based
    recurrent neural network architectures for large vocabulary speech recognition", eq. 7).

    An LSTM's step gives m [B, H]; h' = P m with P = w["weight_hr"] [R, H].
    """
    m, c = lstm(x, state, w)
    return m @ w["weight_hr"].T, c


def coupled(x: Tensor, state: State, w: Weights) -> State:
    """LSTM with coupled input and forget gates (Greff et al. 2017, "LSTM: a search space odyssey").

    i = s(x_i + U_i h)    g = tanh(x_g + U_g h)    o = s(x_o + U_o h)
    c' = (1 - i) * c + i * g    h' = o * tanh(c')
    """
    h, c = state
    i, g, o = (x + h @ w["weight_hh"].T).chunk(3, dim=1)
    i = torch.sigmoid(i)
    c = (1 - i) * c + i * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def light_gru(x: Tensor, state: State, w: Weights) -> State:
    """GRU without a reset gate (Ravanelli et al. 2018, "Light gated recurrent units for speech
    recognition", eq. 9); x is batch-normalised over the frames of the batch.

    z = s(x_z + U_z h)    n = max(0, x_n + U_n h)    h' = z * h + (1 - z) * n
    """
    (h,) = state
    z, n = (x + h @ w["weight_hh"].T).chunk(2, dim=1)
    z = torch.sigmoid(z)
    return (z * h + (1 - z) * torch.relu(n),)


@dataclass(frozen=True)
class Cell:
    """The properties of a cell that a layer needs to hold its weights and run it."""

    step: Step
    gates: int
    """Number of gates, each a block of H rows in weight_ih and weight_hh."""
    memory: bool = True
    """Whether the state has a c besides h."""
    forget_gate: int | None = None
    """The row of the forget gate, which starts open."""
    vectors: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Further weights by name: their size in multiples of H, and their initial value."""
    input_norm: Literal["layer", "batch"] | None = None
    """Normalisation of the input's contribution."""
    projects: bool = False
    """Whether h is a projection of the cell's output to R features."""


CELLS: Mapping[str, Cell] = {
    "rnn_tanh": Cell(rnn_tanh, 1, memory=False),
    "rnn_relu": Cell(rnn_relu, 1, memory=False),
    "lstm": Cell(lstm, 4, forget_gate=1),
    "gru": Cell(gru, 3, memory=False, vectors={"bias_n": (1, 0.0)}),
    "peephole": Cell(peephole, 4, forget_gate=1, vectors={"peephole": (3, 0.0)}),
    "layer_norm": Cell(
        layer_norm_lstm,
        4,
        forget_gate=1,
        vectors={"gain_h": (4, 1.0), "gain_c": (1, 1.0), "bias_c": (1, 0.0)},
        input_norm="layer",
    ),
    "projected": Cell(projected, 4, forget_gate=1, projects=True),
    "coupled": Cell(coupled, 3),
    "light_gru": Cell(light_gru, 2, memory=False, input_norm="batch"),
}
