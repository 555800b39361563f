"""The encoder: a convolutional front end that shortens time, then bidirectional LSTM layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from asr.models.normalisation import MaskedBatchNorm
from asr.models.recurrent import BidirectionalLSTM
from asr.padded import Padded

KERNEL = 3


Size = TypeVar("Size", int, Tensor)


def strided(size: Size, stride: int) -> Size:
    """Output size of a 3-wide convolution with padding 1."""
    return (size - 1) // stride + 1


class ConvolutionBlock(nn.Module):
    """3x3 convolution over time and frequency, masked batch norm per channel, ReLU.

    Shape: [B, T, F, C_in] -> [B, ceil(T / stride), ceil(F / 2), C_out]; padding is zero.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv2d(channels_in, channels_out, KERNEL, (stride, 2), padding=1)
        self.norm = MaskedBatchNorm(channels_out)

    def forward(self, x: Padded) -> Padded:
        values = x.zeroed().values
        # Channels last in memory: what Conv2d sees as [B, C, T, F] is a view of [B, T, F, C].
        values = self.convolution(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        normalised = self.norm(Padded(values, strided(x.lengths, self.stride)))
        return Padded(torch.relu(normalised.values), normalised.lengths).zeroed()


def locked_dropout(x: Padded, rate: float) -> Padded:
    """Drop features, the same ones in all frames of an utterance (Gal and Ghahramani 2016).

    Shape: [B, T, F] -> [B, T, F].
    """
    B, _, F = x.values.shape
    kept = torch.rand(B, 1, F, device=x.values.device) >= rate
    return Padded(x.values * kept.to(x.values.dtype) / (1 - rate), x.lengths)


class Encoder(nn.Module):
    """Features to hidden frames.

    Shape: [B, T, input_size] -> [B, output_lengths(T), 2 * hidden_size].
    """

    def __init__(
        self,
        input_size: int,
        channels: Sequence[int],
        strides: Sequence[int],
        layers: int,
        hidden_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        sizes = [1, *channels]
        self.front_end = nn.ModuleList(
            ConvolutionBlock(a, b, s) for a, b, s in zip(sizes, channels, strides, strict=False)
        )
        self.strides = list(strides)
        bands = input_size
        for _ in channels:
            bands = strided(bands, 2)
        width = bands * sizes[-1]
        inputs = [width] + [2 * hidden_size] * (layers - 1)
        self.norms = nn.ModuleList(MaskedBatchNorm(size) for size in inputs)
        self.layers = nn.ModuleList(BidirectionalLSTM(size, hidden_size) for size in inputs)
        self.dropout = dropout

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Encoder frames for so many feature frames. Shape: [B] -> [B]."""
        for stride in self.strides:
            lengths = strided(lengths, stride)
        return lengths

    def forward(self, features: Padded) -> Padded:
        x = Padded(features.values[:, :, :, None], features.lengths)
        for block in self.front_end:
            x = block(x)
        x = Padded(x.values.flatten(2), x.lengths)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = layer(norm(x))
            if self.training and self.dropout:
                x = locked_dropout(x, self.dropout)
        return x
