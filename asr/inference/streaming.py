"""Streaming recognition: samples in, log-probabilities out as soon as they are final.

A stream gives exactly the scores that the model gives for the whole utterance. The model must have
limited lookahead: one direction, or two with chunks (`model.chunk`), and features without
statistics of the whole utterance (`features.cmvn` none or global). A model with a range of chunk
sizes streams at any of them; a stream gives the scores of a model that has its size only.

N scores, S samples, T frames, V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asr.errors import ConfigError, StreamError
from asr.features.extractor import OVER_UTTERANCE, FeatureConfig
from asr.models.acoustic import AcousticModel
from asr.models.cells import State
from asr.models.config import ModelConfig
from asr.padded import Padded


class Stream:
    """One utterance as it arrives. `push` samples, then `finish`."""

    def __init__(self, model: AcousticModel, chunk: int | None = None) -> None:
        """Sets the model to evaluation mode, in which it stays. `chunk` as in `chunk_size`.

        Raises ConfigError for a model that needs the whole utterance, and for another `chunk`.
        """
        _require_streaming(model)
        self._chunk = chunk_size(model.config, chunk)
        self._model = model.eval()
        config = model.config
        self._context = config.right_context
        self._shift = model.features.shift
        # Frames at either end of a slice that depend on its edge instead of their neighbours.
        self._frame_margin = model.features.margin
        self._block_margin = len(config.channels)
        self._stride = 1
        for stride in config.strides:
            self._stride *= stride
        device = next(model.parameters()).device
        self._samples = _Buffer(torch.zeros(0, device=device))
        self._features = _Buffer(torch.zeros(0, model.features.size, device=device))
        self._inputs: _Buffer | None = None
        self._outputs: _Buffer | None = None
        self._states: Sequence[State] | None = None
        # Numbers of those computed so far.
        self._features_done = self._inputs_done = self._outputs_done = self._scores_done = 0
        self._finished = False

    @torch.inference_mode()
    def push(self, samples: Tensor) -> Tensor:
        """Log-probabilities that become final with these samples. Shape: [S] -> [N, V], N may be 0.

        Samples are mono, within [-1, 1], at the model's rate. Raises StreamError after `finish`.
        """
        if self._finished:
            raise StreamError("expected no samples after the end, got some: start a new stream")
        if samples.dim() != 1:
            raise StreamError(
                f"expected mono samples [S], got shape {list(samples.shape)}: average the channels"
            )
        self._samples.append(samples.to(self._samples.values))
        return self._advance()

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """The remaining log-probabilities. Shape: [N, V]. Raises StreamError the second time."""
        if self._finished:
            raise StreamError("expected one end, got a second: start a new stream")
        self._finished = True
        return self._advance()

    def _advance(self) -> Tensor:
        self._make_features()
        self._make_inputs()
        self._make_outputs()
        return self._make_scores()

    def _make_features(self) -> None:
        received = self._samples.end
        whole = int(self._model.features.output_lengths(torch.tensor(received)))
        certain = whole if self._finished else max(0, whole - self._frame_margin)
        if certain <= self._features_done:
            return
        first = max(0, self._features_done - self._frame_margin)
        piece = self._samples.since(first * self._shift)
        features = self._model.features(_alone(piece))
        self._features.append(features.values[0, self._features_done - first : certain - first])
        self._features_done = certain
        self._samples.drop((certain - self._frame_margin) * self._shift)

    def _make_inputs(self) -> None:
        encoder = self._model.encoder
        frames = self._features_done
        certain = -(-frames // self._stride)
        if not self._finished:
            certain = max(0, frames // self._stride - self._block_margin)
        if certain <= self._inputs_done:
            return
        first = max(0, self._inputs_done - self._block_margin)
        piece = self._features.since(first * self._stride)
        inputs = encoder.front(_alone(piece))
        made = inputs.values[0, self._inputs_done - first : certain - first]
        self._inputs = self._inputs or _Buffer(made[:0])
        self._inputs.append(made)
        self._inputs_done = certain
        self._features.drop((certain - self._block_margin) * self._stride)

    def _make_outputs(self) -> None:
        if self._inputs is None:
            return
        while self._outputs_done < self._inputs_done:
            start = self._outputs_done
            # One direction processes all available frames.
            size = self._chunk or self._inputs_done - start
            end = min(start + size, self._inputs_done)
            if start + size + self._context > self._inputs_done and not self._finished:
                return
            piece = self._inputs.since(start)[: size + self._context]
            x = _alone(piece)
            layers, self._states = self._model.encoder.chunks(
                x, end - start, 1, self._states, self._model.between
            )
            y = layers[-1].values[0]
            self._outputs = self._outputs or _Buffer(y[:0])
            self._outputs.append(y)
            self._outputs_done = end
            self._inputs.drop(end)

    def _make_scores(self) -> Tensor:
        units = self._model.output.out_features
        ahead = self._model.config.lookahead
        certain = self._outputs_done if self._finished else max(0, self._outputs_done - ahead)
        if self._outputs is None or certain <= self._scores_done:
            return torch.zeros(0, units, device=self._samples.values.device)
        piece = self._outputs.since(self._scores_done)
        y = _alone(piece)
        if self._model.encoder.lookahead is not None:
            y = self._model.encoder.lookahead(y)
        scores = self._model.scores(y).values[0, : certain - self._scores_done]
        self._scores_done = certain
        self._outputs.drop(certain)
        return scores


def latency(model: AcousticModel, chunk: int | None = None) -> float:
    """Maximum seconds between a sound and its final scores; `chunk` as in `chunk_size`.

    Computing time is not included. Raises ConfigError for a model that cannot stream, and for
    another `chunk`.
    """
    _require_streaming(model)
    config = model.config
    stride = 1
    for step in config.strides:
        stride *= step
    frames = (chunk_size(config, chunk) or 1) + config.right_context + config.lookahead
    frames += len(config.channels)
    samples = frames * stride * model.features.shift + model.features.window
    return samples / model.features.config.sample_rate


def chunk_size(config: ModelConfig, chunk: int | None = None) -> int:
    """Frames per chunk of a stream; 0 for one direction.

    If `model.chunk` is a range, `chunk` chooses a size in it; None is the smallest. Raises
    ConfigError for any other size.

    >>> config = ModelConfig(chunk=(8, 64))
    >>> chunk_size(config), chunk_size(config, 20)
    (8, 20)
    """
    low, high = config.chunk if isinstance(config.chunk, tuple) else (config.chunk, config.chunk)
    if chunk is None:
        return low
    if not low <= chunk <= high:
        sizes = f"{low} to {high}" if low < high else f"{low}"
        raise ConfigError(f"expected a chunk of {sizes} frames (model.chunk), got {chunk}")
    return chunk


def chunk_for(model: AcousticModel, delay: float) -> int:
    """The largest chunk, in frames, of which the latency is at most `delay` seconds.

    Raises ConfigError for a delay that is too short, and for a model without a range of sizes.
    """
    if not isinstance(model.config.chunk, tuple):
        raise ConfigError(
            "expected a model whose model.chunk is a range for a chosen delay, got model.chunk "
            f"{model.config.chunk}: leave the delay out, or train one (docs/streaming.md)"
        )
    low, high = model.config.chunk
    shortest = latency(model, low)
    if not delay >= shortest:
        raise ConfigError(
            f"expected a delay of at least {shortest:.2f} s, which chunks of {low} frames have, "
            f"got {delay:g}"
        )
    return max(size for size in range(low, high + 1) if latency(model, size) <= delay)


def fix_chunk(model: AcousticModel, chunk: int) -> None:
    """Make a model with a range of chunk sizes one of this size, or with 0 one of whole utterances,
    as if it had been trained so. Raises ConfigError for any other size."""
    size = chunk and chunk_size(model.config, chunk)
    context = model.config.right_context if size else 0
    fixed = model.config.model_copy(update={"chunk": size, "right_context": context})
    model.config = model.encoder.config = fixed


def _require_streaming(model: AcousticModel) -> None:
    if missing := obstacles(model.features.config, model.config):
        raise ConfigError(
            f"expected a model that can stream, got one that lacks {' and '.join(missing)}: "
            "train one (docs/streaming.md)"
        )


def obstacles(features: FeatureConfig, config: ModelConfig) -> list[str]:
    """The properties that a model lacks for streaming."""
    reasons = {
        "features.kind other than pretrained": features.kind != "pretrained",
        "features.cmvn none or global": features.cmvn not in OVER_UTTERANCE,
        "features.deltas 0 and no stacking": (
            features.deltas == 0 and features.stack == features.stride == 1
        ),
        "one direction, or model.chunk": bool(config.chunk) or not config.bidirectional,
        "pyramid, conv_lstm and attention_heads 0": not (
            config.pyramid or config.conv_lstm or config.attention_heads
        ),
    }
    return [what for what, present in reasons.items() if not present]


def _alone(sequence: Tensor) -> Padded:
    """A batch of one. Shape: [T, ...] -> [1, T, ...]."""
    return Padded(sequence[None], torch.tensor([len(sequence)], device=sequence.device))


class _Buffer:
    """The end of a growing sequence whose start has been dropped. Shape: [T, ...]."""

    def __init__(self, empty: Tensor) -> None:
        self.values = empty
        self._start = 0

    @property
    def end(self) -> int:
        return self._start + len(self.values)

    def append(self, values: Tensor) -> None:
        self.values = torch.cat([self.values, values])

    def since(self, position: int) -> Tensor:
        return self.values[position - self._start :]

    def drop(self, before: int) -> None:
        before = min(before, self.end)  # a next window may start beyond the end
        if before > self._start:
            self.values = self.values[before - self._start :].clone()
            self._start = before
