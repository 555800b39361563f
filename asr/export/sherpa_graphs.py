"""Networks as sherpa-onnx runs them on whole utterances: one graph for each kind of input.

N utterances, S samples, T frames, F features, V tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx

from asr.errors import AsrError
from asr.export import features as feature_nodes
from asr.export import network
from asr.export.graph import FLOAT, Graph
from asr.export.onnx_folder import FAINTEST, TOLERANCE, metadata, torch_scores
from asr.export.sherpa_files import SAMPLES, Slot
from asr.inference.onnx_model import Floats, Scores, open_graph
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle

SLOT_RATE = 16000  # of the samples that the slot of omnilingual models gives
SLOT_FRAME = 320  # samples of a frame, by which that slot counts time
LEAST_SAMPLES = 400  # sherpa-onnx returns no text for shorter recordings
TAPS = 64  # of the low-pass filter, at the higher rate


def build_graph(bundle: Bundle, slot: Slot) -> onnx.ModelProto:
    """The graph of a slot for whole utterances.

    Raises ConfigError naming settings that have no ONNX operator.
    """
    network.check_exportable(bundle.model.config)
    assert slot is SAMPLES
    return _of_samples(bundle)


def _of_samples(bundle: Bundle) -> onnx.ModelProto:
    """Input x [N, S] at 16 kHz, output log_probs [N, T', V] with frames of 20 ms."""
    model, graph = bundle.model, Graph()
    feature_nodes.check_exportable(model.features.config)
    factor = SLOT_RATE // bundle.sample_rate
    samples = _decimated(graph, "x", factor) if factor > 1 else "x"
    count = graph.add("Reshape", graph.size(samples, 1), graph.ints(1))
    batch = graph.add("Slice", graph.add("Shape", "x"), graph.ints(0), graph.ints(1))
    lengths = graph.add("Expand", count, batch)
    x, lengths = feature_nodes.add_features(graph, model.features, samples, lengths)
    scores = network.add_network(graph, model, x, lengths)[0].values
    frame = frame_samples(model) * factor
    if frame >= SLOT_FRAME:
        scores = _paced(graph, scores, frame, SLOT_FRAME)
    graph.named(scores, "log_probs")
    return graph.model(
        {"x": (FLOAT, ["N", "S"])},
        {"log_probs": (FLOAT, ["N", "T", len(bundle.tokens)])},
        metadata(bundle),
    )


def frame_samples(model: AcousticModel) -> int:
    """Samples from one output frame to the next, at the model's rate."""
    return model.features.shift * math.prod(model.config.strides) << model.config.pyramid


def _decimated(graph: Graph, x: str, factor: int) -> str:
    """Every `factor`-th sample after a low-pass filter. Shape: [N, S] -> [N, ceil(S / factor)]."""
    y = graph.add("Unsqueeze", x, graph.ints(1))
    y = graph.add(
        "Conv",
        y,
        graph.constant(low_pass(factor)[None, None]),
        kernel_shape=[TAPS + 1],
        strides=[factor],
        pads=[TAPS // 2, TAPS // 2],
    )
    return graph.add("Squeeze", y, graph.ints(1))


def low_pass(factor: int) -> Floats:
    """A windowed sinc that passes the lowest 1 / `factor` of the spectrum. Shape: [TAPS + 1]."""
    time = np.arange(TAPS + 1) - TAPS / 2
    taps = np.sinc(time / factor) * np.hanning(TAPS + 3)[1:-1]
    return (taps / taps.sum()).astype(np.float32)


def _paced(graph: Graph, scores: str, frame: int, step: int) -> str:
    """Frames of `frame` samples repeated as frames of `step` samples, which are not longer: the
    greedy text is the same, and its times become right. Shape: [N, T, V] -> [N, T', V]."""
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    step_name, frame_name = graph.constant(step, np.int64), graph.constant(frame, np.int64)
    count = graph.add("Mul", graph.size(scores, 1), frame_name)
    count = graph.add("Add", count, graph.constant(step - 1, np.int64))
    count = graph.add("Div", count, step_name)
    places = graph.add("Mul", graph.add("Range", zero, count, one), step_name)
    return graph.add("Gather", scores, graph.add("Div", places, frame_name), axis=1)


def check_parity(bundle: Bundle, graph: onnx.ModelProto, slot: Slot) -> float:
    """The largest difference of the graph's log-probabilities from torch's, in nats, on noise of
    random lengths. Raises AsrError if it exceeds `TOLERANCE`."""
    session = open_graph(graph.SerializeToString())
    random = np.random.default_rng(1)
    worst = 0.0
    for seconds in (0.03, 0.31, 1.7, 4.0):
        wave = (0.1 * random.normal(size=int(seconds * bundle.sample_rate))).astype(np.float32)
        found = session.run(None, _inputs(bundle, slot, wave))[0][0]
        (expected,) = torch_scores(bundle.model, [_heard(bundle, slot, wave)], waveform=True)
        worst = max(worst, _difference(_repeated(bundle, slot, expected.log_probs), found))
    if not worst <= TOLERANCE:
        raise AsrError(
            f"expected the output of torch within {TOLERANCE:g} nats, got a graph that differs by "
            f"{worst:.2g}: the model cannot be exported; please report it"
        )
    return worst


def graph_scores(
    bundle: Bundle, graph: onnx.ModelProto, slot: Slot
) -> Callable[[list[Floats]], list[Scores]]:
    """A function from recordings to the graph's output, one recording at a time."""
    session = open_graph(graph.SerializeToString())

    def score(waves: list[Floats]) -> list[Scores]:
        return [Scores(session.run(None, _inputs(bundle, slot, wave))[0][0]) for wave in waves]

    return score


def _inputs(bundle: Bundle, slot: Slot, wave: Floats) -> dict[str, Floats]:
    """What sherpa-onnx would give the graph."""
    factor = SLOT_RATE // bundle.sample_rate
    return {"x": np.repeat(wave, factor)[None]}


def _heard(bundle: Bundle, slot: Slot, wave: Floats) -> Floats:
    """The samples of `_inputs` at the model's rate."""
    factor = SLOT_RATE // bundle.sample_rate
    if factor == 1:
        return wave
    padded = np.pad(np.repeat(wave, factor), TAPS // 2)
    heard: Floats = np.convolve(padded, low_pass(factor), "valid")[::factor].astype(np.float32)
    return heard


def _repeated(bundle: Bundle, slot: Slot, scores: Floats) -> Floats:
    frame = frame_samples(bundle.model) * SLOT_RATE // bundle.sample_rate
    if frame < SLOT_FRAME:
        return scores
    count = -(-len(scores) * frame // SLOT_FRAME)
    return scores[np.arange(count) * SLOT_FRAME // frame]


def _difference(expected: Floats, found: Floats) -> float:
    if expected.shape != found.shape:
        return math.inf
    apart = np.maximum(expected, FAINTEST) - np.maximum(found, FAINTEST)
    return float(np.abs(apart).max(initial=0.0))
