"""The features of a model, from configuration: filterbank, deltas, normalisation, stacking."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from asr.config import Config
from asr.features.filterbank import MFCC, Distortion, LogMel
from asr.features.kaldi import FramedLogMel, empty_bands
from asr.features.transforms import (
    GlobalNormalisation,
    append_deltas,
    normalise_utterance,
    stack_frames,
    stacked_lengths,
)
from asr.padded import Padded


class FeatureConfig(Config):
    """The input features of the acoustic model."""

    kind: Literal["mel", "mfcc", "kaldi", "nemo"] = "mel"
    """Log-mel energies, or cepstra (MFCC) computed from them; kaldi and nemo: log-mel energies as
    sherpa-onnx computes them on phones and boards, for models that are to use those."""
    sample_rate: int = Field(16000, ge=4000, le=96000)
    """Hz; audio with another rate is resampled to it."""
    bands: int = Field(80, ge=8, le=256)
    """Mel bands of the filterbank."""
    coefficients: int = Field(13, ge=1, le=256)
    """Number of cepstra, for kind mfcc."""
    window_ms: float = Field(25.0, gt=1, le=200)
    """Length of the analysis window of a frame."""
    shift_ms: float = Field(10.0, gt=1, le=100)
    """Step from one frame to the next."""
    deltas: int = Field(0, ge=0, le=2)
    """Order of appended time derivatives: 1 speed, 2 also acceleration."""
    cmvn: Literal["none", "utterance", "global"] = "utterance"
    """Mean and variance normalisation: over each utterance, over the training set, or none. With
    normalisation over utterances, features do not depend on the level of the recording, except
    those of kind nemo."""
    stack: int = Field(1, ge=1, le=16)
    """Number of neighbouring frames joined into one."""
    stride: int = Field(1, ge=1, le=16)
    """Of the joined frames, every n-th is kept."""

    @property
    def follows_level(self) -> bool:
        """Whether the features depend on the level; normalised over an utterance, they do not. The
        floor of kind nemo is absolute, because devices have applied it before any normalisation."""
        return self.cmvn != "utterance" or self.kind == "nemo"

    @model_validator(mode="after")
    def _cepstra_of_bands(self) -> Self:
        if self.kind == "mfcc" and self.coefficients > self.bands:
            raise ValueError("expected no more coefficients than bands")
        return self

    @model_validator(mode="after")
    def _bands_of_frequencies(self) -> Self:
        if self.kind == "kaldi" or self.kind == "nemo":
            empty = empty_bands(self.kind, self.sample_rate, self.bands, self.window_ms)
            if empty:  # kaldi-native-fbank ends the program
                raise ValueError(
                    f"expected bands of kind {self.kind} to be wide enough for a window of "
                    f"{self.window_ms:g} ms at {self.sample_rate} Hz, got {empty} empty ones of "
                    f"{self.bands}: lower features.bands"
                )
        return self


class FeatureExtractor(nn.Module):
    """Waveforms to features. Runs on the device of the model, always in float32.

    `shift` and `window`: samples between frames, and samples of an analysis window. `margin`:
    frames at either end of a slice of a recording that differ from those of the whole.
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.filterbank = _filterbank(config)
        log_mel = self.filterbank
        if isinstance(log_mel, MFCC):
            log_mel = log_mel.log_mel
        self.shift, self.window = log_mel.shift, log_mel.fft_size
        self.margin = log_mel.margin
        values = config.coefficients if config.kind == "mfcc" else config.bands
        frame_size = values * (config.deltas + 1)
        self.normalisation = GlobalNormalisation(frame_size) if config.cmvn == "global" else None
        self.size = frame_size * config.stack

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Feature frames of utterances with this many samples. Shape: [B] -> [B]."""
        return stacked_lengths(self.filterbank.output_lengths(samples), self.config.stride)

    def observe(self, waves: Padded) -> None:
        """Add a batch to the global statistics, if the configuration uses them."""
        if self.normalisation is not None:
            self.normalisation.observe(self._frames(waves))

    def forward(self, waves: Padded, distortion: Distortion | None = None) -> Padded:
        """Shape: [B, S] samples -> [B, T, size]; padding is zero."""
        features = self._frames(waves, distortion)
        if self.config.cmvn == "utterance":
            features = normalise_utterance(features)
        elif self.normalisation is not None:
            features = self.normalisation(features)
        if self.config.stack > 1 or self.config.stride > 1:
            features = stack_frames(features, self.config.stack, self.config.stride)
        return features

    def _frames(self, waves: Padded, distortion: Distortion | None = None) -> Padded:
        features: Padded = self.filterbank(waves, distortion)
        return append_deltas(features, self.config.deltas) if self.config.deltas else features


def _filterbank(config: FeatureConfig) -> LogMel | FramedLogMel | MFCC:
    sizes = (config.sample_rate, config.bands, config.window_ms, config.shift_ms)
    relative = not config.follows_level
    if config.kind == "kaldi" or config.kind == "nemo":
        return FramedLogMel(config.kind, *sizes, relative_floor=relative)
    log_mel = LogMel(*sizes, relative_floor=relative)
    return MFCC(log_mel, config.coefficients) if config.kind == "mfcc" else log_mel
