"""Any recording to mono float32 samples at one rate, whatever its container, rate and channels.

soundfile reads wav, flac, ogg/opus, NIST SPHERE and their relatives; PyAV reads the rest (mp3, mp4,
m4a, webm, aac, ...). Which one is decided by the first bytes, never by the suffix. mp3 goes to PyAV
because libsndfile's decoder seeks inexactly there and writes its complaints to stderr.

Letters: S samples, C channels.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from asr.audio_pyav import decode_pyav, open_pyav, stated_duration
from asr.audio_soundfile import decode_soundfile, open_soundfile
from asr.audio_source import Span, name_of, one_line, open_source, reason_of
from asr.errors import AudioError
from asr.files import atomic_path
from asr.pcm import to_int16

SAMPLE_RATE = 16000
"""The rate in Hz that models hear unless their configuration says otherwise."""

_RATES = range(1_000, 1_000_001)  # Hz; anything outside is a damaged header
_LARGEST_PEAK = 8.0  # decoders overshoot 1 a little; more than 18 dB is a file with another scale


def load_audio(
    source: str | Path | bytes | BinaryIO,
    rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: float | None = None,
) -> np.ndarray:
    """Samples of a recording, or of the seconds `start` to `end` of it.

    Channels are averaged, and the result is resampled (soxr, high quality) where the file has
    another rate. A stretch is sought, not decoded up to, in what soundfile reads; in mp3, mp4 and
    the like decoding runs from the beginning to `end`. An `end` past the last sample is cut there.

    Args:
        source: a file, its bytes, or a binary stream (read from where it stands).
        rate: Hz of the result.

    Shape: float32 [S] in [-1, 1], S about seconds * rate and at least 1.

    Raises:
        AudioError: missing or undecodable file, no samples, samples that are not finite.

    >>> import io, soundfile
    >>> wav = io.BytesIO()
    >>> soundfile.write(wav, np.zeros((8000, 2)), 8000, format="WAV")
    >>> load_audio(wav.getvalue()).shape
    (16000,)
    """
    name = name_of(source)
    _check_request(name, rate, start, end)
    span = Span(start, end)
    samples, file_rate = _guarded(name, source, lambda stream: _decode(stream, span))
    return _finish(name, samples, file_rate, rate, span)


def audio_duration(path: str | Path) -> float:
    """Seconds of a whole recording, from its header where that is exact, else by decoding.

    Raises AudioError: missing or undecodable file, no samples.
    """
    seconds = _guarded(name_of(path), path, _duration)
    if not 0 < seconds < math.inf:
        raise AudioError(
            f"{name_of(path)}: expected audio, got no samples; record or export it anew"
        )
    return seconds


def write_wav(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Write mono samples as a 16-bit PCM wav, whole or not at all; what exceeds [-1, 1] is clipped.

    Shape: samples [S], floating point.

    Raises:
        AudioError: samples that are not finite or not one channel; a place that cannot be written.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype.kind != "f" or not np.isfinite(samples).all():
        raise AudioError(
            f"{path}: expected finite floating-point samples of one channel, got {samples.dtype} of"
            f" shape {list(samples.shape)}; convert them before writing"
        )
    pcm = to_int16(samples)
    try:
        with atomic_path(path) as temporary:
            soundfile.write(os.fspath(temporary), pcm, rate, subtype="PCM_16", format="WAV")
    except (OSError, soundfile.SoundFileError) as error:
        raise AudioError(
            f"{path}: expected a place to write to, got {one_line(error)}; choose another path"
        ) from error


def _check_request(name: str, rate: int, start: float, end: float | None) -> None:
    if rate not in _RATES:
        raise AudioError(f"{name}: expected a target rate of 1000 to 1000000 Hz, got {rate}")
    if not 0 <= start < math.inf:
        raise AudioError(f"{name}: expected start >= 0 seconds, got {start}; correct the manifest")
    if end is not None and not end > start:
        raise AudioError(
            f"{name}: expected end > start, got start {start} and end {end} seconds;"
            " correct the manifest"
        )


def _guarded(name: str, source: Any, read: Any) -> Any:
    """`read` applied to the opened source; whatever goes wrong becomes one AudioError."""
    try:
        with (
            open_source(source) as stream,
            np.errstate(all="ignore"),
        ):  # infinite samples are found later
            return read(stream)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error.__cause__
    except Exception as error:  # the decoders raise nearly everything on damaged bytes
        raise AudioError(
            f"{name}: expected decodable audio, got '{reason_of(error)}' from the decoder;"
            " convert it again from the original or leave it out"
        ) from error


def _decode(stream: BinaryIO, span: Span) -> tuple[np.ndarray, int]:
    file = open_soundfile(stream)
    if file is None:
        return decode_pyav(stream, span)
    with file:
        return decode_soundfile(file, span), file.samplerate


def _duration(stream: BinaryIO) -> float:
    file = open_soundfile(stream)
    if file is not None:
        with file:
            return file.frames / file.samplerate
    with open_pyav(stream) as container:
        stated = stated_duration(container)
    if stated > 0:
        return stated
    stream.seek(0)
    samples, rate = decode_pyav(stream, Span(0.0, None))
    return len(samples) / rate if rate else 0.0


def _finish(name: str, samples: np.ndarray, file_rate: int, rate: int, span: Span) -> np.ndarray:
    """Checked, resampled and limited to [-1, 1]."""
    if not len(samples):
        where = f" from {span.start} s on" if span.start else ""
        raise AudioError(
            f"{name}: expected audio, got no samples{where}; record it anew or leave it out"
        )
    if file_rate not in _RATES:
        raise AudioError(
            f"{name}: expected a sample rate of 1000 to 1000000 Hz, got {file_rate};"
            " the header is damaged: convert it again from the original"
        )
    peak = max(float(samples.max()), -float(samples.min()))  # NaN stays NaN
    if not peak <= _LARGEST_PEAK:
        raise AudioError(
            f"{name}: expected samples within [-1, 1], got"
            f" {f'a peak of {peak:.6g}' if math.isfinite(peak) else 'NaN or infinite ones'};"
            " export it again as 16-bit PCM"
        )
    if file_rate != rate:
        samples = soxr.resample(samples, file_rate, rate, quality="HQ")
        if not len(samples):
            raise AudioError(f"{name}: expected audio, got less than a sample; leave it out")
    if file_rate != rate or peak > 1:
        samples = np.clip(samples, -1.0, 1.0, out=samples)
    return np.ascontiguousarray(samples, dtype=np.float32)
