"""Features from waveforms as nodes of an ONNX graph.

Windowing and Fourier transform of a frame are linear. They are one matrix, which a convolution
applies to every frame: the operator STFT has no kernel for GPUs in onnxruntime.

N utterances, S samples, T frames, W samples of a window, K frequencies, F bands.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from asr.errors import ConfigError
from asr.export.graph import Graph
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.features.filterbank import (
    FLOOR_BELOW_LEVEL_DB,
    LEAST,
    LEVEL_QUANTILE,
    MFCC,
    POWER_FLOOR,
    RUMBLE_HZ,
    SILENCE_BELOW_LOUDEST_DB,
    LogMel,
)
from asr.features.kaldi import FLOOR, PRE_EMPHASIS, FramedLogMel
from asr.features.transforms import VARIANCE_FLOOR


def check_exportable(config: FeatureConfig) -> None:
    """Raise ConfigError naming settings that the graph does not compute."""
    check_source(config)
    for setting, unsupported in {
        "features.deltas": config.deltas,
        "features.stack": config.stack > 1,
        "features.stride": config.stride > 1,
    }.items():
        if unsupported:
            raise ConfigError(
                f"expected a model whose features have no deltas and no stacking, got {setting}: "
                "train another one to export it"
            )


def check_source(config: FeatureConfig) -> None:
    """Raise ConfigError for features that no exported model can have."""
    if config.kind == "pretrained":
        raise ConfigError(
            "expected a model with features of a filterbank, got features.kind pretrained, which "
            "is not exported: use the model folder with torch, or train one with another kind"
        )


def add_features(
    graph: Graph, extractor: FeatureExtractor, samples: str, lengths: str
) -> tuple[str, str]:
    """Features [N, T, F] and their lengths [N]; padding is arbitrary.

    Shape: samples [N, S] in [-1, 1], lengths [N] int64, at least 1.
    """
    filterbank = extractor.filterbank
    if isinstance(filterbank, MFCC):
        x, frames = _log_mel(graph, filterbank.log_mel, samples, lengths)
        x = graph.add("MatMul", x, graph.constant(filterbank.transform.numpy()))
    elif isinstance(filterbank, FramedLogMel):
        x, frames = _framed_log_mel(graph, filterbank, samples, lengths)
    else:
        x, frames = _log_mel(graph, filterbank, samples, lengths)
    return _with_cmvn(graph, extractor, x, frames), frames


def add_device_features(graph: Graph, extractor: FeatureExtractor, x: str, frames: str = "") -> str:
    """The model's features of those that sherpa-onnx computes, for kinds kaldi and nemo.

    There, samples of kind kaldi are 32768 times as large: the device's floor is then so low that
    the model's can be applied here. Shape: x [N, T, F], frames [N], which only statistics of the
    whole utterance need -> [N, T, F].
    """
    filterbank = extractor.filterbank
    assert isinstance(filterbank, FramedLogMel)
    if filterbank.is_kaldi:
        power = graph.add("Exp", graph.add("Sub", x, graph.constant(2 * math.log(32768))))
        x = _logarithm(graph, power, frames, filterbank, FLOOR)
    return _with_cmvn(graph, extractor, x, frames)


def _with_cmvn(graph: Graph, extractor: FeatureExtractor, x: str, frames: str) -> str:
    if extractor.config.cmvn == "utterance":
        return _normalised(graph, x, frames)
    if extractor.normalisation is not None:
        mean, scale = extractor.normalisation.mean_and_scale()
        x = graph.add("Sub", x, graph.constant(mean.numpy()))
        x = graph.add("Mul", x, graph.constant(scale.numpy()))
    return x


def _log_mel(graph: Graph, log_mel: LogMel, samples: str, lengths: str) -> tuple[str, str]:
    kernel = fourier(log_mel.window.numpy(), log_mel.fft_size)
    window = len(log_mel.window)
    left = log_mel.fft_size // 2 - (log_mel.fft_size - window) // 2  # as torch.stft places it
    samples = _zeroed(graph, samples, lengths)
    mel = _mel(graph, samples, kernel, log_mel, (left, window - left))
    frames = graph.add("Div", lengths, graph.constant(log_mel.shift, np.int64))
    frames = graph.add("Add", frames, graph.constant(1, np.int64))
    return _logarithm(graph, mel, frames, log_mel, POWER_FLOOR), frames


def _framed_log_mel(
    graph: Graph, layer: FramedLogMel, samples: str, lengths: str
) -> tuple[str, str]:
    """As `asr.features.kaldi`; frames of recordings that are too short for one are 0."""
    size, shift = len(layer.window), layer.shift
    kernel = fourier(layer.window.numpy(), layer.fft_size)
    # Of the sample before, pre-emphasis takes a share away. The first window weight is 0.
    kernel[:, :-1] -= PRE_EMPHASIS * kernel[:, 1:]
    if layer.is_kaldi:
        kernel -= kernel.mean(axis=1, keepdims=True)  # removes the offset of a frame
        samples = _zeroed(graph, samples, lengths)
        mel = _mel(graph, samples, kernel, layer, (0, size - 1))
        rest = graph.add("Sub", lengths, graph.constant(size - shift, np.int64))
        rest = graph.add("Max", rest, graph.constant(0, np.int64))  # division rounds towards 0
    else:
        mel = _mel(graph, _mirrored(graph, layer, samples, lengths), kernel, layer, (0, 0))
        rest = graph.add("Add", lengths, graph.constant(shift // 2, np.int64))
    frames = graph.add("Div", rest, graph.constant(shift, np.int64))
    return _logarithm(graph, mel, frames, layer, FLOOR), frames


def _mirrored(graph: Graph, layer: FramedLogMel, samples: str, lengths: str) -> str:
    """The samples of all frames, mirrored at the ends. Shape: [N, S] -> [N, S']."""
    one, shift = graph.constant(1, np.int64), graph.constant(layer.shift, np.int64)
    count = graph.add("Add", graph.size(samples, 1), graph.constant(layer.shift // 2, np.int64))
    count = graph.add("Max", graph.add("Div", count, shift), one)
    size = len(layer.window)
    first = layer.shift // 2 - size // 2
    end = graph.add("Mul", graph.add("Sub", count, one), shift)
    end = graph.add("Add", end, graph.constant(first + size, np.int64))
    places = graph.add("Range", graph.constant(first, np.int64), end, one)
    period = graph.add("Mul", graph.add("Unsqueeze", lengths, graph.ints(1)), graph.ints(2))
    places = graph.add("Mod", places, period)
    back = graph.add("Sub", graph.add("Sub", period, one), places)
    return graph.add("GatherElements", samples, graph.add("Min", places, back), axis=1)


def _zeroed(graph: Graph, samples: str, lengths: str) -> str:
    mask = graph.mask(graph.size(samples, 1), lengths)
    return graph.add("Where", mask, samples, graph.constant(0.0))


def _mel(
    graph: Graph,
    samples: str,
    kernel: NDArray[np.float32],
    layer: LogMel | FramedLogMel,
    pads: tuple[int, int],
) -> str:
    """Power of the bands. Shape: samples [N, S], kernel [2 K, W] -> [N, T, F]."""
    spectrum = graph.add(
        "Conv",
        graph.add("Unsqueeze", samples, graph.ints(1)),
        graph.constant(kernel[:, None]),
        kernel_shape=[kernel.shape[1]],
        strides=[layer.shift],
        pads=list(pads),
    )  # [N, 2 K, T]
    power = graph.add("Transpose", graph.add("Mul", spectrum, spectrum), perm=[0, 2, 1])
    filters = layer.filters.numpy()
    return graph.add("MatMul", power, graph.constant(np.concatenate([filters, filters])))


def _logarithm(
    graph: Graph, mel: str, frames: str, layer: LogMel | FramedLogMel, absolute: float
) -> str:
    """As `asr.features.filterbank.log_energies`, with an `absolute` floor or that of the layer."""
    floor = graph.constant(absolute)
    if layer.relative_floor:
        level = _speech_level(graph, mel, frames, layer.centres.numpy())
        level = graph.add("Mul", level, graph.constant(10 ** (-FLOOR_BELOW_LEVEL_DB / 10)))
        level = graph.add("Max", level, graph.constant(LEAST))
        floor = graph.add("Unsqueeze", level, graph.ints(2))
    values = graph.add("Log", graph.add("Max", mel, floor))
    return graph.add("Sub", values, graph.add("Log", floor)) if layer.above_floor else values


def fourier(window: NDArray[np.float32], fft_size: int) -> NDArray[np.float32]:
    """Real parts, then imaginary parts of the Fourier transform of a windowed frame.

    Shape: window [W], W <= fft_size -> [2 K, W], K = fft_size / 2 + 1.
    """
    place = (fft_size - len(window)) // 2 + np.arange(len(window))
    angle = 2 * np.pi * np.outer(np.arange(fft_size // 2 + 1), place) / fft_size
    parts = np.concatenate([np.cos(angle), -np.sin(angle)]) * window
    return parts.astype(np.float32)


def _speech_level(graph: Graph, mel: str, frames: str, centres: NDArray[np.float32]) -> str:
    """As `asr.features.filterbank.speech_level`. Shape: [N, T, F] -> [N, 1]."""
    above = (centres > RUMBLE_HZ).astype(np.float32)
    power = graph.add("MatMul", mel, graph.constant((above / above.sum())[:, None]))
    power = graph.add("Squeeze", power, graph.ints(2))
    count = graph.size(power, 1)
    power = graph.add("Where", graph.mask(count, frames), power, graph.constant(0.0))
    ordered = graph.add(
        "TopK", power, graph.add("Reshape", count, graph.ints(1)), axis=1, outputs=2
    )
    loudest = graph.add("Slice", ordered, graph.ints(0), graph.ints(1), graph.ints(1))
    silence = graph.add("Mul", loudest, graph.constant(10 ** (-SILENCE_BELOW_LOUDEST_DB / 10)))
    sounding = graph.add("Cast", graph.add("Greater", ordered, silence), to=7)
    count = graph.add("ReduceSum", sounding, graph.ints(1))
    last = graph.add("Max", graph.add("Sub", count, graph.ints(1)), graph.ints(0))
    place = graph.add("Mul", graph.add("Cast", last, to=1), graph.constant(1 - LEVEL_QUANTILE))
    return graph.add("GatherElements", ordered, graph.add("Cast", place, to=7), axis=1)


def _normalised(graph: Graph, x: str, frames: str) -> str:
    """Zero mean and unit variance over an utterance. Shape: [N, T, F] -> the same."""
    mask = graph.add("Unsqueeze", graph.mask(graph.size(x, 1), frames), graph.ints(2))
    zero = graph.constant(0.0)
    count = graph.add("Unsqueeze", graph.add("Cast", frames, to=1), graph.ints(1, 2))

    def mean(values: str) -> str:
        kept = graph.add("Where", mask, values, zero)
        return graph.add("Div", graph.add("ReduceSum", kept, graph.ints(1)), count)

    centred = graph.add("Sub", x, mean(x))
    variance = graph.add("Add", mean(graph.add("Mul", centred, centred)),
                         graph.constant(VARIANCE_FLOOR))  # fmt: skip
    return graph.add("Div", centred, graph.add("Sqrt", variance))
