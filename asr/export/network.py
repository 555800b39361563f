"""The acoustic model from features to log-probabilities as nodes of an ONNX graph.

The recurrent layers are the operators LSTM, GRU and RNN with lengths, which reverse every utterance
within its own length. Batch normalisation is part of the weights that follow it.

N utterances, T frames, F features, C channels, H cells, I input features, V tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.export.graph import Graph
from asr.models.acoustic import AcousticModel
from asr.models.batch_norm import MaskedBatchNorm
from asr.models.config import ModelConfig
from asr.models.recurrent import Direction, RecurrentLayer

Floats = NDArray[np.float32]


def check_exportable(config: ModelConfig) -> None:
    """Raise ConfigError naming the settings that have no ONNX operator here."""
    if config.chunk:
        raise ConfigError(
            "expected a model without chunks, got model.chunk: export it with --to sherpa, which "
            "streams"
        )
    for setting, unsupported in {
        f"model.cell {config.cell}": config.cell not in _CELLS,
        "model.conv_lstm": config.conv_lstm,
        "model.attention_heads": config.attention_heads,
    }.items():
        if unsupported:
            raise ConfigError(
                f"expected a model of cells {', '.join(_CELLS)} without conv_lstm and attention, "
                f"got {setting}, which ONNX has no operator for: train another one to export it"
            )


@dataclass(frozen=True)
class Node:
    """The names of a padded value and of its lengths. Shape: [N, T, ...], [N]."""

    values: str
    lengths: str


def add_network(graph: Graph, model: AcousticModel, features: str, lengths: str) -> list[Node]:
    """Log-probabilities, and those of the hierarchical CTC layer if there is one.

    Shape: features [N, T, F], lengths [N] int64 -> [N, T', V] each.
    """
    x, lengths = _front_end(graph, model, features, lengths)
    x = graph.add("Transpose", x, perm=[1, 0, 2])  # [T, N, F], as the recurrent operators take it
    counts = graph.add("Cast", lengths, to=6)  # int32
    spelled: list[Node] = []
    encoder: Any = model.encoder  # nn.Module types its parts as tensors or modules
    for number, layer in enumerate(encoder.layers):
        if 1 <= number <= model.config.pyramid:
            x, lengths = _joined_pairs(graph, x, lengths)
            counts = graph.add("Cast", lengths, to=6)
        y = _recurrent(graph, layer, encoder.norms[number], x, counts)
        if model.config.residual and layer.output_size == layer.ahead.weight_ih.shape[1]:
            y = graph.add("Add", x, y)
        x = y
        if number + 1 == model.config.hierarchical_ctc_layer and model.spelling is not None:
            spelled = [Node(_log_softmax(graph, model.spelling, x), lengths)]
    if encoder.lookahead is not None:
        x = _lookahead(graph, encoder.lookahead.weight, x, lengths)
    return [Node(_log_softmax(graph, model.output, x), lengths), *spelled]


def _front_end(graph: Graph, model: AcousticModel, x: str, lengths: str) -> tuple[str, str]:
    encoder: Any = model.encoder  # nn.Module types its parts as tensors or modules
    bands = model.features.size
    x = graph.add("Unsqueeze", x, graph.ints(1))  # [N, 1, T, F]
    x = _zeroed(graph, x, lengths)
    for block in encoder.front_end:
        scale, shift = _affine(block.norm)
        weight = _numpy(block.convolution.weight) * scale[:, None, None, None]
        bias = _numpy(block.convolution.bias) * scale + shift
        time, band = (1, 1) if block.pooling else (block.stride, 2)
        x = graph.add(
            "Conv",
            x,
            graph.constant(weight),
            graph.constant(bias),
            kernel_shape=[3, 3],
            strides=[time, band],
            pads=[1, 1, 1, 1],
        )
        x = graph.add("Relu", x)
        if block.pooling:
            x = _zeroed(graph, x, lengths)
            sizes = [block.stride, 2]
            x = graph.add("MaxPool", x, kernel_shape=sizes, strides=sizes, ceil_mode=1)
        lengths = _strided(graph, lengths, block.stride)
        x = _zeroed(graph, x, lengths)
        bands = (bands - 1) // 2 + 1
    width = bands * (len(block.norm.weight) if encoder.front_end else 1)
    x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    x = graph.add("Reshape", x, graph.ints(0, -1, width))
    if encoder.dense is not None:
        x = graph.add("Relu", _linear(graph, encoder.dense, x))
    return x, lengths


def _zeroed(graph: Graph, x: str, lengths: str) -> str:
    """Zeros in the padding of [N, C, T, F]."""
    mask = graph.mask(graph.size(x, 2), lengths)
    return graph.add(
        "Where", graph.add("Unsqueeze", mask, graph.ints(1, 3)), x, graph.constant(0.0)
    )


def _strided(graph: Graph, lengths: str, stride: int) -> str:
    """ceil(length / stride)."""
    if stride == 1:
        return lengths
    more = graph.add("Add", lengths, graph.constant(stride - 1, np.int64))
    return graph.add("Div", more, graph.constant(stride, np.int64))


def _joined_pairs(graph: Graph, x: str, lengths: str) -> tuple[str, str]:
    """Neighbouring frames joined in pairs. Shape: [T, N, I] -> [ceil(T / 2), N, 2 I]."""
    mask = graph.add("Transpose", graph.mask(graph.size(x, 0), lengths), perm=[1, 0])
    x = graph.add("Where", graph.add("Unsqueeze", mask, graph.ints(2)), x, graph.constant(0.0))
    odd = graph.add("Mod", graph.size(x, 0), graph.constant(2, np.int64))
    after = graph.add("Concat", graph.ints(0, 0, 0), graph.add("Reshape", odd, graph.ints(1)),
                      graph.ints(0, 0), axis=0)  # fmt: skip
    x = graph.add("Pad", x, after)
    shape = graph.add("Shape", x)
    ends = graph.add("Slice", shape, graph.ints(1), graph.ints(3))
    x = graph.add("Reshape", x, graph.add("Concat", graph.ints(-1, 2), ends, axis=0))
    x = graph.add("Transpose", x, perm=[0, 2, 1, 3])  # [T / 2, N, 2, I]
    wide = graph.add("Mul", graph.add("Slice", shape, graph.ints(2), graph.ints(3)), graph.ints(2))
    x = graph.add("Reshape", x, graph.add("Concat", graph.ints(0, 0), wide, axis=0))
    return x, _strided(graph, lengths, 2)


def _recurrent(
    graph: Graph, layer: RecurrentLayer, norm: MaskedBatchNorm, x: str, lengths: str
) -> str:
    """Shape: [T, N, I] -> [T, N, H] or [T, N, 2 H]."""
    directions = [layer.ahead] if layer.back is None else [layer.ahead, layer.back]
    operator, parts, options = _CELLS[layer.ahead.name]
    weights = [parts(direction, *_affine(norm)) for direction in directions]
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
        direction="forward" if layer.back is None else "bidirectional",
        **repeated,
    )
    y = graph.add("Transpose", y, perm=[0, 2, 1, 3])  # [T, N, directions, H]
    return graph.add("Reshape", y, graph.ints(0, 0, layer.output_size))


def _rows(
    direction: Direction, scale: Floats, shift: Floats, order: list[int]
) -> dict[str, Floats]:
    """Weights whose gates are in the order of the operator, with the normalisation of the input."""
    H = direction.hidden_size
    rows = np.concatenate([np.arange(gate * H, (gate + 1) * H) for gate in order])
    w, u = _numpy(direction.weight_ih)[rows], _numpy(direction.weight_hh)[rows]
    bias = _numpy(direction.bias)[rows] + w @ shift
    return {"W": w * scale, "R": u, "B": np.concatenate([bias, np.zeros_like(bias)])}


def _lstm(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    return _rows(direction, scale, shift, [0, 3, 1, 2])  # i, f, g, o -> i, o, f, c


def _peephole(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    p_i, p_f, p_o = np.split(_numpy(direction.peephole), 3)  # type: ignore[arg-type]
    return _lstm(direction, scale, shift) | {"P": np.concatenate([p_i, p_o, p_f])}


def _coupled(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    # i, g, o -> i, o, f, c; with input_forget the operator computes f as 1 - i.
    return _rows(direction, scale, shift, [0, 2, 0, 1])


def _gru(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    H = direction.hidden_size
    weights = _rows(direction, scale, shift, [1, 0, 2])  # r, z, n -> z, r, h
    weights["B"][-H:] = _numpy(direction.bias_n)  # type: ignore[arg-type]
    return weights


def _rnn(direction: Direction, scale: Floats, shift: Floats) -> dict[str, Floats]:
    return _rows(direction, scale, shift, [0])


_Parts = Callable[[Direction, Floats, Floats], dict[str, Floats]]
_CELLS: dict[str, tuple[str, _Parts, dict[str, Any]]] = {
    "lstm": ("LSTM", _lstm, {}),
    "peephole": ("LSTM", _peephole, {}),
    "coupled": ("LSTM", _coupled, {"input_forget": 1}),
    "gru": ("GRU", _gru, {"linear_before_reset": 1}),
    "rnn_tanh": ("RNN", _rnn, {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", _rnn, {"activations": ["Relu"]}),
}
"""The operator of each cell, its weights, and its attributes."""


def _lookahead(graph: Graph, weight: Tensor, x: str, lengths: str) -> str:
    """A convolution of each feature over the frames that follow. Shape: [T, N, F] -> the same."""
    x = graph.add("Transpose", x, perm=[1, 2, 0])  # [N, F, T]
    mask = graph.add("Unsqueeze", graph.mask(graph.size(x, 2), lengths), graph.ints(1))
    x = graph.add("Where", mask, x, graph.constant(0.0))
    kernel = _numpy(weight).T[:, None]  # [F, 1, frames]
    x = graph.add(
        "Conv",
        x,
        graph.constant(kernel),
        group=kernel.shape[0],
        kernel_shape=[kernel.shape[2]],
        pads=[0, kernel.shape[2] - 1],
    )
    return graph.add("Transpose", x, perm=[2, 0, 1])


def _log_softmax(graph: Graph, layer: nn.Linear, x: str) -> str:
    """Shape: [T, N, F] -> [N, T, V]."""
    y = graph.add("LogSoftmax", _linear(graph, layer, x), axis=-1)
    return graph.add("Transpose", y, perm=[1, 0, 2])


def _linear(graph: Graph, layer: nn.Linear, x: str) -> str:
    y = graph.add("MatMul", x, graph.constant(_numpy(layer.weight).T))
    return graph.add("Add", y, graph.constant(_numpy(layer.bias)))


def _affine(norm: MaskedBatchNorm) -> tuple[Floats, Floats]:
    """Scale and shift of a batch normalisation in evaluation. Shape: [F], [F]."""
    scale = _numpy(norm.weight) / np.sqrt(_numpy(norm.running_variance) + norm.epsilon)
    return scale, _numpy(norm.bias) - _numpy(norm.running_mean) * scale


def _numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().float().cpu().numpy()
    return array
