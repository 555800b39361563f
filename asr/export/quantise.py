"""Weights in 8 bits: a quarter of the size, and faster on CPUs."""

from __future__ import annotations

import logging

import onnx


def quantised(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with the weights of the LSTM layers in 8 bits.

    Activations get their scale from the values of each call (dynamic quantisation). That scale
    spans the whole padded batch, so the graph takes one utterance at a time. Features, convolutions
    and the output layer stay float32: they are a small part of the time, and with the features in 8
    bits most words are wrong.
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
                graph, path, weight_type=QuantType.QInt8, op_types_to_quantize=["LSTM"]
            )
            small = onnx.load(path)
    finally:
        root.setLevel(level)
    for value in [*small.graph.input, *small.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return small
