"""A streaming network as one ONNX graph, which is run once for each chunk.

The inputs and outputs are those of NeMo's streaming CTC models in sherpa-onnx. Caches carry what a
chunk needs of the earlier ones:

cache_last_channel      [N, layers, states, H]: the states of the forward direction
cache_last_time         [N, 1, before, F]: features before the chunk, for the convolutions
cache_last_channel_len  [N]: encoder frames so far

At the beginning all are zero. Convolutions of the whole utterance have zeros before its start in
every layer; the number of frames so far tells where that is.

N streams, T feature frames, M encoder frames with context, F features, H cells, V tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from asr.errors import ConfigError
from asr.export import network
from asr.export.features import add_device_features
from asr.export.graph import FLOAT, INT64, Graph, Shape
from asr.export.onnx_folder import metadata
from asr.export.recurrent import CELLS, add_linear, affine, to_numpy
from asr.inference.streaming import chunk_size
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.models.recurrent import Direction, RecurrentLayer

CHUNK_SECONDS = 0.32  # of one direction, which has no chunks of its own


@dataclass(frozen=True)
class Chunks:
    """The sizes of a call, in encoder frames and in feature frames."""

    frames: int
    """Encoder frames of a chunk."""
    context: int
    """Encoder frames after it."""
    stride: int
    """Feature frames of an encoder frame."""
    befores: tuple[int, ...]
    """Frames before the chunk that the input of each convolution, and the last output, hold."""
    after: int
    """Feature frames after the first one of an encoder frame that it depends on."""

    @property
    def shift(self) -> int:
        """Feature frames from one call to the next."""
        return self.frames * self.stride

    @property
    def needed(self) -> int:
        """Feature frames of a chunk and its context."""
        return (self.frames + self.context - 1) * self.stride + self.after + 1

    @property
    def window(self) -> int:
        """Feature frames of a call."""
        return max(self.needed, self.shift)


def chunks_of(model: AcousticModel) -> Chunks:
    """The chunks of a model that can stream."""
    config = model.config
    stride = math.prod(config.strides)
    frame = model.features.shift * stride / model.features.config.sample_rate
    befores, after = [0], 0
    for step in reversed(config.strides):
        befores.append(step * befores[-1] + 1)
        after = step * after + (step if config.pooling else 1)
    frames = chunk_size(config) or max(1, round(CHUNK_SECONDS / frame))
    context = config.right_context if config.chunk else config.lookahead
    return Chunks(frames, context, stride, tuple(reversed(befores)), after)


def tail_seconds(model: AcousticModel) -> float:
    """Silence after which the last sound of a stream has been decoded: sherpa-onnx decodes whole
    windows only."""
    frames = chunks_of(model).window + 3  # the next frame, and those that overlap the end
    return math.ceil(10 * frames * model.features.shift / model.features.config.sample_rate) / 10


def check_exportable(model: AcousticModel) -> None:
    """Raise ConfigError naming settings that the graph does not compute."""
    config = model.config
    if isinstance(config.chunk, tuple):
        raise ConfigError(
            f"expected one chunk size to stream, got model.chunk {list(config.chunk)}: choose a "
            "delay (--delay)"
        )
    network.check_exportable(config.model_copy(update={"chunk": 0}))
    if config.chunk and config.lookahead:
        raise ConfigError(
            "expected model.chunk or model.lookahead, got both: train a model with one of them to "
            "export it"
        )


def build_streaming_graph(bundle: Bundle) -> onnx.ModelProto:
    """Inputs audio_signal [N, F, T], length [N] and the caches; outputs log_probs [N, frames, V],
    frames [N] and the next caches."""
    model, graph = bundle.model, Graph()
    check_exportable(model)
    sizes = chunks_of(model)
    encoder: Any = model.encoder  # nn.Module types its parts as tensors or modules
    x = graph.add("Transpose", "audio_signal", perm=[0, 2, 1])
    x = add_device_features(graph, model.features, x)
    x, time = _remembered(graph, x, sizes)
    x = _front_end(graph, model, x, sizes)
    states = []
    for number, layer in enumerate(encoder.layers):
        before = _states(graph, number, _state_count(layer))
        y, after = _layer(graph, layer, encoder.norms[number], x, sizes, before)
        states.append(graph.add("Concat", *(_stacked(graph, part) for part in after), axis=2))
        residual = model.config.residual and layer.output_size == layer.ahead.weight_ih.shape[1]
        y = graph.add("Add", x, y) if residual else y
        x = network.add_between(graph, model, number + 1, y)
    if encoder.lookahead is not None:
        x = _lookahead(graph, to_numpy(encoder.lookahead.weight), x)
    x = _part(graph, x, 0, sizes.frames, axis=0)
    scores = graph.add("LogSoftmax", add_linear(graph, model.output, x), axis=-1)
    graph.named(graph.add("Transpose", scores, perm=[1, 0, 2]), "log_probs")
    count = graph.constant(sizes.frames, np.int64)
    zeros = graph.add("Mul", "length", graph.constant(0, np.int64))
    graph.named(graph.add("Add", zeros, count), "frames")
    channel = graph.add("Concat", *states, axis=1) if len(states) > 1 else states[0]
    graph.named(channel, "next_channel")
    graph.named(time, "next_time")
    graph.named(graph.add("Add", "cache_last_channel_len", count), "next_channel_len")
    return graph.model(*_interface(bundle, sizes))


def _interface(
    bundle: Bundle, sizes: Chunks
) -> tuple[dict[str, Shape], dict[str, Shape], dict[str, str]]:
    """Inputs, outputs and metadata."""
    model = bundle.model
    layer: Any = model.encoder.layers[0]
    before = max(1, sizes.befores[0])
    channel = (model.config.layers, _state_count(layer), layer.ahead.hidden_size)
    time = (1, before, model.features.size)
    caches: list[Shape] = [
        (FLOAT, ["N", *channel]), (FLOAT, ["N", *time]), (INT64, ["N"])
    ]  # fmt: skip
    signal: Shape = (FLOAT, ["N", model.features.size, sizes.window])
    inputs = {"audio_signal": signal, "length": (INT64, ["N"])}
    names = ["channel", "time", "channel_len"]
    inputs |= {f"cache_last_{name}": shape for name, shape in zip(names, caches, strict=True)}
    scores: Shape = (FLOAT, ["N", sizes.frames, len(bundle.tokens)])
    outputs = {"log_probs": scores, "frames": (INT64, ["N"])}
    outputs |= {f"next_{name}": shape for name, shape in zip(names, caches, strict=True)}
    facts = {
        "window_size": sizes.window,
        "chunk_shift": sizes.shift,
        "vocab_size": len(bundle.tokens) - 1,  # without the blank
    }
    facts |= {f"cache_last_channel_dim{i}": size for i, size in enumerate(channel, 1)}
    facts |= {f"cache_last_time_dim{i}": size for i, size in enumerate(time, 1)}
    return inputs, outputs, metadata(bundle) | {k: str(v) for k, v in facts.items()}


def _remembered(graph: Graph, x: str, sizes: Chunks) -> tuple[str, str]:
    """Features with those before the chunk, and what the next call needs of them.

    Shape: [N, T, F] -> [N, before + needed, F], [N, 1, before, F].
    """
    before = sizes.befores[0]
    cached = graph.add("Squeeze", "cache_last_time", graph.ints(1))
    if not before:
        return _part(graph, x, 0, sizes.needed), "cache_last_time"
    x = graph.add("Concat", cached, x, axis=1)
    kept = _part(graph, x, sizes.shift, sizes.shift + before)
    return _part(graph, x, 0, before + sizes.needed), graph.add("Unsqueeze", kept, graph.ints(1))


def _part(graph: Graph, x: str, start: int, end: int, axis: int = 1) -> str:
    return graph.add("Slice", x, graph.ints(start), graph.ints(end), graph.ints(axis))


def _front_end(graph: Graph, model: AcousticModel, x: str, sizes: Chunks) -> str:
    """Shape: [N, before + needed, F] -> [M, N, width]."""
    encoder: Any = model.encoder
    bands, stride = model.features.size, sizes.stride
    length = sizes.befores[0] + sizes.needed
    x = graph.add("Unsqueeze", x, graph.ints(1))  # [N, 1, T, F]
    for number, block in enumerate(encoder.front_end):
        scale, shift = affine(block.norm)
        weight = to_numpy(block.convolution.weight) * scale[:, None, None, None]
        bias = to_numpy(block.convolution.bias) * scale + shift
        strides = [1, 1] if block.pooling else [block.stride, 2]
        # No zeros before and after the frames: their neighbours are there.
        x = graph.add("Conv", x, graph.constant(weight), graph.constant(bias),
                      kernel_shape=[3, 3], strides=strides, pads=[0, 1, 0, 1])  # fmt: skip
        x = graph.add("Relu", x)
        if block.pooling:
            patch = [block.stride, 2]
            x = graph.add("MaxPool", x, kernel_shape=patch, strides=patch, ceil_mode=1)
        length = (length - 2) // block.stride if block.pooling else (length - 3) // block.stride + 1
        stride //= block.stride
        x = _from_start(graph, x, length, sizes.befores[number + 1], stride)
        bands = (bands - 1) // 2 + 1
    width = bands * (len(block.norm.weight) if encoder.front_end else 1)
    x = graph.add("Transpose", x, perm=[2, 0, 3, 1])
    x = graph.add("Reshape", x, graph.ints(0, 0, width))
    if encoder.dense is not None:
        x = graph.add("Relu", add_linear(graph, encoder.dense, x))
    return x


def _from_start(graph: Graph, x: str, length: int, before: int, stride: int) -> str:
    """Zeros before the utterance. Shape: [N, C, T, F], `before` frames of it before the chunk."""
    places = graph.constant(np.arange(length) - before, np.int64)
    done = graph.add("Mul", "cache_last_channel_len", graph.constant(stride, np.int64))
    places = graph.add("Add", graph.add("Unsqueeze", done, graph.ints(1)), places)
    inside = graph.add("GreaterOrEqual", places, graph.constant(0, np.int64))
    inside = graph.add("Unsqueeze", inside, graph.ints(1, 3))
    return graph.add("Where", inside, x, graph.constant(0.0))


def _states(graph: Graph, layer: int, count: int) -> list[str]:
    """The cached states of a layer. Shape: [1, N, H] each."""
    mine = _part(graph, "cache_last_channel", layer, layer + 1)  # [N, 1, states, H]
    parts = (_part(graph, mine, i, i + 1, axis=2) for i in range(count))
    squeezed = (graph.add("Squeeze", part, graph.ints(2)) for part in parts)
    return [graph.add("Transpose", part, perm=[1, 0, 2]) for part in squeezed]


def _stacked(graph: Graph, state: str) -> str:
    """Shape: [1, N, H] -> [N, 1, 1, H]."""
    return graph.add("Unsqueeze", graph.add("Transpose", state, perm=[1, 0, 2]), graph.ints(2))


def _state_count(layer: RecurrentLayer) -> int:
    return len(layer.ahead.initial_state(1))


def _layer(
    graph: Graph, layer: RecurrentLayer, norm: Any, x: str, sizes: Chunks, before: list[str]
) -> tuple[str, list[str]]:
    """Outputs over a chunk and its context, and the states after the chunk.

    The forward direction goes on from the states before; the backward one begins at the end of the
    context. Shape: [M, N, I] -> [M, N, H] or [M, N, 2 H].
    """
    scale, shift = affine(norm)
    ahead = _Pass(graph, layer.ahead, scale, shift)
    y, after = ahead.run(_part(graph, x, 0, sizes.frames, axis=0), before)
    if sizes.context:
        rest = _part(graph, x, sizes.frames, sizes.frames + sizes.context, axis=0)
        y = graph.add("Concat", y, ahead.run(rest, after)[0], axis=0)
    if layer.back is not None:
        back, _ = _Pass(graph, layer.back, scale, shift).run(x, [], backward=True)
        y = graph.add("Concat", y, back, axis=2)
    return y, after


class _Pass:
    """The weights of a direction, for several passes."""

    def __init__(self, graph: Graph, direction: Direction, scale: Any, shift: Any) -> None:
        self._graph, self._size = graph, direction.hidden_size
        self._operator, parts, self._options = CELLS[direction.name]
        weights = parts(direction, scale, shift)
        self._weights = {name: graph.constant(value[None]) for name, value in weights.items()}

    def run(self, x: str, states: list[str], backward: bool = False) -> tuple[str, list[str]]:
        """Outputs and the states after. Shape: [T, N, I] -> [T, N, H]."""
        graph, lstm = self._graph, self._operator == "LSTM"
        given = [*states, *[""] * (1 + lstm - len(states))]
        peephole = [self._weights["P"]] if "P" in self._weights else []
        y = graph.add(
            self._operator,
            x,
            *(self._weights[name] for name in "WRB"),
            "",
            *given,
            *peephole,
            outputs=2 + lstm,
            hidden_size=self._size,
            direction="reverse" if backward else "forward",
            **self._options,
        )
        after = [graph.also(y, i) for i in range(1, 2 + lstm)]
        return graph.add("Squeeze", y, graph.ints(1)), after


def _lookahead(graph: Graph, weight: Any, x: str) -> str:
    """Shape: weight [L + 1, F], x [frames + L, N, F] -> [frames, N, F]."""
    kernel = weight.T[:, None]
    x = graph.add("Transpose", x, perm=[1, 2, 0])
    x = graph.add("Conv", x, graph.constant(kernel), group=kernel.shape[0],
                  kernel_shape=[kernel.shape[2]])  # fmt: skip
    return graph.add("Transpose", x, perm=[2, 0, 1])
