"""The acoustic model: features, encoder and linear CTC layer in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.errors import CheckpointError
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.models.config import ModelConfig
from asr.models.encoder import Encoder
from asr.padded import Padded


class AcousticModel(nn.Module):
    """Features to log-probabilities of tokens, including the feature extractor.

    These are two calls, so that training can augment in between:
    waveforms [B, S] -> `features` -> [B, T, F] -> `forward` -> log-probabilities [B, T', V].
    """

    def __init__(self, features: FeatureConfig, config: ModelConfig, units: int) -> None:
        super().__init__()
        self.config = config
        self.features = FeatureExtractor(features)
        self.encoder = Encoder(self.features.size, config)
        self.output = _ctc_layer(self.encoder.output_size, units)
        spells = config.hierarchical_ctc_layer
        self.spelling = _ctc_layer(self.encoder.output_size, units) if spells else None

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Frames of log-probabilities for utterances with this many samples. Shape: [B] -> [B]."""
        return self.encoder.output_lengths(self.features.output_lengths(samples))

    def forward(self, features: Padded) -> Padded:
        """Shape: features [B, T, F] -> log-probabilities [B, T', V] in float32."""
        return self.scores(self.encoder(features))

    def forward_and_spell(self, features: Padded) -> tuple[Padded, Padded | None]:
        """The result of `forward`, and the output of the hierarchical CTC layer, if there is one.

        The second output comes from an earlier layer (hierarchical CTC: Fernandez et al. 2007,
        "Sequence labelling in structured domains with hierarchical recurrent neural networks",
        section 3).

        Shape: features [B, T, F] -> log-probabilities [B, T', V] and [B, T'', V] in float32.
        """
        if self.spelling is None:
            return self.forward(features), None
        layers = self.encoder.layer_outputs(features)
        spelled = layers[self.config.hierarchical_ctc_layer - 1]
        return self.scores(self.encoder.finish(layers[-1])), _log_softmax(self.spelling, spelled)

    def scores(self, hidden: Padded) -> Padded:
        """Shape: encoder frames [B, T', output_size] -> log-probabilities [B, T', V]."""
        return _log_softmax(self.output, hidden)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def _ctc_layer(width: int, units: int) -> nn.Linear:
    layer = nn.Linear(width, units)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _log_softmax(layer: nn.Linear, hidden: Padded) -> Padded:
    scores = Padded(torch.log_softmax(layer(hidden.values).float(), dim=2), hidden.lengths)
    # Training checks its loss. Elsewhere a decoder would treat NaN as silence.
    watched = not torch.is_grad_enabled() and not scores.values.is_meta
    if watched and (torch.isnan(scores.values) & scores.mask()[:, :, None]).any():
        raise CheckpointError(
            "expected a network with finite scores, got one whose weights make them overflow: use "
            "the model of an earlier epoch, or train with a lower learning rate"
        )
    return scores
