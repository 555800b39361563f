"""Changes to training data that keep its words: speed perturbation and SpecAugment.

Random numbers come from torch's global generator, which the trainer seeds for every step.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from asr.augment.codecs import CODECS, Codec
from asr.augment.noise import SurroundingsConfig
from asr.config import Config


class AugmentConfig(Config):
    """How training utterances are varied."""

    speeds: list[Annotated[float, Field(ge=0.5, le=2)]] = Field([0.9, 1.0, 1.1], min_length=1)
    """Each utterance is played at one of these speeds (from 0.5 to 2), drawn anew every epoch."""
    tempos: list[Annotated[float, Field(ge=0.5, le=2)]] = Field([1.0], min_length=1)
    """The same at its own pitch, beside the speed."""
    codec_share: float = Field(0.0, ge=0, le=1)
    """Share of the utterances that come out of a lossy codec, at its lowest quality."""
    codecs: list[Codec] = Field(list(CODECS), min_length=1)
    """Which one, drawn anew every time."""
    surroundings: SurroundingsConfig = SurroundingsConfig()
    """Rooms, noise and telephones."""
    warp: float = Field(0.1, ge=0, le=0.3)
    """Largest stretch of the frequency axis, either way: other vocal tracts at the same tempo."""
    equaliser_db: float = Field(0.0, ge=0, le=20)
    """Deviation of a random equaliser's gains (FilterAugment, Nam et al. 2022): other microphones,
    rooms and distances."""
    gain_db: float = Field(10.0, ge=0, le=30)
    """Largest change of level, either way. With features.cmvn utterance, the default, none is made:
    features are then the same at any level."""
    join: float = Field(0.5, ge=0, le=1)
    """How readily two utterances of a speaker are played as one: the words of a small corpus then
    stand in ever new places, and cannot be told by where a recording starts and ends."""
    splice: float = Field(0.0, ge=0, le=1)
    """Share of the utterances replaced by new sentences from words of the same speaker."""
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
