"""An ONNX graph under construction: nodes, constants, and masks from lengths.

N utterances, T frames. Every value is referred to by its name, a str.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from asr import __version__

OPSET = 17  # the newest that all runtimes in use know: onnxruntime 1.12 of 2022
IR_VERSION = 8  # the one of that time
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Shape = tuple[int, Sequence[int | str]]
"""The element type of an input or output, and its dimensions, by name if they vary."""


class Graph:
    """Nodes are added in order; each call of `add` returns the name of its first output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._count = 0

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant tensor; equal small ones are stored once."""
        array = np.ascontiguousarray(value, dtype)
        key = f"{array.dtype}_{array.shape}_{array.tolist()}" if array.size <= 8 else ""
        for name, known in self._constants.items():
            if key and known.doc_string == key:
                return name
        name = f"c{len(self._constants)}"
        tensor = numpy_helper.from_array(array, name)
        tensor.doc_string = key
        self._constants[name] = tensor
        return name

    def ints(self, *values: int) -> str:
        """A constant vector of int64, such as axes or a shape."""
        return self.constant(values, np.int64)

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node. Further outputs are named by `also`; an empty input is left out."""
        self._count += 1
        name = f"n{self._count}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return name

    def also(self, name: str, output: int) -> str:
        """The name of a further output of the node whose first output is `name`."""
        return f"{name}_{output}"

    def named(self, value: str, name: str) -> None:
        """Give a value the name of a graph output."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))

    def size(self, value: str, axis: int) -> str:
        """The length of a value along an axis, as a scalar."""
        return self.add("Gather", self.add("Shape", value), self.constant(axis, np.int64))

    def mask(self, frames: str, lengths: str) -> str:
        """True for real frames. Shape: scalar T, [N] -> [N, T] bool."""
        positions = self.add(
            "Range", self.constant(0, np.int64), frames, self.constant(1, np.int64)
        )
        return self.add("Less", positions, self.add("Unsqueeze", lengths, self.ints(1)))

    def model(
        self,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """The finished model. `inputs` and `outputs` have element types and shapes by name."""
        for tensor in self._constants.values():
            tensor.ClearField("doc_string")
        graph = helper.make_graph(
            self._nodes,
            "asr",
            [helper.make_tensor_value_info(k, t, list(s)) for k, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(k, t, list(s)) for k, (t, s) in outputs.items()],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="asr",
            producer_version=__version__,
        )
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model
