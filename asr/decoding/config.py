"""Settings of the beam search and of its language models."""

from __future__ import annotations

from pydantic import Field

from asr.config import Config


class BeamConfig(Config):
    """Size and pruning of the search."""

    size: int = Field(32, ge=1, le=10_000)
    """Number of prefixes kept after every frame."""
    nats: float = Field(25.0, gt=0, le=1e9)
    """Prefixes whose score is this much below the best are dropped."""
    token_nats: float = Field(12.0, gt=0, le=1e9)
    """Tokens whose log-probability is this much below the best of a frame are skipped, except by
    the search in torch (on a GPU, and with rescore.every_step)."""
    recombine: bool = True
    """With an n-gram model of words, keep only the best of prefixes with equal future costs. The
    same beam then finds better but fewer texts; n-best lists are made without."""


class LanguageConfig(Config):
    """Weights of the language model against the acoustic model. Scores are in nats."""

    weight: float = Field(0.5, ge=0, le=100)
    """Factor on the log-probabilities of the n-gram model."""
    word_bonus: float = Field(0.0, ge=-1000, le=1000)
    """Added for every word, because language models favour few words."""
    unknown_score: float = Field(-5.0, ge=-10_000, le=0)
    """Added to the score of <unk> for a word that the n-gram model does not contain."""


class RescoreConfig(Config):
    """Weights of a recurrent language model for the texts of the beam, in nats."""

    weight: float = Field(0.3, ge=0, le=100)
    """Factor on the log-probabilities of the recurrent language model, which are added to the other
    scores."""
    word_bonus: float = Field(1.0, ge=-1000, le=1000)
    """Added for every word, because language models favour few words."""
    every_step: bool = False
    """Apply it at every step of the search instead of rescoring. It must have the recogniser's
    tokens; n-gram model, lexicon and hot words are then not allowed. Slow without a GPU."""
