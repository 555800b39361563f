"""`asr export --to onnx`: a model folder whose network is an ONNX graph.

model.onnx       samples (or features) and lengths in, log-probabilities out
config.json, tokens.json, decoder.json, lm/, lexicon.txt    as in the model folder
lstm/            the recurrent language model, with model.onnx in place of its weights
info.json        the facts of the model, and those of the export

N utterances, S samples, T frames, F features, V tokens.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from asr.errors import AsrError
from asr.export import features as feature_nodes
from asr.export import network
from asr.export.check import Comparison, compare_words
from asr.export.graph import FLOAT, INT64, Graph, Shape
from asr.export.language_model import export_lm
from asr.export.quantise import quantised
from asr.inference.onnx_model import GRAPH, Floats, LogProbs, run_graph
from asr.inference.streaming import fix_chunk
from asr.io.files import atomic_path, check_replaceable, write_json
from asr.io.model_files import read_facts
from asr.io.onnx_session import open_graph
from asr.lm.encoding import is_neural
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, load_bundle, others_files, saved_config
from asr.models.files import OTHER_FILES, PARTS
from asr.padded import pad

TOLERANCE = 1e-4  # nats
FAINTEST = -15.0  # nats; a decoder does not distinguish probabilities below


@dataclass(frozen=True)
class Exported:
    """A written folder: its size, and the largest difference from torch in nats."""

    folder: Path
    megabytes: float
    difference: float
    comparison: Comparison | None = None
    rescored: bool = False
    """Whether the model's decoder used its attention decoder, which the graph leaves out."""


