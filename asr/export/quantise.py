"""Weights in 8 bits: a quarter of the size, and faster on CPUs."""

from __future__ import annotations

import logging

import onnx


def quantised(graph: onnx.ModelProto, alone: bool = True) -> onnx.ModelProto:
    """The same graph with the weights of the LSTM layers in 8 bits.

    Activations get their scale from the values of each call (dynamic quantisation). That scale
    spans the whole padded batch, so by default the graph takes one utterance at a time. Features,
    convolutions and the output layer stay float32: they are a small part of the time, and with the
    features in 8 bits most words are wrong.

    Weights have a scale for each output and use 7 of their 8 bits. Where a processor has AVX2 but
    no VNNI, onnxruntime adds two products in 16 bits, which the eighth bit would overflow (its page
    on quantisation; reduce_range). The scores are the same on every processor then.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the library advises to preprocess the graph, which is not needed
    try:
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            quantize_dynamic(
                _with_own_weights(graph),
                path,
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                op_types_to_quantize=["LSTM"],
            )
            small = onnx.load(path)
    finally:
        root.setLevel(level)
    _share_equal_weights(small)
    for value in [*small.graph.input, *small.graph.output] if alone else []:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return small


def _with_own_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no two LSTMs share weights: onnxruntime (1.32) would transpose them twice."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    used: set[str] = set()
    for node in copy.graph.node:
        if node.op_type != "LSTM":
            continue
        for place in (1, 2):  # W, R
            name = node.input[place]
            if name in used:
                own = copy.graph.initializer.add()
                own.CopyFrom(weights[name])
                own.name = node.input[place] = f"{name}_of_{node.output[0]}"
            used.add(name)
    return copy


def _share_equal_weights(graph: onnx.ModelProto) -> None:
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for tensor in graph.graph.initializer:
        nameless = onnx.TensorProto()
        nameless.CopyFrom(tensor)
        nameless.name = ""
        same[tensor.name] = first.setdefault(nameless.SerializeToString(), tensor.name)
    kept = [tensor for tensor in graph.graph.initializer if same[tensor.name] == tensor.name]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(kept)
    for node in graph.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
