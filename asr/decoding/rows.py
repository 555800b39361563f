"""Log-probabilities of utterances as numpy arrays, from torch or from another runtime.

Decoding on a CPU needs no torch: models exported as ONNX graphs are decoded without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asr.audio.samples import as_array

if TYPE_CHECKING:
    from asr.padded import Padded

Rows = Sequence[NDArray[np.float32]]
"""The log-probabilities of each utterance. Shape: B times [T, V]."""


def as_rows(log_probs: Padded | Rows) -> Rows:
    """Each utterance alone, on the CPU. Shape: [B, T, V] -> B times [T, V]."""
    if isinstance(log_probs, Sequence):
        return log_probs
    return [as_row(row) for row in log_probs.unpad()]


def as_row(values: Any) -> NDArray[np.float32]:
    """A tensor or an array as float32 on the CPU. Shape: any -> the same."""
    row: NDArray[np.float32] = np.asarray(as_array(values), np.float32)
    return row
