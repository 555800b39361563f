"""Self-supervised pretraining of the encoder: predict labels of masked frames (BEST-RQ, Chiu et al.
2022, "Self-supervised learning with random-projection quantizer for speech recognition").

A frame's label is the entry of a random codebook that is nearest to a random projection of the
frame's features (section 3.1). Neither is ever trained, so labels need no transcripts and no other
model. Spans of the input are replaced by noise, and the encoder learns to predict the labels there.
Several codebooks give each frame several labels (Zhang et al. 2023, "Google USM", section 3.1).

K codebooks, V entries of each, D values of an entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.features.filterbank import speech_level
from asr.features.transforms import normalise_utterance, stack_frames, utterance_statistics
from asr.models.config import ModelConfig
from asr.models.encoder import Encoder
from asr.padded import Padded

QUIET_DB = 35.0  # below the level that the loudest tenth of the frames exceeds


class SpeechEncoder(nn.Module):
    """The part of an acoustic model that does not depend on tokens: features and encoder."""

    def __init__(self, features: FeatureConfig, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.features = FeatureExtractor(features)
        self.encoder = Encoder(self.features.size, config)

    @property
    def reduction(self) -> int:
        """Feature frames in an encoder frame."""
        return math.prod(self.config.strides) * 2**self.config.pyramid


class RandomProjection(nn.Module):
    """Frozen labels of encoder frames; a function of the seed and of the frame's own features.

    Shape: features [B, T, F] -> labels [B, T', K] int64, for the frames of `Encoder`.
    """

    projection: Tensor
    codes: Tensor

    def __init__(
        self, size: int, reduction: int, codebooks: int, codes: int, code_size: int, seed: int
    ) -> None:
        super().__init__()
        self.reduction = reduction
        random = torch.Generator().manual_seed(seed)
        width = size * reduction
        # Xavier's bound; the scale does not matter, because projections are normalised.
        bound = math.sqrt(6 / (width + code_size))
        drawn = torch.rand(codebooks, width, code_size, generator=random, dtype=torch.float64)
        self.register_buffer("projection", bound * (2 * drawn - 1))
        entries = torch.randn(codebooks, codes, code_size, generator=random, dtype=torch.float64)
        self.register_buffer("codes", functional.normalize(entries, dim=2))

    @torch.no_grad()
    def forward(self, features: Padded) -> Padded:
        # Both have length one, so the nearest entry is the one with the largest product. In
        # float64, rounding that differs with the batch decides no label.
        frames = windows(features, self.reduction)
        projected = torch.einsum("btf,kfd->btkd", frames.values.double(), self.projection)
        labels = torch.einsum("btkd,kvd->btkv", projected, self.codes).argmax(dim=3)
        return Padded(labels, frames.lengths)


def windows(features: Padded, reduction: int) -> Padded:
    """The feature frames around the centre of each encoder frame; zeros beyond the ends.

    Shape: [B, T, F] -> [B, ceil(T / reduction), reduction * F].
    """
    left = (reduction - 1) // 2
    T = features.values.shape[1]
    values = functional.pad(features.zeroed().values, (0, 0, left, 0))
    joined = stack_frames(Padded(values, features.lengths + left), reduction, reduction).values
    lengths = -(-features.lengths // reduction)
    return Padded(joined[:, : -(-T // reduction)], lengths)


def draw_mask(lengths: Tensor, frames: int, span: int, share: float) -> Tensor:
    """Encoder frames to mask, in spans of `span` frames that may overlap; of all frames, `share` is
    masked on average. Spans may begin before an utterance, so that all frames are equally likely.

    Shape: [B] -> [B, frames] bool.
    """
    begin = 1 - (1 - share) ** (1 / span)
    size = (len(lengths), frames + span - 1)
    starts = (torch.rand(size, device=lengths.device) < begin).float()
    mask = functional.max_pool1d(starts[:, None], span, stride=1)[:, 0] > 0
    return mask & (torch.arange(frames, device=lengths.device) < lengths[:, None])


def masked(features: Padded, mask: Tensor, reduction: int, noise: Tensor) -> Padded:
    """Replace all features of masked encoder frames by noise.

    Shape: features and noise [B, T, F], mask [B, T'] -> [B, T, F].
    """
    T = features.values.shape[1]
    frames = torch.arange(T, device=mask.device) + (reduction - 1) // 2
    hidden = functional.pad(mask, (0, 1))[:, frames // reduction, None]
    return Padded(torch.where(hidden, noise, features.values), features.lengths)


def audible(waves: Padded, samples: int, lengths: Tensor, frames: int) -> Tensor:
    """Whether each encoder frame is at most `QUIET_DB` below the level of its utterance: false in
    digital silence, and in pauses of clean recordings. `samples`: from one encoder frame to the
    next, at least 2.

    Shape: waves [B, S], lengths [B] -> [B, frames] bool.
    """
    values = functional.pad(waves.zeroed().values, (samples // 2, samples * frames))
    values = values[:, : samples * frames].unflatten(1, (frames, samples))
    power = values.var(dim=2, correction=0)  # without a constant offset
    with torch.autocast(power.device.type, enabled=False):  # in fp16, quiet powers would be 0
        level = speech_level(Padded(power[:, :, None], lengths), power.new_tensor([1e3]))
    return (power > level[:, None] * 10 ** (-QUIET_DB / 10)) & (
        torch.arange(frames, device=lengths.device) < lengths[:, None]
    )


@dataclass(frozen=True)
class Predicted:
    """Scores, labels, and which frames count.

    Shape: scores [B, T', K, V], labels [B, T', K], counted [B, T'].
    """

    scores: Tensor
    labels: Tensor
    counted: Tensor

    def loss(self) -> Tensor:
        """Cross entropy in nats, summed over counted frames, mean over codebooks. Shape: []."""
        losses = functional.cross_entropy(
            self.scores.flatten(0, 2).float(), self.labels.flatten(), reduction="none"
        )
        rows = losses.unflatten(0, self.labels.shape).mean(dim=2)
        return torch.where(self.counted, rows, 0.0).sum()

    @property
    def units(self) -> Tensor:
        """Number of counted frames. Shape: []."""
        return self.counted.sum()


class MaskedPrediction(nn.Module):
    """A `SpeechEncoder` with frozen labels, and an output layer that predicts them."""

    def __init__(
        self,
        body: SpeechEncoder,
        codebooks: int,
        codes: int,
        code_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.body, self.codebooks = body, codebooks
        size = body.features.size
        self.labels = RandomProjection(size, body.reduction, codebooks, codes, code_size, seed)
        self.output = nn.Linear(body.encoder.output_size, codebooks * codes)

    def label(self, features: Padded) -> Padded:
        """Labels of unmasked features; those without normalisation are normalised first.

        Shape: [B, T, F] -> [B, T', K] int64.
        """
        if self.body.features.config.cmvn == "none":
            features = normalise_utterance(features)
        labels: Padded = self.labels(features)
        return labels

    def forward(
        self, waves: Padded, features: Padded, span: int, share: float, noise: float
    ) -> Predicted:
        """Predict the labels of random masked frames; quiet frames do not count. They are replaced
        by noise around the mean, whose standard deviation is `noise` times that of the features.

        Shape: waves [B, S] and their features [B, T, F].
        """
        labels = self.label(features)
        frames = labels.values.shape[1]
        mask = draw_mask(labels.lengths, frames, span, share)
        extractor = self.body.features
        drawn = noise * torch.randn_like(features.values)
        if not extractor.config.centred:
            mean, variance = utterance_statistics(features)
            drawn = mean + variance.sqrt() * drawn
        hidden = self.body.encoder(masked(features, mask, self.body.reduction, drawn))
        samples = extractor.shift * extractor.config.stride * self.body.reduction
        counted = mask & audible(waves, samples, labels.lengths, frames)
        scores = self.output(hidden.values).unflatten(2, (self.codebooks, -1))
        return Predicted(scores, labels.values, counted)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
