"""ONNX graphs, opened by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.errors import CheckpointError


def open_graph(graph: str | Path | bytes, threads: int | None = None) -> Any:
    """An inference session for a file or its bytes; by default with a thread for each core.

    Raises CheckpointError for a file that is missing or no ONNX graph.
    """
    import onnxruntime

    name = "one in memory" if isinstance(graph, bytes) else str(graph)
    if not isinstance(graph, bytes) and not Path(graph).is_file():
        raise CheckpointError(f"expected {graph}, got no such file: copy the folder whole")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    # Threads that wait for work would otherwise turn in a loop, which doubles the processor time of
    # our graphs, and takes that time from the decoder and from other programs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        content = graph if isinstance(graph, bytes) else str(graph)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library has an exception of its own for each kind of failure
        words = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"expected an ONNX graph, got {name} that onnxruntime refuses ({words}): export the "
            "model again"
        ) from None
