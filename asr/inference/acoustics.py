"""What recognition needs of a model, whether torch or onnxruntime runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from asr.decoding.rows import Rows
from asr.text.tokens import Tokens

if TYPE_CHECKING:
    from asr.padded import Padded

BATCH_SECONDS = 60.0  # of audio in a batch on a CPU, with padding

Waves = Sequence[NDArray[np.float32]]
"""Recordings at the rate of the model, in [-1, 1]. Shape: B times [S]."""


class Acoustics(Protocol):
    """A model: `asr.models.bundle.Bundle` or `asr.inference.onnx_model.OnnxModel`."""

    @property
    def sample_rate(self) -> int:
        """Hz of the recordings."""

    @property
    def tokens(self) -> Tokens: ...

    @property
    def info(self) -> dict[str, Any]:
        """Facts about the model."""

    def normalise(self, text: str) -> str:
        """A transcript with the normalisation of training."""

    def score(self, waves: Waves) -> tuple[Padded | Rows, Padded | Rows | None]:
        """Log-probabilities [B, T, V] of the last layer and [B, T', V'] of the hierarchical CTC
        layer, if there is one."""
