"""Changes to training data that keep the transcript valid: noise, speed, SpecAugment and others.

Random numbers come from torch's global generator, which the trainer seeds for every step.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field, model_validator

from asr.augment.codecs import CODECS, Codec
from asr.config import Config

Decibels = Annotated[float, Field(ge=-20, le=60)]
Seconds = Annotated[float, Field(ge=0.05, le=3)]

TICKS = 20  # speeds are multiples of 1 / TICKS: resampling filters are then short


class NoiseConfig(Config):
    """Noise recordings that are added to training utterances."""

    folder: Path | None = None
    """Folder of noise recordings, added from a random position; all are kept in memory, 115 MB per
    hour at 16 kHz."""
    prob: float = Field(0.5, ge=0, le=1)
    """Probability that noise is added to an utterance, if there is a folder."""
    snr_db: tuple[Decibels, Decibels] = (5.0, 25.0)
    """Signal-to-noise ratio, drawn uniformly between the two."""

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Self:
        return _ordered(self, "snr_db", self.snr_db)


class ReverbConfig(Config):
    """Simulated or recorded rooms for training utterances."""

    prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance is reverberated."""
    rt60: tuple[Seconds, Seconds] = (0.1, 0.7)
    """Seconds in which the echo of a simulated room decays by 60 dB, drawn uniformly between the
    two."""
    folder: Path | None = None
    """Folder of recorded impulse responses, instead of simulated rooms."""

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Self:
        return _ordered(self, "rt60", self.rt60)


C = TypeVar("C", bound=Config)


def _ordered(config: C, name: str, bounds: tuple[float, float]) -> C:
    low, high = bounds
    if low > high:
        raise ValueError(f"expected {name} from low to high, got {low:g} to {high:g}")
    return config


class AugmentConfig(Config):
    """Random changes of training utterances."""

    speeds: list[Annotated[float, Field(ge=0.5, le=2)]] = Field([0.9, 1.0, 1.1], min_length=1)
    """Speeds (0.5 to 2, in steps of 0.05) at which utterances are played, drawn again in every
    epoch."""
    tempos: list[Annotated[float, Field(ge=0.5, le=2)]] = Field([1.0], min_length=1)
    """Tempos at unchanged pitch, in addition to the speed."""
    codec_prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance passes through a lossy codec, at its lowest quality."""
    codecs: list[Codec] = Field(list(CODECS), min_length=1)
    """The codecs, one of which is drawn each time."""
    noise: NoiseConfig = NoiseConfig()
    reverb: ReverbConfig = ReverbConfig()
    telephone_prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance passes through a telephone: 300 to 3400 Hz in 8 bits."""
    lower_rate_prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance sounds as if recorded at a lower sampling rate."""
    lower_rates: list[Annotated[int, Field(ge=6000, le=48000)]] = Field([8000, 11025], min_length=1)
    """The sampling rates, one of which is drawn each time."""
    trim_prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance is cut tightly: without what is 15 to 35 dB (drawn) below its
    loudest moment at either end."""
    vtlp: float = Field(0.1, ge=0, le=0.3)
    """Vocal tract length perturbation (Jaitly and Hinton 2013): largest stretch of the frequency
    axis, either way. It has no effect with features.kind pretrained, nor has equaliser_db."""
    equaliser_db: float = Field(0.0, ge=0, le=20)
    """Standard deviation of the gains of a random equaliser (FilterAugment, Nam et al. 2022), as
    from other microphones, rooms and distances."""
    gain_db: float = Field(10.0, ge=0, le=30)
    """Largest change of level, up or down. It has no effect with features.cmvn utterance, the
    default, or level, whose features do not depend on it (those of features.kind nemo do, and of
    pretrained networks that do not normalise it)."""
    concatenate_prob: float = Field(0.5, ge=0, le=1)
    """Probability that an utterance is concatenated with another one of its speaker. The words of a
    small corpus then occur at new positions, and cannot be predicted from the start and the end of
    a recording."""
    splice_prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance is replaced by a new sentence of words of the same speaker."""
    short_prob: float = Field(0.0, ge=0, le=1)
    """Probability that such a sentence has one to three words only, as commands have."""
    splice_from: float = Field(0.3, ge=0, le=1)
    """Share of the training after which the model aligns its data and splicing begins."""
    time_warp: int = Field(0, ge=0, le=1000)
    """SpecAugment: largest shift of a random point of the utterance, in feature frames."""
    time_masks: int = Field(2, ge=0)
    """SpecAugment: number of time masks per utterance."""
    time_mask_frames: int = Field(25, ge=1)
    """Widest time mask, in feature frames; never more than a fifth of the utterance."""
    frequency_masks: int = Field(2, ge=0)
    """SpecAugment: number of frequency masks per utterance."""
    frequency_mask_bands: int = Field(20, ge=1)
    """Widest frequency mask, in features; half of them if there are no more than this."""

    @model_validator(mode="after")
    def _check_speeds(self) -> Self:
        for speed in self.speeds:
            if not math.isclose(speed * TICKS, round(speed * TICKS)):
                raise ValueError(f"expected speeds in steps of {1 / TICKS:g}, got {speed:g}")
        return self

    def changes_waveforms(self, level: bool) -> bool:
        """Whether training changes recordings before their features are computed; `level`: features
        depend on the level."""
        return (
            set(self.speeds) != {1.0}
            or set(self.tempos) != {1.0}
            or (self.noise.folder is not None and self.noise.prob > 0)
            or any((self.reverb.prob, self.telephone_prob, self.codec_prob))
            or any((self.lower_rate_prob, self.trim_prob))
            or any((self.concatenate_prob, self.splice_prob))
            or (level and self.gain_db > 0)
        )
