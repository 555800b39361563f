"""ONNX graphs, opened by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.errors import CheckpointError


def open_graph(graph: str | Path | bytes) -> Any:
    """An inference session for a file or its bytes, with one thread; several threads may run it.

    The operators of a recurrent network at one utterance are too small for several threads, which
    wait for each other: with two, a graph took twice as long.

    Raises CheckpointError for a file that is missing or no ONNX graph.
    """
    import onnxruntime

    name = "one in memory" if isinstance(graph, bytes) else str(graph)
    if not isinstance(graph, bytes) and not Path(graph).is_file():
        raise CheckpointError(f"expected {graph}, got no such file: copy the folder whole")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = 1
    try:
        content = graph if isinstance(graph, bytes) else str(graph)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has an exception of its own for each kind of failure
        words = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"expected an ONNX graph, got {name} that onnxruntime refuses ({words}): export the "
            "model again"
        ) from None
