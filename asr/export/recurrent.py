"""Recurrent and linear layers as nodes of an ONNX graph.

The operators LSTM, GRU and RNN take lengths: they reverse every utterance within its own length.

T frames, N utterances, H cells, I input features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.export.graph import Graph
from asr.models.batch_norm import MaskedBatchNorm
from asr.models.recurrent import Direction, RecurrentLayer

Floats = NDArray[np.float32]


def add_recurrent(
    graph: Graph,
    layer: RecurrentLayer,
    x: str,
    lengths: str,
    scale: Floats | float = 1.0,
    shift: Floats | float = 0.0,
) -> str:
    """A recurrent layer over its input times `scale` plus `shift`.

    Shape: x [T, N, I], lengths [N] int32, scale and shift [I] -> [T, N, H] or [T, N, 2 H].
    """
    I = layer.ahead.weight_ih.shape[1]
    factors, terms = (np.broadcast_to(np.float32(v), (I,)) for v in (scale, shift))
    directions = [layer.ahead] if layer.back is None else [layer.ahead, layer.back]
    operator, parts, options = CELLS[layer.ahead.name]
    weights = [parts(direction, factors, terms) for direction in directions]
    names = list(weights[0])
    inputs = {name: graph.constant(np.stack([row[name] for row in weights])) for name in names}
    peepholes = ["", "", inputs["P"]] if "P" in inputs else []
    # One activation for each direction.
    repeated: dict[str, Any] = {
        k: v * len(directions) if isinstance(v, list) else v for k, v in options.items()
    }
    y = graph.add(
        operator,
        x,
        inputs["W"],
        inputs["R"],
        inputs["B"],
        lengths,
        *peepholes,
        hidden_size=layer.ahead.hidden_size,
        direction=_direction(layer),
        **repeated,
    )
    y = graph.add("Transpose", y, perm=[0, 2, 1, 3])  # [T, N, directions, H]
    return graph.add("Reshape", y, graph.ints(0, 0, layer.output_size))


def _direction(layer: RecurrentLayer) -> str:
    if layer.back is not None:
        return "bidirectional"
    return "reverse" if layer.backward else "forward"


def _rows(
    direction: Direction, scale: Floats, shift: Floats, order: list[int]
) -> dict[str, Floats]:
    """Weights whose gates are in the order of the operator, with the normalisation of the input."""
    H = direction.hidden_size
    rows = np.concatenate([np.arange(gate * H, (gate + 1) * H) for gate in order])
    w, u = to_numpy(direction.weight_ih)[rows], to_numpy(direction.weight_hh)[rows]
    bias = to_numpy(direction.bias)[rows] + w @ shift
    return {"W": w * scale, "R": u, "B": np.concatenate([bias, np.zeros_like(bias)])}


def _lstm(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    return _rows(direction, scale, shift, [0, 3, 1, 2])  # i, f, g, o -> i, o, f, c


def _peephole(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    p_i, p_f, p_o = np.split(to_numpy(direction.peephole), 3)  # type: ignore[arg-type]
    return _lstm(direction, scale, shift) | {"P": np.concatenate([p_i, p_o, p_f])}


def _coupled(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    # i, g, o -> i, o, f, c; with input_forget the operator computes f as 1 - i.
    return _rows(direction, scale, shift, [0, 2, 0, 1])


def _gru(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    H = direction.hidden_size
    weights = _rows(direction, scale, shift, [1, 0, 2])  # r, z, n -> z, r, h
    weights["B"][-H:] = to_numpy(direction.bias_n)  # type: ignore[arg-type]
    return weights


def _rnn(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    return _rows(direction, scale, shift, [0])


_Parts = Callable[[Direction, Floats, Floats], dict[str, Floats]]
CELLS: dict[str, tuple[str, _Parts, dict[str, Any]]] = {
    "lstm": ("LSTM", _lstm, {}),
    "peephole": ("LSTM", _peephole, {}),
    "coupled": ("LSTM", _coupled, {"input_forget": 1}),
    "gru": ("GRU", _gru, {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", _rnn, {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", _rnn, {"activations": ["Relu"]}),
}
"""The operator of each cell, its weights, and its attributes."""


def add_linear(graph: Graph, layer: nn.Linear, x: str) -> str:
    y = graph.add("MatMul", x, graph.constant(to_numpy(layer.weight).T))
    return graph.add("Add", y, graph.constant(to_numpy(layer.bias)))


def affine(norm: MaskedBatchNorm) -> tuple[Floats, Floats]:
    """Scale and shift of a batch normalisation in evaluation. Shape: [F], [F]."""
    scale = to_numpy(norm.weight) / np.sqrt(to_numpy(norm.running_variance) + norm.epsilon)
    return scale, to_numpy(norm.bias) - to_numpy(norm.running_mean) * scale


def to_numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().cpu().numpy()
    return array
