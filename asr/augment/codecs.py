"""Recordings after a lossy codec, for training on the sound of telephones and web pages.

S samples.
"""

from __future__ import annotations

import io
from typing import Literal, get_args

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.audio.pcm import to_int16

Codec = Literal["mp3", "opus", "vorbis"]
CODECS: tuple[Codec, ...] = get_args(Codec)

_FORMATS = {"mp3": ("MP3", "MPEG_LAYER_III"), "vorbis": ("OGG", "VORBIS")}
_RATE = 16000  # which all three codecs support
_STRONGEST = 0.99  # compression: the lowest bit rate that both codecs support
_MOST_AT_ONCE = 60 * _RATE  # samples
_OPUS_BITS = 12000  # per second
# libsndfile refuses most Opus files of a single page, which holds a second.
_LEAST_OPUS = _RATE + _RATE // 10  # samples


def through_codec(samples: NDArray[np.int16], sample_rate: int, codec: Codec) -> NDArray[np.int16]:
    """The recording after the strongest compression, with its length kept. Shape: [S] -> [S].

    A codec may shift the recording by some milliseconds, which does not affect words.
    """
    if not len(samples):
        return samples
    at_rate = soxr.resample(samples, sample_rate, _RATE) if sample_rate != _RATE else samples
    stream = io.BytesIO()
    if codec == "opus":
        _write_opus(stream, np.pad(at_rate, (0, max(0, _LEAST_OPUS - len(at_rate)))))
    else:
        kind, subtype = _FORMATS[codec]
        with soundfile.SoundFile(
            stream, "w", _RATE, 1, subtype, format=kind, compression_level=_STRONGEST
        ) as file:
            # In parts: Vorbis allocates stack for its whole input, and an overflow ends the
            # process.
            for at in range(0, len(at_rate), _MOST_AT_ONCE):
                file.write(at_rate[at : at + _MOST_AT_ONCE])
    stream.seek(0)
    # As floating point: libsndfile does not clip what Vorbis decodes to integers.
    decoded, rate = soundfile.read(stream, dtype="float32")
    if rate != sample_rate:
        decoded = soxr.resample(decoded, rate, sample_rate)
    output = np.zeros(len(samples), np.int16)
    output[: len(decoded)] = to_int16(decoded[: len(samples)])
    return output


def _write_opus(stream: io.BytesIO, samples: NDArray[np.int16]) -> None:
    """By FFmpeg, whose encoder has a fast setting: libsndfile's takes twice as long."""
    with av.open(stream, "w", format="ogg") as file:
        options = {"compression_level": "0", "application": "voip"}
        track = file.add_stream("libopus", rate=_RATE, layout="mono", options=options)
        track.bit_rate = _OPUS_BITS
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = _RATE
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
