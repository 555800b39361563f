"""Recordings as they come out of a lossy codec, for training on what telephones and web pages send.

S samples.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Codec = Literal["mp3", "opus", "vorbis"]
CODECS: tuple[Codec, ...] = ("mp3", "opus", "vorbis")

_FORMATS = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "vorbis": ("OGG", "VORBIS")}
_RATE = 16000  # which all three know
_STRONGEST = 0.99  # compression: the fewest bits that all three can do


def through_codec(samples: NDArray[np.int16], sample_rate: int, codec: Codec) -> NDArray[np.int16]:
    """The same recording after the strongest compression, as long as before. Shape: [S] -> [S].

    A codec may shift it by some milliseconds, which words do not mind.
    """
    if not len(samples):
        return samples
    kind, subtype = _FORMATS[codec]
    stream = io.BytesIO()
    at_rate = soxr.resample(samples, sample_rate, _RATE) if sample_rate != _RATE else samples
    soundfile.write(
        stream, at_rate, _RATE, format=kind, subtype=subtype, compression_level=_STRONGEST
    )
    stream.seek(0)
    decoded, rate = soundfile.read(stream, dtype="int16")
    if rate != sample_rate:
        decoded = soxr.resample(decoded, rate, sample_rate)
    heard = np.zeros(len(samples), np.int16)
    heard[: len(decoded)] = decoded[: len(samples)]
    return heard
