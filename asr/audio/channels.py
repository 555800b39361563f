"""Several channels as one: which of them are inverted, and how many hold sound.

A plain mean of eight channels of which one holds speech makes it 18 dB quieter, and that of two
channels of which one is inverted cancels it. So channels are added with signs that do not cancel,
and the sum is divided by the number of those that hold sound. None is left out: a speaker who is
silent in what was looked at may speak later.

The weights belong to the recording: they do not depend on which stretch of it is read.

Letters: C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MOST_SECONDS = 20.0
"""Of sound that are looked at."""

_QUIET = 1e-3  # of the loudest channel's power: less is no sound, or crosstalk
_OPPOSED = (
    -0.5
)  # correlation below which a channel is inverted; two microphones of a room have more
_MOST_GAIN = 8.0  # over the mean


def channel_weights(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """What each channel is multiplied by before they are added, negative where it is inverted.

    Shape: each piece [C, S] float -> float32 [C]; 1 / C each where no channel can be preferred.

    >>> speech = np.sin(np.arange(400.0))
    >>> channel_weights([np.stack([speech, -speech, 0 * speech])]).tolist()
    [0.5, -0.5, 0.5]
    """
    covariance: np.ndarray | float = 0.0
    count = 0
    for piece in pieces:
        centred = piece.astype(np.float64)
        centred -= centred.mean(axis=1, keepdims=True)  # constant offsets are no sound
        covariance = covariance + centred @ centred.T
        count = len(piece)
    matrix = np.reshape(covariance, (count, count)) if count else np.zeros((0, 0))
    power = matrix.diagonal()
    if not np.isfinite(matrix).all() or not (power > 0).any():
        return np.full(count, 1 / max(count, 1), np.float32)
    signs = np.zeros(count)
    for channel in sorted(range(count), key=lambda c: -power[c]):
        # Compared with the sum of the louder ones.
        together = float(signs @ matrix[channel])
        largest = float(np.sqrt(max(signs @ matrix @ signs, 0.0) * power[channel]))
        signs[channel] = -1.0 if together < _OPPOSED * largest else 1.0
    sounding = float((power > _QUIET * power.max()).sum())
    weights: np.ndarray = signs / max(sounding, count / _MOST_GAIN)
    return weights.astype(np.float32)


def mixed(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One channel of several: their mean where the weights do not fit. Shape: [C, S] -> [S]."""
    if len(samples) != len(weights) or (weights == 1 / len(weights)).all():
        mean: np.ndarray = samples.mean(axis=0, dtype=np.float32)
        return mean
    total: np.ndarray = weights @ samples.astype(np.float32)
    return total


def inverted(weights: np.ndarray) -> str:
    """In words which channels are inverted; "" where none is."""
    found = [str(place) for place, weight in enumerate(weights, start=1) if weight < 0]
    if not found:
        return ""
    which = f"channel {found[0]} is" if len(found) == 1 else f"channels {', '.join(found)} are"
    return f"{which} inverted, and turned round"
