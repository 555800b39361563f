"""The encoder: a convolutional front end that shortens time, recurrent layers, attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.models.attention import SelfAttention
from asr.models.cells import State
from asr.models.config import ModelConfig
from asr.models.conv_lstm import ConvLSTM
from asr.models.normalisation import MaskedBatchNorm
from asr.models.recurrent import RecurrentLayer
from asr.padded import Padded

KERNEL = 3


Size = TypeVar("Size", int, Tensor)


def strided(size: Size, stride: int) -> Size:
    """Output size of a 3-wide convolution with padding 1."""
    return (size - 1) // stride + 1


class ConvolutionBlock(nn.Module):
    """3x3 convolution over time and frequency, masked batch norm per channel, ReLU.

    With `pooling` the convolution keeps every frame and band, and the maximum of each patch is
    handed on.

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
        # Channels last in memory: what Conv2d sees as [B, C, T, F] is a view of [B, T, F, C].
        values = self.convolution(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        lengths = x.lengths if self.pooling else strided(x.lengths, self.stride)
        y = self.norm(Padded(values, lengths))
        y = Padded(torch.relu(y.values), lengths).zeroed()
        return self._pooled(y) if self.pooling else y

    def _pooled(self, x: Padded) -> Padded:
        # After a ReLU zero is the least of all, so neither edge nor padding can be the maximum.
        patch = (self.stride, 2)
        values = functional.max_pool2d(x.values.permute(0, 3, 1, 2), patch, ceil_mode=True)
        return Padded(values.permute(0, 2, 3, 1), strided(x.lengths, self.stride))


def locked_dropout(x: Padded, rate: float) -> Padded:
    """Drop features, the same ones in all frames of an utterance (Gal and Ghahramani 2016).

    Shape: [B, T, F] -> [B, T, F].
    """
    B, _, F = x.values.shape
    kept = torch.rand(B, 1, F, device=x.values.device) >= rate
    return Padded(x.values * kept.to(x.values.dtype) / (1 - rate), x.lengths)


def joined_pairs(x: Padded) -> Padded:
    """Two neighbouring frames as one; a last odd one is joined to silence.

    Shape: [B, T, F] -> [B, ceil(T / 2), 2 F].
    """
    values = x.zeroed().values
    values = functional.pad(values, (0, 0, 0, values.shape[1] % 2))
    return Padded(values.unflatten(1, (-1, 2)).flatten(2), strided(x.lengths, 2))


class LookaheadConvolution(nn.Module):
    """Each feature of a frame, mixed with the same feature of the coming ones (Wang et al. 2016,
    "Lookahead convolution layer for unidirectional recurrent neural networks", eq. 1).

    Shape: [B, T, F] -> [B, T, F]; past the end of an utterance there is silence.
    """

    def __init__(self, features: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.weight = nn.Parameter(torch.zeros(frames + 1, features))
        with torch.no_grad():
            self.weight[0] = 1.0  # begins as if it were not there

    def forward(self, x: Padded) -> Padded:
        T = x.values.shape[1]
        values = functional.pad(x.zeroed().values, (0, 0, 0, self.frames))
        shifted = [values[:, j : j + T] * row for j, row in enumerate(self.weight)]
        return Padded(torch.stack(shifted).sum(dim=0), x.lengths)


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
        self.conv_lstm = ConvLSTM(channels, config.conv_lstm) if config.conv_lstm else None
        if self.conv_lstm is not None:
            channels = self.conv_lstm.output_channels
        width = bands * channels
        self.dense = nn.Linear(width, config.dense) if config.dense else None
        width = config.dense or width
        norms, layers = [], []
        for number in range(config.layers):
            width *= 2 if self._joins(number) else 1
            layer = RecurrentLayer(
                width,
                config.hidden,
                config.cell,
                config.bidirectional,
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

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Encoder frames for so many feature frames. Shape: [B] -> [B]."""
        for stride in self.config.strides:
            lengths = strided(lengths, stride)
        for _ in range(self.config.pyramid):
            lengths = strided(lengths, 2)
        return lengths

    def forward(self, features: Padded) -> Padded:
        return self.finish(self.layer_outputs(features)[-1])

    def layer_outputs(self, features: Padded) -> list[Padded]:
        """What each recurrent layer hands on. Shape: [B, T, input_size] -> [B, T', width] each."""
        x = self.front(features)
        if self.config.chunk:
            return self._by_chunk(x)
        outputs = []
        for number, layer in enumerate(self.layers):
            x = self._surrounded(number, x, layer)
            outputs.append(x)
        return outputs

    def finish(self, x: Padded) -> Padded:
        """What comes after the recurrent layers. Shape: [B, T', width] -> the same."""
        if self.attention is not None:
            x = self.attention(x)
        return x if self.lookahead is None else self.lookahead(x)

    def front(self, features: Padded) -> Padded:
        """What the first recurrent layer is given. Shape: [B, T, input_size] -> [B, T', width]."""
        x = Padded(features.values[:, :, :, None], features.lengths)
        for block in self.front_end:
            x = block(x)
        if self.conv_lstm is not None:
            x = self.conv_lstm(x)
        x = Padded(x.values.flatten(2), x.lengths)
        return x if self.dense is None else Padded(torch.relu(self.dense(x.values)), x.lengths)

    def chunk(
        self, x: Padded, size: int, states: Sequence[State] | None
    ) -> tuple[list[Padded], list[State]]:
        """The recurrent layers over a chunk of `size` frames and what lies right of it.

        Shape: [B, size + context, width] -> [B, size, output_size] of each layer, and the forward
        states of all layers after the chunk.
        """
        after: list[State] = []
        outputs: list[Padded] = []

        def run(layer: RecurrentLayer, state: State | None, x: Padded) -> Padded:
            y, reached = layer.chunk(x, size, state)
            after.append(reached)
            return y

        before: Sequence[State | None] = states or [None] * len(self.layers)
        for number, (layer, state) in enumerate(zip(self.layers, before, strict=True)):
            x = self._surrounded(number, x, partial(run, cast(RecurrentLayer, layer), state))
            outputs.append(Padded(x.values[:, :size], x.lengths.clamp(max=size)))
        return outputs, after

    def _by_chunk(self, x: Padded) -> list[Padded]:
        size, context = self.config.chunk, self.config.right_context
        states: Sequence[State] | None = None
        outputs: list[list[Tensor]] = [[] for _ in self.layers]
        for start in range(0, x.values.shape[1], size):
            end = min(start + size, x.values.shape[1])
            lengths = (x.lengths - start).clamp(min=0, max=size + context)
            piece = Padded(x.values[:, start : start + size + context], lengths)
            chunk, states = self.chunk(piece, end - start, states)
            for pieces, y in zip(outputs, chunk, strict=True):
                pieces.append(y.values)
        return [Padded(torch.cat(pieces, dim=1), x.lengths) for pieces in outputs]

    def _surrounded(self, number: int, x: Padded, layer: Callable[[Padded], Padded]) -> Padded:
        """One recurrent layer with what surrounds it."""
        if self._joins(number):
            x = joined_pairs(x)
        y = layer(self.norms[number](x))
        if self.training and self.config.dropout:
            y = locked_dropout(y, self.config.dropout)
        if self.config.residual and y.values.shape == x.values.shape:
            y = Padded(x.values + y.values, y.lengths)
        return y
