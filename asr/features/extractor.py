"""The features of a model, from configuration: filterbank, deltas, normalisation, stacking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from asr.config import Config
from asr.errors import ConfigError
from asr.features.filterbank import MFCC, Distortion, LogMel
from asr.features.kaldi import FramedLogMel, empty_bands
from asr.features.pretrained_config import PretrainedNetwork
from asr.features.transforms import (
    GlobalNormalisation,
    append_deltas,
    normalise_utterance,
    stack_frames,
    stacked_lengths,
)
from asr.padded import Padded

if TYPE_CHECKING:
    from asr.features.pretrained import PretrainedFeatures

# Settings of the filterbank, which a pretrained network replaces.
OF_FILTERBANKS = ("bands", "coefficients", "window_ms", "shift_ms", "deltas")
# Settings of the training alone, which a model folder does not need.
OF_TRAINING = ("pretrained", "finetune_from", "finetune_lr_factor", "cache_gb")

# Values of `cmvn` that need the whole utterance before its first frame.
OVER_UTTERANCE = ("utterance", "level")


class FeatureConfig(Config):
    """The input features of the acoustic model."""

    kind: Literal["mel", "mfcc", "kaldi", "nemo", "pretrained"] = "mel"
    """Log-mel energies, or cepstra (MFCC) computed from them; kaldi and nemo: log-mel energies as
    sherpa-onnx computes them on phones and boards, for models that are to use those; pretrained:
    hidden states of a network that was trained on much speech."""
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
    cmvn: Literal["none", "utterance", "global", "level"] = "utterance"
    """Mean and variance normalisation: over each utterance, over the training set, or none. level:
    the level of each utterance is subtracted, and the rest normalised over the training set. With
    utterance and level, features do not depend on the level of the recording, except those of kind
    nemo; with level, they do not depend on the silence around the speech either."""
    stack: int = Field(1, ge=1, le=16)
    """Number of neighbouring frames joined into one."""
    stride: int = Field(1, ge=1, le=16)
    """Of the joined frames, every n-th is kept."""
    pretrained: str = Field("", max_length=4096)
    """For kind pretrained: a folder with wav2vec 2.0, HuBERT or WavLM in the files of transformers,
    or its name on the hub, NAME/MODEL or NAME/MODEL@REVISION."""
    finetune_from: float | None = Field(None, ge=0, lt=1)
    """Share of the training after which the pretrained network is trained too, from the next epoch
    on; null keeps it fixed."""
    finetune_lr_factor: float = Field(0.1, gt=0, le=1)
    """Factor on the learning rate of the pretrained network."""
    cache_gb: float = Field(20.0, ge=0)
    """Gigabytes on disk for the hidden states of fixed pretrained networks; an hour of a base model
    takes 7.2."""
    network: PretrainedNetwork | None = None
    """Structure of the pretrained network; not for recipes, since training reads it from the
    files."""

    @property
    def follows_level(self) -> bool:
        """Whether the features depend on the level; normalised over an utterance, they do not. The
        floor of kind nemo is absolute, because devices have applied it before any normalisation;
        some pretrained networks scale waveforms."""
        if self.kind == "pretrained":
            return self.network is None or not self.network.normalise
        return self.cmvn not in OVER_UTTERANCE or self.kind == "nemo"

    @property
    def centred(self) -> bool:
        """Whether zero is the mean of a feature, or close to it: the layers of a pretrained network
        normalise their outputs."""
        return self.cmvn != "none" or self.kind == "pretrained"

    @property
    def of_training_set(self) -> bool:
        """Whether features are normalised by statistics of the training set."""
        return self.cmvn in ("global", "level")

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        fields = type(self).model_fields
        changed = {key for key in fields if getattr(self, key) != fields[key].default}
        if self.kind != "pretrained":
            if others := sorted(changed & {*OF_TRAINING, "network"}):
                raise ValueError(f"expected {others[0]} only with kind pretrained")
            if self.kind == "nemo" and self.cmvn == "level":
                raise ValueError("expected cmvn none, utterance or global with kind nemo")
            return self
        if not self.pretrained and self.network is None:
            raise ValueError("expected a folder or a name on the hub in features.pretrained")
        if others := sorted(changed & set(OF_FILTERBANKS)):
            raise ValueError(
                f"expected no {others[0]} with kind pretrained, which has no filterbank"
            )
        if self.of_training_set:
            raise ValueError(
                "expected cmvn none or utterance with kind pretrained, whose features change in "
                "training"
            )
        if self.network is not None and self.network.sample_rate != self.sample_rate:
            raise ValueError(
                f"expected sample_rate {self.network.sample_rate}, the rate of the pretrained "
                f"network, got {self.sample_rate}: set it; recordings are resampled to it"
            )
        return self

    def as_saved(self) -> dict[str, Any]:
        """The settings that a model folder stores."""
        without = {*OF_TRAINING}
        without |= {*OF_FILTERBANKS} if self.kind == "pretrained" else {"network"}
        return self.model_dump(exclude=without)

    @model_validator(mode="after")
    def _check_coefficients(self) -> Self:
        if self.kind == "mfcc" and self.coefficients > self.bands:
            raise ValueError("expected no more coefficients than bands")
        return self

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
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

    `shift`: samples between frames. `window`: upper bound of the samples that a frame depends on,
    the size of the FFT, for the latency of streams. `margin`: frames at either end of a slice of a
    recording that differ from those of the whole.
    """

    filterbank: LogMel | FramedLogMel | MFCC
    """Of all kinds but pretrained."""

    def __init__(self, config: FeatureConfig) -> None:
        """Raises ConfigError for kind pretrained without the structure of its network."""
        super().__init__()
        self.config = config
        self.pretrained = _pretrained(config) if config.kind == "pretrained" else None
        if self.pretrained is not None:
            network = self.pretrained.description
            self.shift, self.window, self.margin = network.shift, network.window, 0
            frame_size = network.size
        else:
            self.filterbank = _filterbank(config)
            log_mel = self.filterbank
            if isinstance(log_mel, MFCC):
                log_mel = log_mel.log_mel
            self.shift, self.window = log_mel.shift, log_mel.fft_size
            self.margin = log_mel.margin
            values = config.coefficients if config.kind == "mfcc" else config.bands
            frame_size = values * (config.deltas + 1)
        self.normalisation = GlobalNormalisation(frame_size) if config.of_training_set else None
        self.size = frame_size * config.stack

    def output_lengths(self, samples: Tensor) -> Tensor:
        """Feature frames of utterances with this many samples. Shape: [B] -> [B]."""
        source = self.filterbank if self.pretrained is None else self.pretrained
        return stacked_lengths(source.output_lengths(samples), self.config.stride)

    def observe(self, waves: Padded) -> None:
        """Add a batch to the global statistics, if the configuration uses them."""
        if self.normalisation is not None:
            self.normalisation.observe(self._frames(waves))

    def forward(self, waves: Padded, distortion: Distortion | None = None) -> Padded:
        """Shape: [B, S] samples -> [B, T, size]; padding is zero. The frequencies of a pretrained
        network's features cannot be distorted."""
        features = self._frames(waves, distortion)
        if self.config.cmvn == "utterance":
            features = normalise_utterance(features)
        elif self.normalisation is not None:
            features = self.normalisation(features)
        if self.config.stack > 1 or self.config.stride > 1:
            features = stack_frames(features, self.config.stack, self.config.stride)
        return features

    def _frames(self, waves: Padded, distortion: Distortion | None = None) -> Padded:
        features: Padded
        if self.pretrained is not None:
            features = self.pretrained(waves)
            return features
        features = self.filterbank(waves, distortion)
        return append_deltas(features, self.config.deltas) if self.config.deltas else features


def _pretrained(config: FeatureConfig) -> PretrainedFeatures:
    from asr.features.pretrained import PretrainedFeatures

    if config.network is None:
        raise ConfigError(
            f"expected another features.kind here, got pretrained ({config.pretrained}): only asr "
            "train computes it"
        )
    return PretrainedFeatures(config.network)


def _filterbank(config: FeatureConfig) -> LogMel | FramedLogMel | MFCC:
    sizes = (config.sample_rate, config.bands, config.window_ms, config.shift_ms)
    floor = (not config.follows_level, config.cmvn == "level")
    if config.kind == "kaldi" or config.kind == "nemo":
        return FramedLogMel(config.kind, *sizes, *floor)
    log_mel = LogMel(*sizes, *floor)
    return MFCC(log_mel, config.coefficients) if config.kind == "mfcc" else log_mel
