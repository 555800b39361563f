"""The acoustic model: features, encoder and linear CTC layer in one module."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from asr.config import Config
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.models.encoder import Encoder
from asr.padded import Padded


class ModelConfig(Config):
    """Size and shape of the network."""

    channels: tuple[int, ...] = (32, 32)
    """Channels of each 3x3 convolution of the front end; each halves the number of bands."""
    strides: tuple[int, ...] = (3, 1)
    """Step in time of each convolution; their product is the subsampling factor. 3 gives frames of
    30 ms: quick speech says more than one character in 40 ms, and CTC writes one a frame."""
    layers: int = Field(4, ge=1, le=32)
    """Bidirectional LSTM layers."""
    hidden: int = Field(320, ge=1, le=8192)
    """LSTM cells per direction."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of the hidden features dropped between layers, the same ones in every frame."""

    @model_validator(mode="after")
    def _one_stride_each(self) -> Self:
        if len(self.channels) != len(self.strides):
            raise ValueError("expected as many strides as channels")
        if any(not 1 <= s <= 4 for s in self.strides) or any(c < 1 for c in self.channels):
            raise ValueError("expected strides from 1 to 4 and at least one channel")
        return self


class AcousticModel(nn.Module):
    """Features to log-probabilities of units, with the extractor that makes those features.

    They are two calls, so that training can augment in between:
    waveforms [B, S] -> `features` -> [B, T, F] -> `forward` -> log-probabilities [B, T', V].
    """

    def __init__(self, features: FeatureConfig, config: ModelConfig, units: int) -> None:
        super().__init__()
        self.config = config
        self.features = FeatureExtractor(features)
        self.encoder = Encoder(
            self.features.size,
            config.channels,
            config.strides,
            config.layers,
            config.hidden,
            config.dropout,
        )
        self.output = nn.Linear(2 * config.hidden, units)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of log-probabilities for utterances of so many samples. Shape: [B] -> [B]."""
        return self.encoder.output_lengths(self.features.output_lengths(samples))

    def forward(self, features: Padded) -> Padded:
        """Shape: features [B, T, F] -> log-probabilities [B, T', V] in float32."""
        hidden = self.encoder(features)
        logits = self.output(hidden.values).float()
        return Padded(torch.log_softmax(logits, dim=2), hidden.lengths)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