def export_onnx(
    model: Path,
    out: Path,
    waveform: bool = True,
    int8: bool = False,
    check: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write the folder atomically.

    With `check`, a manifest, the error rates of model and graph are compared first, with calls of
    `progress`. A model whose `model.chunk` is a range is exported for whole recordings.

    Raises ConfigError for settings without an ONNX operator, and AsrError if the
    graph's output is not that of torch.
    """
    bundle = load_bundle(model)
    if isinstance(bundle.model.config.chunk, tuple):
        fix_chunk(bundle.model, 0)
    check_replaceable(out, GRAPH, {GRAPH, *OTHER_FILES, *PARTS})
    graph = build_graph(bundle, waveform)
    difference = check_parity(bundle.model, graph, waveform)
    if int8:
        graph = quantised(graph)
    comparison = None
    if check is not None:
        comparison = _compare(bundle, graph, waveform, check, progress)
    with atomic_path(out) as temporary:
        temporary.mkdir()
        onnx.save(graph, str(temporary / GRAPH))
        write_json(temporary / "config.json", saved_config(bundle))
        shutil.copy2(model / "tokens.json", temporary)
        facts: dict[str, Any] = {
            "difference": difference,
            "int8": int8,
            "input": _input(waveform),
        }
        if comparison is not None:
            facts["check"] = str(comparison)
        write_json(temporary / "info.json", bundle.info | {"export": facts})
        for path in others_files(model):
            if is_neural(path):
                export_lm(path, temporary / path.name)
            elif path.is_dir():
                shutil.copytree(path, temporary / path.name)
            else:
                shutil.copy2(path, temporary)
        rescored = _without_attention(temporary / "decoder.json")
    size = (out / GRAPH).stat().st_size / 1e6
    return Exported(out, size, difference, comparison, rescored)


def _without_attention(decoder: Path) -> bool:
    """Set the weight of the attention decoder in these settings to 0; whether it was another."""
    if not decoder.is_file():
        return False
    settings = read_facts(decoder)
    if not settings.get("attention_weight"):
        return False
    write_json(decoder, settings | {"attention_weight": 0.0})
    return True


def _compare(
    bundle: Bundle,
    graph: onnx.ModelProto,
    waveform: bool,
    manifest: Path,
    progress: Callable[[int, int], None],
) -> Comparison:
    session = open_graph(graph.SerializeToString())

    def inputs(waves: Sequence[Floats]) -> list[Floats]:
        if waveform:
            return list(waves)
        batch = pad([torch.from_numpy(wave) for wave in waves])
        with torch.inference_mode():
            return [row.numpy() for row in bundle.model.features(batch).unpad()]

    return compare_words(
        bundle,
        lambda waves: torch_scores(bundle.model, waves, waveform=True),
        lambda waves: run_graph(session, inputs(waves)),
        manifest,
        progress,
    )


def _input(waveform: bool) -> str:
    return "samples" if waveform else "features"


def build_graph(bundle: Bundle, waveform: bool = True) -> onnx.ModelProto:
    """The network as a graph with the inputs samples [N, S] (or features [N, T, F]) and lengths
    [N], and the outputs log_probs [N, T', V], frames [N] and, with a hierarchical CTC layer,
    spelled [N, T'', V] and spelled_frames [N].

    Raises ConfigError naming settings that have no ONNX operator.
    """
    model = bundle.model
    network.check_exportable(model.config)
    feature_nodes.check_source(model.features.config)
    graph = Graph()
    x, lengths = _input(waveform), "lengths"
    shape: list[int | str] = ["N", "S"] if waveform else ["N", "T", model.features.size]
    inputs: dict[str, Shape] = {x: (FLOAT, shape), lengths: (INT64, ["N"])}
    if waveform:
        feature_nodes.check_exportable(model.features.config)
        x, lengths = feature_nodes.add_features(graph, model.features, x, lengths)
    nodes = network.add_network(graph, model, x, lengths)
    outputs: dict[str, Shape] = {}
    names = ["log_probs", "spelled"]
    for name, node in zip(names, nodes, strict=False):
        graph.named(node.values, name)
        count = "frames" if name == "log_probs" else f"{name}_frames"
        graph.named(node.lengths, count)
        outputs[name] = (FLOAT, ["N", f"T_{name}", len(bundle.tokens)])
        outputs[count] = (INT64, ["N"])
    return graph.model(inputs, outputs, metadata(bundle))


def metadata(bundle: Bundle) -> dict[str, str]:
    """Facts that a program needs to use the graph, as text."""
    features = bundle.model.features
    stride = int(np.prod(bundle.model.config.strides)) << bundle.model.config.pyramid
    stacked = features.config.stride  # frames from which a feature vector is joined to the next
    return {
        "sample_rate": str(bundle.sample_rate),
        "subsampling_factor": str(stride),
        "frame_shift_ms": f"{1000 * features.shift * stacked * stride / bundle.sample_rate:g}",
        "features": json.dumps(features.config.as_saved()),
        "tokens": json.dumps(bundle.tokens.to_json(), ensure_ascii=False),
        "blank_id": "0",
    }


def check_parity(model: AcousticModel, graph: onnx.ModelProto, waveform: bool) -> float:
    """The largest difference of the graph's log-probabilities from torch's, in nats, on noise of
    random lengths in one batch and alone.

    Raises AsrError if it exceeds `TOLERANCE`.
    """
    session = open_graph(graph.SerializeToString())
    inputs = _noise(model, waveform)
    expected = torch_scores(model, inputs, waveform)
    found = run_graph(session, inputs)
    alone = [row for wave in inputs for row in run_graph(session, [wave])]
    worst = max(map(_difference, expected * 2, found + alone))
    if not worst <= TOLERANCE:
        raise AsrError(
            f"expected the output of torch within {TOLERANCE:g} nats, got a graph that differs by "
            f"{worst:.2g}: the model cannot be exported; please report it"
        )
    return worst


def _noise(model: AcousticModel, waveform: bool) -> list[Floats]:
    """Waveforms [S], or features [T, F], of random lengths, the shortest of one frame."""
    random = np.random.default_rng(1)
    longest = 4 * model.features.config.sample_rate if waveform else 400
    lengths = [1, 2, *random.integers(3, longest, 4).tolist(), longest]
    shape = () if waveform else (model.features.size,)
    scale = 0.1 if waveform else 1.0
    return [(scale * random.normal(size=(n, *shape))).astype(np.float32) for n in lengths]


@torch.inference_mode()
def torch_scores(model: AcousticModel, inputs: Sequence[Floats], waveform: bool) -> list[LogProbs]:
    """What `run_graph` returns, by torch on the CPU."""
    batch = pad([torch.from_numpy(row) for row in inputs])
    scores, spelled = (
        model.cpu().eval().forward_and_spell(model.features(batch) if waveform else batch)
    )
    others: list[Any] = [None] * len(inputs) if spelled is None else spelled.unpad()
    return [
        LogProbs(row.numpy(), None if other is None else other.numpy())
        for row, other in zip(scores.unpad(), others, strict=True)
    ]


def _difference(expected: LogProbs, found: LogProbs) -> float:
    worst = 0.0
    for a, b in ((expected.log_probs, found.log_probs), (expected.spelled, found.spelled)):
        if a is None or b is None:
            continue
        if a.shape != b.shape:
            return float("inf")
        apart = np.abs(np.maximum(a, FAINTEST) - np.maximum(b, FAINTEST))
        worst = max(worst, float(apart.max(initial=0.0)))
    return worst
