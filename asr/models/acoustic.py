"""The acoustic model: features, encoder and linear CTC layer in one module."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from asr.errors import CheckpointError
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.models.attention_decoder import Attended, AttentionDecoder
from asr.models.config import ModelConfig
from asr.models.encoder import Encoder
from asr.padded import Padded


class Outputs(NamedTuple):
    """What training reads of a batch; its parts are described in `AcousticModel.outputs`."""

    log_probs: Padded
    spelled: Padded | None
    intermediate: list[Padded]
    attended: Padded | None = None


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
        cells, width = config.attention_decoder, self.encoder.output_size
        self.attention_decoder = (
            AttentionDecoder(width, cells, units, config.dropout) if cells else None
        )
        # Without bias, which the normalisation before the next layer would remove.
        projects = config.self_conditioning
        self.conditioning = nn.Linear(units, width, bias=False) if projects else None
        if self.conditioning is not None:
            # A network that is trained further begins as it was.
            nn.init.zeros_(self.conditioning.weight)

    def output_lengths(self, samples: Tensor, layer: int | None = None) -> Tensor:
        """Frames of log-probabilities for utterances with this many samples, or of the output of a
        recurrent layer, from 1. Shape: [B] -> [B]."""
        return self.encoder.output_lengths(self.features.output_lengths(samples), layer)

    def forward(self, features: Padded) -> Padded:
        """Shape: features [B, T, F] -> log-probabilities [B, T', V] in float32."""
        return self.scores(self.encoder(features, self.between))

    def forward_and_spell(self, features: Padded) -> tuple[Padded, Padded | None]:
        """The result of `forward`, and the output of the hierarchical CTC layer, if there is one.

        The second output comes from an earlier layer (hierarchical CTC: Fernandez et al. 2007,
        "Sequence labelling in structured domains with hierarchical recurrent neural networks",
        section 3).

        Shape: features [B, T, F] -> log-probabilities [B, T', V] and [B, T'', V] in float32.
        """
        layers = self.encoder.layer_outputs(features, self.between)
        hidden, spelled = self._last_and_spelled(layers)
        return self.scores(hidden), spelled

    def outputs(self, features: Padded, targets: Padded | None = None) -> Outputs:
        """What training reads: the result of `forward_and_spell`, the scores of each layer of
        `model.intermediate_ctc` by the output layer of the last one (Lee and Watanabe 2021,
        "Intermediate loss regularization for CTC-based speech recognition") and, with targets, the
        log-probabilities of their tokens and ends by the attention decoder. The features may be
        several views of the utterances of the targets.

        Shape: features [views * B, T, F], targets [B, U] -> log-probabilities [views * B, T', V]
        each (T' differs between layers with `model.pyramid`), and [views * B, U + 1, V].
        """
        layers = self.encoder.layer_outputs(features, self.between)
        hidden, spelled = self._last_and_spelled(layers)
        scores = self.scores(hidden)
        earlier = [self.scores(layers[number - 1]) for number in self.config.intermediate_ctc]
        if self.attention_decoder is None or targets is None:
            return Outputs(scores, spelled, earlier)
        views = len(features.lengths) // max(1, len(targets.lengths))
        tokens = targets.repeated(views)
        attended = self.attention_decoder(hidden, scores, tokens)
        return Outputs(scores, spelled, earlier, attended)

    def _last_and_spelled(self, layers: list[Padded]) -> tuple[Padded, Padded | None]:
        """The encoder's frames, and the output of the hierarchical CTC layer, if there is one."""
        hidden = self.encoder.finish(layers[-1])
        if self.spelling is None:
            return hidden, None
        return hidden, _log_softmax(self.spelling, layers[self.config.hierarchical_ctc_layer - 1])

    def between(self, number: int, x: Padded) -> Padded:
        """The input of the next layer: the output of a layer of `model.intermediate_ctc`, plus a
        projection of its probabilities of tokens (self-conditioned CTC, Nozaki and Komatsu 2021,
        "Relaxing the conditional independence assumption of CTC-based ASR by conditioning on
        intermediate predictions"). The same projection serves all layers.

        Shape: [B, T, output_size] -> the same.
        """
        if self.conditioning is None or number not in self.config.intermediate_ctc:
            return x
        probabilities = _log_softmax(self.output, x).values.exp()
        return Padded(x.values + self.conditioning(probabilities), x.lengths)

    def scores(self, hidden: Padded) -> Padded:
        """Log-probabilities; in evaluation mode `Attended`, if there is an attention decoder.

        Shape: encoder frames [B, T', output_size] -> log-probabilities [B, T', V].
        """
        scores = _log_softmax(self.output, hidden)
        if self.attention_decoder is None or self.training:
            return scores
        return Attended(scores.values, scores.lengths, hidden, self.attention_decoder)

    def parameter_count(self) -> int:
        """Without the attention decoder, which recognition by CTC does not need."""
        decoder = self.attention_decoder
        rescoring = 0 if decoder is None else sum(p.numel() for p in decoder.parameters())
        return sum(parameter.numel() for parameter in self.parameters()) - rescoring


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
