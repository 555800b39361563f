"""The acoustic model from features to log-probabilities as nodes of an ONNX graph.

Batch normalisation is part of the weights that follow it.

N utterances, T frames, F features, C channels, H cells, I input features, V tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.export.graph import Graph
from asr.export.recurrent import CELLS, add_linear, add_recurrent, affine, to_numpy
from asr.models.acoustic import AcousticModel
from asr.models.config import ModelConfig


def check_exportable(config: ModelConfig) -> None:
    """Raise ConfigError naming the settings that have no ONNX operator here."""
    if config.chunk:
        raise ConfigError(
            "expected a model without chunks, got model.chunk: export it with --to sherpa, which "
            "streams"
        )
    for setting, unsupported in {
        f"model.cell {config.cell}": config.cell not in CELLS,
        "model.zoneout": config.zoneout,
        "model.conv_lstm": config.conv_lstm,
        "model.attention_heads": config.attention_heads,
    }.items():
        if unsupported:
            raise ConfigError(
                f"expected a model of cells {', '.join(CELLS)} without zoneout, conv_lstm and "
                f"attention, got {setting}, which ONNX has no operator for: train another one to "
                "export it"
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
        y = add_recurrent(graph, layer, x, counts, *affine(encoder.norms[number]))
        if model.config.residual and layer.output_size == layer.ahead.weight_ih.shape[1]:
            y = graph.add("Add", x, y)
        x = add_between(graph, model, number + 1, y)
        if number + 1 == model.config.hierarchical_ctc_layer and model.spelling is not None:
            spelled = [Node(_log_softmax(graph, model.spelling, y), lengths)]
    if encoder.lookahead is not None:
        x = _lookahead(graph, encoder.lookahead.weight, x, lengths)
    return [Node(_log_softmax(graph, model.output, x), lengths), *spelled]


def add_between(graph: Graph, model: AcousticModel, number: int, x: str) -> str:
    """The input of the next layer, as `AcousticModel.between`. Shape: [T, N, F] -> the same."""
    if model.conditioning is None or number not in model.config.intermediate_ctc:
        return x
    probabilities = graph.add("Softmax", add_linear(graph, model.output, x), axis=-1)
    weight = graph.constant(to_numpy(model.conditioning.weight).T)
    return graph.add("Add", x, graph.add("MatMul", probabilities, weight))


def _front_end(graph: Graph, model: AcousticModel, x: str, lengths: str) -> tuple[str, str]:
    encoder: Any = model.encoder  # nn.Module types its parts as tensors or modules
    bands = model.features.size
    x = graph.add("Unsqueeze", x, graph.ints(1))  # [N, 1, T, F]
    x = _zeroed(graph, x, lengths)
    for block in encoder.front_end:
        scale, shift = affine(block.norm)
        weight = to_numpy(block.convolution.weight) * scale[:, None, None, None]
        bias = to_numpy(block.convolution.bias) * scale + shift
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
        x = graph.add("Relu", add_linear(graph, encoder.dense, x))
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


def _lookahead(graph: Graph, weight: Tensor, x: str, lengths: str) -> str:
    """A convolution of each feature over the frames that follow. Shape: [T, N, F] -> the same."""
    x = graph.add("Transpose", x, perm=[1, 2, 0])  # [N, F, T]
    mask = graph.add("Unsqueeze", graph.mask(graph.size(x, 2), lengths), graph.ints(1))
    x = graph.add("Where", mask, x, graph.constant(0.0))
    kernel = to_numpy(weight).T[:, None]  # [F, 1, frames]
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
    y = graph.add("LogSoftmax", add_linear(graph, layer, x), axis=-1)
    return graph.add("Transpose", y, perm=[1, 0, 2])
