"""Mixing channels: which channels are inverted, and how many contain sound.

The plain mean of eight channels, one of which contains speech, is 18 dB quieter than the speech.
The mean of two channels, one of which is inverted, cancels the signal. Channels are therefore added
with signs that avoid cancellation, and the sum is divided by the number of channels with sound. No
channel is left out: a speaker who is silent in the examined part may speak later.

The weights belong to the recording: they do not depend on the segment that is read.

Letters: C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

Mix = Callable[[np.ndarray], np.ndarray]
"""Channels to one. Shape: [C, S] -> [S]."""

MOST_SECONDS = 20.0
"""Seconds of sound that are examined."""

_QUIET = 1e-3  # relative to the power of the loudest channel; below it is silence or crosstalk
_OPPOSED = (
    -0.5
)  # correlation below which a channel is inverted; two microphones in a room correlate more
_MOST_GAIN = 8.0  # over the mean


def mix_of(pieces: Iterable[np.ndarray], channel: int | None, say: Callable[[str], None]) -> Mix:
    """How a recording becomes one channel: as its pieces suggest, or that `channel`, from 1. `say`
    reports inverted channels. Shape: each piece [C, S]."""
    if channel is not None:
        return partial(selected, channel=channel)
    weights = channel_weights(pieces)
    if words := inverted(weights):
        say(words)
    return partial(mixed, weights=weights)


def selected(samples: np.ndarray, channel: int) -> np.ndarray:
    """One channel, from 1; silence if a part of a recording lacks it. Shape: [C, S] -> [S]."""
    if channel > len(samples):
        return np.zeros(samples.shape[1], np.float32)
    return samples[channel - 1]


def channel_weights(pieces: Iterable[np.ndarray]) -> np.ndarray:
    """The factor of each channel in the sum; negative for an inverted channel.

    Shape: each piece [C, S] float -> float32 [C]; 1 / C each if no channel can be preferred.

    >>> speech = np.sin(np.arange(400.0))
    >>> channel_weights([np.stack([speech, -speech, 0 * speech])]).tolist()
    [0.5, -0.5, 0.5]
    """
    covariance: np.ndarray | float = 0.0
    count = 0
    for piece in pieces:
        centred = piece.astype(np.float64)
        centred -= centred.mean(axis=1, keepdims=True)  # constant offsets are not sound
        covariance = covariance + centred @ centred.T
        count = len(piece)
    matrix = np.reshape(covariance, (count, count)) if count else np.zeros((0, 0))
    power = matrix.diagonal()
    if not np.isfinite(matrix).all() or not (power > 0).any():
        return np.full(count, 1 / max(count, 1), np.float32)
    signs = np.zeros(count)
    for channel in sorted(range(count), key=lambda c: -power[c]):
        # Compare with the sum of the louder channels.
        together = float(signs @ matrix[channel])
        largest = float(np.sqrt(max(signs @ matrix @ signs, 0.0) * power[channel]))
        signs[channel] = -1.0 if together < _OPPOSED * largest else 1.0
    sounding = float((power > _QUIET * power.max()).sum())
    weights: np.ndarray = signs / max(sounding, count / _MOST_GAIN)
    return weights.astype(np.float32)


def mixed(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mix channels into one; the plain mean if the weights do not fit. Shape: [C, S] -> [S]."""
    if len(samples) != len(weights) or (weights == 1 / len(weights)).all():
        mean: np.ndarray = samples.mean(axis=0, dtype=np.float32)
        return mean
    total: np.ndarray = weights @ samples.astype(np.float32)
    return total


def inverted(weights: np.ndarray) -> str:
    """A message that names the inverted channels; "" if there are none."""
    found = [str(place) for place, weight in enumerate(weights, start=1) if weight < 0]
    if not found:
        return ""
    which = f"channel {found[0]} is" if len(found) == 1 else f"channels {', '.join(found)} are"
    return f"{which} inverted; this is corrected"
