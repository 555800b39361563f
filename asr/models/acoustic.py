"""The acoustic model: features, encoder and linear CTC layer in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.models.config import ModelConfig
from asr.models.encoder import Encoder
from asr.padded import Padded


class AcousticModel(nn.Module):
    """Features to log-probabilities of units, with the extractor that makes those features.

    They are two calls, so that training can augment in between:
    waveforms [B, S] -> `features` -> [B, T, F] -> `forward` -> log-probabilities [B, T', V].
    """

    def __init__(self, features: FeatureConfig, config: ModelConfig, units: int) -> None:
        super().__init__()
        self.config = config
        self.features = FeatureExtractor(features)
        self.encoder = Encoder(self.features.size, config)
        self.output = nn.Linear(self.encoder.output_size, units)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of log-probabilities for utterances of so many samples. Shape: [B] -> [B]."""
        return self.encoder.output_lengths(self.features.output_lengths(samples))

    def forward(self, features: Padded) -> Padded:
        """Shape: features [B, T, F] -> log-probabilities [B, T', V] in float32."""
        return self.scores(self.encoder(features))

    def scores(self, hidden: Padded) -> Padded:
        """Shape: encoder frames [B, T', output_size] -> log-probabilities [B, T', V]."""
        logits = self.output(hidden.values).float()
        return Padded(torch.log_softmax(logits, dim=2), hidden.lengths)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
