"""The encoder: a convolutional front end with subsampling, recurrent layers, attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.models.attention import SelfAttention
from asr.models.batch_norm import MaskedBatchNorm
from asr.models.cells import State
from asr.models.config import ModelConfig
from asr.models.conv_lstm import ConvLSTM
from asr.models.convolution import convolved
from asr.models.recurrent import RecurrentLayer
from asr.padded import Padded
from asr.shares import rand

KERNEL = 3
WHOLE_SHARE = 0.25
"""Of the batches of a training that draws sizes of chunks, those with whole utterances."""

Between = Callable[[int, Padded], Padded]
"""Computes the input of the next recurrent layer from the number of a layer, counted from 1, and
its output. Frames are processed independently. Shape: [B, T, width] -> the same."""

Size = TypeVar("Size", int, Tensor)


def strided(size: Size, stride: int) -> Size:
    """Output size of a 3-wide convolution with padding 1."""
    return (size - 1) // stride + 1


def unchanged(number: int, x: Padded) -> Padded:
    """The output of a layer is the input of the next."""
    return x


class ConvolutionBlock(nn.Module):
    """3x3 convolution over time and frequency, masked batch norm per channel, ReLU.

    With `pooling`, the convolution keeps every frame and band, and the output is the maximum of
    each patch.

    Shape: [B, T, F, C_in] -> [B, ceil(T / stride), ceil(F / 2), C_out]; padding is zero.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, pooling: bool = False
    ) -> None:
        super().__init__()
        self.stride, self.pooling = stride, pooling
        steps = (1, 1) if pooling else (stride, 2)
        self.convolution = nn.Conv2d(channels_in, channels_out, KERNEL, steps, padding=1)
        self.norm = MaskedBatchNorm(channels_out)

    def forward(self, x: Padded) -> Padded:
        values = x.zeroed().values
        # Channels last in memory: the input [B, C, T, F] of Conv2d is a view of [B, T, F, C].
        values = convolved(self.convolution, values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        lengths = x.lengths if self.pooling else strided(x.lengths, self.stride)
        y = self.norm(Padded(values, lengths))
        y = Padded(torch.relu(y.values), lengths).zeroed()
        return self._pooled(y) if self.pooling else y

    def _pooled(self, x: Padded) -> Padded:
        # After a ReLU zero is the minimum, so neither edge nor padding changes the maximum.
        patch = (self.stride, 2)
        values = functional.max_pool2d(x.values.permute(0, 3, 1, 2), patch, ceil_mode=True)
        return Padded(values.permute(0, 2, 3, 1), strided(x.lengths, self.stride))


def locked_dropout(x: Padded, rate: float, chunks: int = 1) -> Padded:
    """Drop features, the same ones in all frames of an utterance (Gal and Ghahramani 2016).

    Shape: [chunks * B, T, F] -> the same.
    """
    rows, _, F = x.values.shape
    kept = rand(rows // chunks, 1, F, device=x.values.device) >= rate
    kept = kept.repeat(chunks, 1, 1)
    return Padded(x.values * kept.to(x.values.dtype) / (1 - rate), x.lengths)


def stack_pairs(x: Padded) -> Padded:
    """Join neighbouring frames in pairs; a last odd one is joined with zeros.

    Shape: [B, T, F] -> [B, ceil(T / 2), 2 F].
    """
    values = x.zeroed().values
    values = functional.pad(values, (0, 0, 0, values.shape[1] % 2))
    return Padded(values.unflatten(1, (-1, 2)).flatten(2), strided(x.lengths, 2))


def split_chunks(x: Padded, size: int, context: int) -> tuple[Padded, int]:
    """Chunks of `size` frames, each with `context` frames after it, and the number of chunks.

    The batch contains the first chunks of all utterances, then all second ones, and so on.

    Shape: [B, T, F] -> [count * B, size + context, F].
    """
    T = x.values.shape[1]
    count = -(-T // size)
    values = functional.pad(x.zeroed().values, (0, 0, 0, count * size + context - T))
    pieces = values.unfold(1, size + context, size).permute(1, 0, 3, 2)
    starts = torch.arange(0, count * size, size, device=x.lengths.device)[:, None]
    lengths = (x.lengths - starts).clamp(min=0, max=size + context)
    return Padded(pieces.flatten(0, 1), lengths.flatten()), count


def draw_chunk(low: int, high: int) -> int:
    """The size of a batch's chunks, in frames; 0 is the whole utterance. Small sizes are as
    frequent as large ones: each octave is equally likely. Drawn on the host, where all processes of
    a training draw the same numbers."""
    whole, place = torch.rand(2).tolist()
    if whole < WHOLE_SHARE:
        return 0
    return min(high, int(low * ((high + 1) / low) ** place))


class LookaheadConvolution(nn.Module):
    """Each feature of a frame, mixed with the same feature of future frames (Wang et al. 2016,
    "Lookahead convolution layer for unidirectional recurrent neural networks", eq. 1).

    Shape: [B, T, F] -> [B, T, F]; frames after the end of an utterance are zero.
    """

    def __init__(self, features: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.weight = nn.Parameter(torch.zeros(frames + 1, features))
        with torch.no_grad():
            self.weight[0] = 1.0  # initially the identity

    def forward(self, x: Padded) -> Padded:
        T = x.values.shape[1]
        values = functional.pad(x.zeroed().values, (0, 0, 0, self.frames))
        # Added one by one: all products at once would take the memory of several layers.
        mixed = values[:, :T] * self.weight[0]
        for j, row in enumerate(self.weight[1:], start=1):
            mixed = mixed + values[:, j : j + T] * row
        return Padded(mixed, x.lengths)


class Encoder(nn.Module):
    """Features to hidden frames.

    Shape: [B, T, input_size] -> [B, output_lengths(T), output_size].
    """

    def __init__(self, input_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        sizes = [1, *config.channels]
        self.front_end = nn.ModuleList(
            ConvolutionBlock(a, b, s, config.pooling)
            for a, b, s in zip(sizes, config.channels, config.strides, strict=False)
        )
        bands = input_size
        for _ in config.channels:
            bands = strided(bands, 2)
        channels = sizes[-1]
        self.conv_lstm = (
            ConvLSTM(channels, config.conv_lstm, bidirectional=config.bidirectional)
            if config.conv_lstm
            else None
        )
        if self.conv_lstm is not None:
            channels = self.conv_lstm.output_channels
        width = bands * channels
        self.dense = nn.Linear(width, config.dense) if config.dense else None
        width = config.dense or width
        norms, layers = [], []
        for number in range(config.layers):
            width *= 2 if self._joins(number) else 1
            alternating = config.directions == "alternating"
            layer = RecurrentLayer(
                width,
                config.hidden,
                config.cell,
                config.bidirectional and not alternating,
                backward=alternating and number % 2 == 1,
                projection=config.projection,
                zoneout=config.zoneout,
                weight_dropout=config.weight_dropout,
            )
            norms.append(MaskedBatchNorm(width))
            layers.append(layer)
            width = layer.output_size
        self.norms, self.layers = nn.ModuleList(norms), nn.ModuleList(layers)
        self.lookahead = LookaheadConvolution(width, config.lookahead) if config.lookahead else None
        self.attention = (
            SelfAttention(width, config.attention_heads, config.attention_window, config.dropout)
            if config.attention_heads
            else None
        )
        self.output_size = width

    def _joins(self, number: int) -> bool:
        return 1 <= number <= self.config.pyramid

    def output_lengths(self, lengths: Tensor, layer: int | None = None) -> Tensor:
        """Frames of a recurrent layer, from 1, or of the last one, for this many feature frames.
        Shape: [B] -> [B]."""
        for stride in self.config.strides:
            lengths = strided(lengths, stride)
        joins = self.config.pyramid if layer is None else min(layer - 1, self.config.pyramid)
        for _ in range(joins):
            lengths = strided(lengths, 2)
        return lengths

    def forward(self, features: Padded, between: Between = unchanged) -> Padded:
        return self.finish(self.layer_outputs(features, between)[-1])

    def layer_outputs(self, features: Padded, between: Between = unchanged) -> list[Padded]:
        """The output of each recurrent layer. Shape: [B, T, input_size] -> [B, T', width] each;
        with `model.pyramid`, T' is smaller in later layers."""
        x = self.front(features)
        if size := self._chunk_size(x.values.shape[1]):
            return self._by_chunk(x, size, between)
        outputs = []
        for number, layer in enumerate(self.layers):
            outputs.append(self._surrounded(number, x, layer))
            x = between(number + 1, outputs[-1])
        return outputs

    def finish(self, x: Padded) -> Padded:
        """The layers after the recurrent ones. Shape: [B, T', width] -> the same."""
        if self.attention is not None:
            x = self.attention(x)
        return x if self.lookahead is None else self.lookahead(x)

    def front(self, features: Padded) -> Padded:
        """The input of the first recurrent layer. Shape: [B, T, input_size] -> [B, T', width]."""
        x = Padded(features.values[:, :, :, None], features.lengths)
        for block in self.front_end:
            x = block(x)
        if self.conv_lstm is not None:
            x = self.conv_lstm(x)
        x = Padded(x.values.flatten(2), x.lengths)
        if self.dense is None:
            return x
        # NaN in the padding would reach the gradient of the weights.
        return Padded(torch.relu(self.dense(x.zeroed().values)), x.lengths)

    def chunks(
        self,
        x: Padded,
        size: int,
        count: int,
        states: Sequence[State] | None,
        between: Between = unchanged,
    ) -> tuple[list[Padded], list[State]]:
        """The recurrent layers over chunks of `size` frames, each with its right context.

        `count` consecutive chunks are consecutive in the batch, in the order of `split_chunks`.

        Shape: [count * B, size + context, width] -> [count * B, size, output_size] of each layer,
        and the forward states of all layers after the last chunk.
        """
        after: list[State] = []
        outputs: list[Padded] = []

        def run(layer: RecurrentLayer, state: State | None, x: Padded) -> Padded:
            y, reached = layer.chunks(x, size, count, state)
            after.append(reached)
            return y

        before: Sequence[State | None] = states or [None] * len(self.layers)
        for number, (layer, state) in enumerate(zip(self.layers, before, strict=True)):
            step = partial(run, cast(RecurrentLayer, layer), state)
            x = self._surrounded(number, x, step, count)
            outputs.append(Padded(x.values[:, :size], x.lengths.clamp(max=size)))
            x = between(number + 1, x)
        return outputs, after

    def _chunk_size(self, frames: int) -> int:
        """Frames per chunk of a batch of `frames`; 0 is the whole utterance."""
        chunk = self.config.chunk
        if isinstance(chunk, int):
            return chunk
        size = draw_chunk(*chunk) if self.training else 0
        return size if size < frames else 0

    def _by_chunk(self, x: Padded, size: int, between: Between = unchanged) -> list[Padded]:
        # All chunks of a layer at once, so that normalisation and dropout treat them alike.
        pieces, count = split_chunks(x, size, self.config.right_context)
        outputs, _ = self.chunks(pieces, size, count, None, between)
        in_turn = (
            y.values.unflatten(0, (count, -1)).transpose(0, 1).flatten(1, 2) for y in outputs
        )
        return [Padded(values[:, : x.values.shape[1]], x.lengths) for values in in_turn]

    def _surrounded(
        self, number: int, x: Padded, layer: Callable[[Padded], Padded], chunks: int = 1
    ) -> Padded:
        """One recurrent layer with joining, residual connection and dropout."""
        if self._joins(number):
            x = stack_pairs(x)
        y = layer(self.norms[number](x))
        if self.training and self.config.dropout:
            y = locked_dropout(y, self.config.dropout, chunks)
        if self.config.residual and y.values.shape == x.values.shape:
            y = Padded(x.values + y.values, y.lengths)
        return y
