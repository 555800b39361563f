"""Networks as sherpa-onnx runs them: one graph for each kind of input, and what the graph gives.

N utterances, S samples, T frames, F features, V tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch

from asr.errors import AsrError
from asr.export import features as feature_nodes
from asr.export import network
from asr.export.graph import FLOAT, INT64, Graph
from asr.export.onnx_folder import FAINTEST, TOLERANCE, metadata, torch_scores
from asr.export.sherpa_files import KALDI, NEMO, SAMPLES, STREAM, Slot
from asr.export.streaming import build_streaming_graph, chunks_of, tail_seconds
from asr.features.kaldi import FramedLogMel
from asr.inference.onnx_model import Floats, LogProbs
from asr.io.onnx_session import open_graph
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.padded import pad

SLOT_RATE = 16000  # of the samples that the slot of omnilingual models gives
SLOT_FRAME = 320  # samples of a frame, by which that slot counts time
TAPS = 64  # of the low-pass filter, at the higher rate


def build_graph(bundle: Bundle, slot: Slot, exact: bool = False) -> onnx.ModelProto:
    """The graph of a slot. With `exact`, no frame is repeated: a search could give the copies of a
    frame different tokens. Raises ConfigError naming settings that have no ONNX operator."""
    if slot is STREAM:
        return build_streaming_graph(bundle)
    network.check_exportable(bundle.model.config)
    sizes = pace(bundle, slot, exact)
    return _of_samples(bundle, sizes) if slot is SAMPLES else _of_features(bundle, slot, sizes)


def _of_samples(bundle: Bundle, sizes: tuple[int, int]) -> onnx.ModelProto:
    """Input x [N, S] at 16 kHz, output log_probs [N, T', V]."""
    model, graph = bundle.model, Graph()
    feature_nodes.check_exportable(model.features.config)
    factor = SLOT_RATE // bundle.sample_rate
    samples = _decimated(graph, "x", factor) if factor > 1 else "x"
    count = graph.add("Reshape", graph.size(samples, 1), graph.ints(1))
    batch = graph.add("Slice", graph.add("Shape", "x"), graph.ints(0), graph.ints(1))
    lengths = graph.add("Expand", count, batch)
    x, lengths = feature_nodes.add_features(graph, model.features, samples, lengths)
    scores = network.add_network(graph, model, x, lengths)[0].values
    graph.named(_paced(graph, scores, *sizes), "log_probs")
    return graph.model(
        {"x": (FLOAT, ["N", "S"])},
        {"log_probs": (FLOAT, ["N", "T", len(bundle.tokens)])},
        metadata(bundle),
    )


def _of_features(bundle: Bundle, slot: Slot, sizes: tuple[int, int]) -> onnx.ModelProto:
    """Inputs features [N, T, F], or [N, F, T] for NeMo's slot, and lengths [N]; outputs log_probs
    [N, T', V] and frames [N]."""
    model, graph = bundle.model, Graph()
    feature_nodes.check_exportable(model.features.config)
    x = "features" if slot is KALDI else graph.add("Transpose", "features", perm=[0, 2, 1])
    x = feature_nodes.add_device_features(graph, model.features, x, "lengths")
    node = network.add_network(graph, model, x, "lengths")[0]
    graph.named(_paced(graph, node.values, *sizes), "log_probs")
    graph.named(node.lengths, "frames")
    F = model.features.size
    facts = {"vocab_size": str(len(bundle.tokens) - 1), "normalize_type": ""}
    if slot is NEMO and sizes[0] > 1:
        facts["subsampling_factor"] = "1"
    elif slot is KALDI:
        facts |= {"model_type": "fire-red-asr-2-ctc", "cmvn_mean": ",".join(["0"] * F)}
        facts["cmvn_inv_stddev"] = ",".join(["1"] * F)
    return graph.model(
        {"features": (FLOAT, ["N", "T", F] if slot is KALDI else ["N", F, "T"]),
         "lengths": (INT64, ["N"])},
        {"log_probs": (FLOAT, ["N", "T_out", len(bundle.tokens)]), "frames": (INT64, ["N"])},
        metadata(bundle) | facts,
    )  # fmt: skip


def frame_samples(model: AcousticModel) -> int:
    """Samples from one output frame to the next, at the model's rate."""
    return model.features.shift * math.prod(model.config.strides) << model.config.pyramid


def pace(bundle: Bundle, slot: Slot, exact: bool = False) -> tuple[int, int]:
    """The length of the network's frames, and that of the frames which the slot counts. The unit is
    a sample of the input, or a feature frame. NeMo's slot counts whole frames only; of frames of
    one feature frame each, it keeps the last."""
    model = bundle.model
    if exact:
        return 1, 1
    frame = frame_samples(model)
    if slot is NEMO:
        return frame // model.features.shift, 1
    frame = frame * SLOT_RATE // bundle.sample_rate
    # Shorter frames stay as they are: text matters more than times.
    return (frame, SLOT_FRAME) if slot is SAMPLES and frame > SLOT_FRAME else (1, 1)


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
    """Frames repeated so that there is one for every `step`: the greedy text is the same, and its
    times become right. Shape: [N, T, V] -> [N, T', V]."""
    if frame == step:
        return scores
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    length, pitch = graph.constant(frame, np.int64), graph.constant(step, np.int64)
    count = graph.add("Mul", graph.size(scores, 1), length)
    count = graph.add("Add", count, graph.constant(step - 1, np.int64))
    count = graph.add("Div", count, pitch)
    places = graph.add("Mul", graph.add("Range", zero, count, one), pitch)
    return graph.add("Gather", scores, graph.add("Div", places, length), axis=1)


def paced(scores: Floats, frame: int, step: int) -> Floats:
    """The same without a graph. Shape: [T, V] -> [T', V]."""
    count = -(-len(scores) * frame // step)
    return scores[np.arange(count) * step // frame]


def check_parity(bundle: Bundle, graph: onnx.ModelProto, slot: Slot, exact: bool = False) -> float:
    """The largest difference of the graph's log-probabilities from torch's, in nats, on noise of
    random lengths. Raises AsrError if it exceeds `TOLERANCE`."""
    score = graph_scores(bundle, graph, slot)
    random = np.random.default_rng(1)
    worst = 0.0
    for seconds in (0.03, 0.31, 1.7, 4.0):
        wave = (0.1 * random.normal(size=int(seconds * bundle.sample_rate))).astype(np.float32)
        found = score([wave])[0].log_probs
        samples = _at_model_rate(bundle, slot, wave)
        (expected,) = torch_scores(bundle.model, [samples], waveform=True)
        scores = paced(expected.log_probs, *pace(bundle, slot, exact))
        worst = max(worst, _difference(scores[: len(found)] if slot is STREAM else scores, found))
    if not worst <= TOLERANCE:
        raise AsrError(
            f"expected the output of torch within {TOLERANCE:g} nats, got a graph that differs by "
            f"{worst:.2g}: the model cannot be exported; please report it"
        )
    return worst


def graph_scores(
    bundle: Bundle, graph: onnx.ModelProto, slot: Slot
) -> Callable[[list[Floats]], list[LogProbs]]:
    """A function from recordings to the graph's output, one recording at a time, as sherpa-onnx
    would run it."""
    session = open_graph(graph.SerializeToString())

    def score(waves: list[Floats]) -> list[LogProbs]:
        return [LogProbs(run(wave)) for wave in waves]

    def run(wave: Floats) -> Floats:
        if slot is SAMPLES:
            # As if the recording had been brought to the slot's rate.
            samples = np.repeat(wave, SLOT_RATE // bundle.sample_rate)
            values: Floats = session.run(None, {"x": samples[None]})[0][0]
            return values
        features = device_features(bundle.model, _at_model_rate(bundle, slot, wave))
        if slot is STREAM:
            return run_chunks(bundle.model, session, features)
        x = features if slot is KALDI else features.T
        lengths = np.array([len(features)])
        scores, frames = session.run(None, {"features": x[None], "lengths": lengths})
        kept: Floats = scores[0, : frames[0] if slot is KALDI else None]
        return kept

    return score


def device_features(model: AcousticModel, wave: Floats) -> Floats:
    """What sherpa-onnx computes for kinds kaldi and nemo. Shape: [S] -> [T, F]."""
    config = model.features.config
    assert config.kind == "kaldi" or config.kind == "nemo"
    sizes = config.sample_rate, config.bands, config.window_ms, config.shift_ms
    filterbank = FramedLogMel(config.kind, *sizes)
    values: Floats = filterbank(pad([torch.from_numpy(wave)])).values[0].numpy()
    if config.kind == "kaldi":
        values += 2 * math.log(32768)
    return values


def run_chunks(model: AcousticModel, session: Any, features: Floats) -> Floats:
    """The output for all whole windows of a stream. Shape: [T, F] -> [frames, V]."""
    sizes = chunks_of(model)
    named = {value.name: value for value in session.get_inputs()}
    caches = {
        name: np.zeros([1, *value.shape[1:]], np.int64 if "int64" in value.type else np.float32)
        for name, value in named.items()
        if name.startswith("cache")
    }
    found = [np.zeros((0, session.get_outputs()[0].shape[2]), np.float32)]
    for start in range(0, len(features) - sizes.window, sizes.shift):
        x = features[start : start + sizes.window].T[None]
        inputs = {"audio_signal": x, "length": np.array([sizes.window])} | caches
        scores, _, *after = session.run(None, inputs)
        caches = dict(zip(caches, after, strict=True))
        found.append(scores[0])
    return np.concatenate(found)


def _at_model_rate(bundle: Bundle, slot: Slot, wave: Floats) -> Floats:
    """The samples that the network gets, at the model's rate."""
    if slot is STREAM:
        return np.pad(wave, (0, round(tail_seconds(bundle.model) * bundle.sample_rate)))
    factor = SLOT_RATE // bundle.sample_rate
    if slot is not SAMPLES or factor == 1:
        return wave
    samples = np.pad(np.repeat(wave, factor), TAPS // 2)
    resampled: Floats = np.convolve(samples, low_pass(factor), "valid")[::factor].astype(np.float32)
    return resampled


def _difference(expected: Floats, found: Floats) -> float:
    if expected.shape != found.shape:
        return math.inf
    apart = np.maximum(expected, FAINTEST) - np.maximum(found, FAINTEST)
    return float(np.abs(apart).max(initial=0.0))
