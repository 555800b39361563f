"""Changes to training data that keep its words: speed perturbation and SpecAugment.

Random numbers come from torch's global generator, which the trainer seeds for every step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field, model_validator

from asr.augment.codecs import CODECS, Codec
from asr.config import Config

Decibels = Annotated[float, Field(ge=-20, le=60)]
Seconds = Annotated[float, Field(ge=0.05, le=3)]


class NoiseConfig(Config):
    """Recordings of noise that are added to training utterances."""

    folder: Path | None = None
    """Folder of recordings that are added from a random position; all of it is kept in memory,
    115 MB an hour at 16 kHz."""
    prob: float = Field(0.5, ge=0, le=1)
    """Probability that noise is added to an utterance, where there is a folder of it."""
    snr_db: tuple[Decibels, Decibels] = (5.0, 25.0)
    """Signal-to-noise ratio, drawn uniformly between the two."""

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Self:
        return _ordered(self, "snr_db", self.snr_db)


class ReverbConfig(Config):
    """Rooms in which training utterances are played."""

    prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance is reverberated."""
    rt60: tuple[Seconds, Seconds] = (0.1, 0.7)
    """Seconds in which the echo of a simulated room decays by 60 dB, drawn uniformly between the
    two."""
    folder: Path | None = None
    """Folder of recorded impulse responses, in place of simulated rooms."""

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
    """How training utterances are varied."""

    speeds: list[Annotated[float, Field(ge=0.5, le=2)]] = Field([0.9, 1.0, 1.1], min_length=1)
    """Each utterance is played at one of these speeds (from 0.5 to 2), drawn anew every epoch."""
    tempos: list[Annotated[float, Field(ge=0.5, le=2)]] = Field([1.0], min_length=1)
    """The same at its own pitch, beside the speed."""
    codec_prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance passes through a lossy codec, at its lowest quality."""
    codecs: list[Codec] = Field(list(CODECS), min_length=1)
    """Which one, drawn anew every time."""
    noise: NoiseConfig = NoiseConfig()
    reverb: ReverbConfig = ReverbConfig()
    telephone_prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance passes through a telephone: 300 to 3400 Hz in 8 bits."""
    vtlp: float = Field(0.1, ge=0, le=0.3)
    """Vocal tract length perturbation (Jaitly and Hinton 2013): largest stretch of the frequency
    axis, either way."""
    equaliser_db: float = Field(0.0, ge=0, le=20)
    """Deviation of a random equaliser's gains (FilterAugment, Nam et al. 2022): other microphones,
    rooms and distances."""
    gain_db: float = Field(10.0, ge=0, le=30)
    """Largest change of level, either way. With features.cmvn utterance, the default, none is made:
    features are then the same at any level."""
    concatenate_prob: float = Field(0.5, ge=0, le=1)
    """Probability that an utterance is concatenated with another one of its speaker: the words of a
    small corpus then stand in new places, and cannot be predicted from where a recording starts and
    ends."""
    splice_prob: float = Field(0.0, ge=0, le=1)
    """Probability that an utterance is replaced by a new sentence of words of the same speaker."""
    splice_from: float = Field(0.3, ge=0, le=1)
    """Share of the training after which the model aligns its data and splicing begins."""
    time_warp: int = Field(0, ge=0, le=1000)
    """SpecAugment: how far a random point of the utterance moves at most, in feature frames."""
    time_masks: int = Field(2, ge=0)
    """SpecAugment: stretches of time hidden in each utterance."""
    time_mask_frames: int = Field(25, ge=1)
    """Widest time mask, in feature frames; never more than a fifth of the utterance."""
    frequency_masks: int = Field(2, ge=0)
    """SpecAugment: stretches of the frequency axis hidden in each utterance."""
    frequency_mask_bands: int = Field(20, ge=1)
    """Widest frequency mask, in features."""
