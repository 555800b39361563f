"""A recurrent language model as an ONNX graph: sentences in, log-probabilities of their tokens out.

N sentences, T positions in the longest, V tokens, H cells.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx

from asr.errors import AsrError, ConfigError
from asr.export.graph import FLOAT, INT64, Graph
from asr.export.recurrent import CELLS, add_recurrent, to_numpy
from asr.io.onnx_session import open_graph
from asr.lm.neural import NeuralLm, load_neural
from asr.lm.onnx_lm import GRAPH, OnnxLm
from asr.text.tokens import WORD_START

TOLERANCE = 1e-3  # nats over a sentence


def export_lm(folder: Path, out: Path) -> None:
    """Write an exported folder from one of `asr.lm.neural`.

    Raises ConfigError for a cell without an operator, and AsrError if the scores differ from
    torch's.
    """
    lm = load_neural(folder)
    graph = build_lm_graph(lm)
    _check(lm, graph)
    out.mkdir()
    for name in ("lstm.json", "tokens.json"):
        shutil.copy2(folder / name, out)
    onnx.save(graph, str(out / GRAPH))


def build_lm_graph(lm: NeuralLm) -> onnx.ModelProto:
    """A graph with the inputs ids [N, T] and lengths [N], and the output scores [N, T - 1]: the
    log-probability of each token after the first."""
    if lm.cell not in CELLS:
        raise ConfigError(
            f"expected a language model of cells {', '.join(CELLS)}, got {lm.cell}, which ONNX has "
            "no operator for: train another one to export it"
        )
    graph = Graph()
    weight = to_numpy(lm.model.embedding.weight)
    last = graph.ints(-1)
    before = graph.add("Slice", "ids", graph.ints(0), last, graph.ints(1))
    after = graph.add("Slice", "ids", graph.ints(1), graph.ints(1 << 40), graph.ints(1))
    x = graph.add("Gather", graph.constant(weight), before)
    x = graph.add("Transpose", x, perm=[1, 0, 2])  # [T, N, H]
    one = graph.constant(1, np.int64)
    lengths = graph.add("Cast", graph.add("Sub", "lengths", one), to=6)  # int32
    for layer in lm.model.layers:
        x = add_recurrent(graph, layer, x, lengths)  # type: ignore[arg-type]
    x = graph.add("MatMul", x, graph.constant(weight.T))
    x = graph.add("Add", x, graph.constant(to_numpy(lm.model.bias)))
    x = graph.add("Transpose", graph.add("LogSoftmax", x, axis=-1), perm=[1, 0, 2])
    picked = graph.add("GatherElements", x, graph.add("Unsqueeze", after, graph.ints(2)), axis=2)
    graph.named(graph.add("Squeeze", picked, graph.ints(2)), "scores")
    return graph.model(
        {"ids": (INT64, ["N", "T"]), "lengths": (INT64, ["N"])},
        {"scores": (FLOAT, ["N", "U"])},
        {},
    )


def _check(lm: NeuralLm, graph: onnx.ModelProto) -> None:
    """Compare the scores of random sentences with torch's."""
    random = np.random.default_rng(1)
    characters = [unit for unit in lm.tokens.units[2:] if len(unit) == 1] or [""]
    words = ["".join(random.choice(characters, size=n)) for n in (1, 2, 5, 9)]
    words += [u.removeprefix(WORD_START) for u in lm.tokens.units[2:40] if u[:1] == WORD_START]
    sentences = ["", words[0], " ".join(words)]
    expected = lm.score(sentences)
    found = OnnxLm(open_graph(graph.SerializeToString()), lm.tokens, lm.cell).score(sentences)
    worst = max(abs(a - b) for a, b in zip(expected, found, strict=True))
    if not worst <= TOLERANCE:
        raise AsrError(
            f"expected the language model's scores of torch within {TOLERANCE:g} nats, got a "
            f"difference of {worst:.2g}: it cannot be exported; please report it"
        )
