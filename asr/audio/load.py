"""Any recording as mono float32 samples at one rate, whatever its format, rate and channels.

soundfile reads wav, flac, ogg/opus, NIST SPHERE and similar formats; PyAV reads the rest (mp3, mp4,
m4a, webm, aac, ...) and damaged files. The first bytes decide which one, never the suffix. PyAV
reads mp3 because libsndfile's decoder seeks inexactly there and writes messages to stderr.

A damaged file yields all that can be decoded, with silence for the rest, and an `AudioWarning`.

Letters: S samples, C channels.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
import soxr

from asr.audio.chained import Link, links
from asr.audio.decode_pyav import pyav_blocks
from asr.audio.decode_soundfile import (
    is_complete,
    open_soundfile,
    salvaged_blocks,
    soundfile_blocks,
)
from asr.audio.headers import with_true_size
from asr.audio.pcm import to_int16
from asr.audio.samples import RATES
from asr.audio.source import Block, Span, Stream, name_of, one_line, open_source, reason_of
from asr.errors import AudioError, AudioWarning, disk_trouble
from asr.io.files import atomic_path

SAMPLE_RATE = 16000
"""The sample rate of models in Hz, unless their configuration sets another."""

MOST_HOURS = 4
"""The most that is decoded at once: 0.9 GB of samples at 16 kHz."""

Say = Callable[[str], None]

LARGEST_PEAK = 8.0  # decoders overshoot 1 a little; above 18 dB the file has another scale
_PIECE = 1 << 22  # samples that are resampled at once
_NOTHING = np.zeros(0, np.float32)


def load_audio(
    source: str | Path | bytes | BinaryIO,
    rate: int = SAMPLE_RATE,
    start: float = 0.0,
    end: float | None = None,
    say: Say | None = None,
) -> np.ndarray:
    """Samples of a recording, or of its seconds `start` to `end`.

    Channels are mixed so that none cancels another (`audio/channels.py`), and the result is
    resampled (soxr, high quality) if the file has another rate. A segment is reached by seeking in
    formats that soundfile reads; in mp3, mp4 and the like, decoding runs from the beginning to
    `end`. An `end` past the last sample is clipped. Times are those of a player: gaps and a late
    beginning are silence. Recordings joined into one file are read one after another.

    Args:
        source: a file, its bytes, or a binary stream (read from its position).
        rate: Hz of the result.
        say: reports damage; the default is an `AudioWarning`.

    Shape: float32 [S], S about seconds * rate and at least 1. Full scale is 1; louder samples of a
    floating-point file are kept, up to a peak of 8.

    Raises:
        AudioError: missing or undecodable file, no samples, samples that are not finite, more than
            `MOST_HOURS`.

    >>> import io, soundfile
    >>> wav = io.BytesIO()
    >>> soundfile.write(wav, np.zeros((8000, 2)), 8000, format="WAV")
    >>> load_audio(wav.getvalue()).shape
    (16000,)
    """
    name = name_of(source)
    _check_request(name, rate, start, end)
    span = Span(start, end)
    problems: list[str] = []
    samples = _guarded(name, source, lambda stream: _load(stream, span, rate, problems.append))
    if not len(samples):
        where = f" from {start} s on" if start else ""
        raise AudioError(
            f"{name}: expected audio, got no samples{where}; record it again or leave it out"
        )
    _report(name, problems, say)
    finished: np.ndarray = samples
    return finished


def audio_duration(path: str | Path, say: Say | None = None) -> float:
    """Seconds of a whole recording, from its header if that is exact, else by decoding.

    `say` reports damage; the default is an `AudioWarning`. Raises AudioError:
    missing or undecodable file, no samples.
    """
    problems: list[str] = []
    seconds = _guarded(name_of(path), path, lambda stream: _duration(stream, problems.append))
    if not 0 < seconds < math.inf:
        raise AudioError(
            f"{name_of(path)}: expected audio, got no samples; record it again or leave it out"
        )
    _report(name_of(path), problems, say)
    return float(seconds)


def write_wav(path: str | Path, samples: np.ndarray, rate: int) -> None:
    """Write mono samples as a 16-bit PCM wav, atomically; samples outside [-1, 1] are clipped.

    Shape: samples [S], floating point.

    Raises:
        AudioError: samples that are not finite or not one channel; a path that cannot be written.
        OSError: a full disk.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype.kind != "f" or not np.isfinite(samples).all():
        raise AudioError(
            f"{path}: expected finite floating-point samples of one channel, got {samples.dtype} of"
            f" shape {list(samples.shape)}; convert them before writing"
        )
    sound = io.BytesIO()  # the library's own error does not report a full disk
    try:
        soundfile.write(sound, to_int16(samples), rate, subtype="PCM_16", format="WAV")
        with atomic_path(path) as temporary:
            temporary.write_bytes(sound.getvalue())
    except (OSError, soundfile.SoundFileError) as error:
        if isinstance(error, OSError) and disk_trouble(error):
            raise
        raise AudioError(
            f"{path}: expected a writable path, got {one_line(error)}; choose another path"
        ) from error


def _check_request(name: str, rate: int, start: float, end: float | None) -> None:
    if rate not in RATES:
        raise AudioError(f"{name}: expected a target rate of 1000 to 1000000 Hz, got {rate}")
    if not 0 <= start < math.inf:
        raise AudioError(f"{name}: expected start >= 0 seconds, got {start}; correct the manifest")
    if end is not None and not end > start:
        raise AudioError(
            f"{name}: expected end > start, got start {start} and end {end} seconds;"
            " correct the manifest"
        )


def _guarded(name: str, source: Any, read: Any) -> Any:
    """`read` applied to the opened source; every failure becomes one AudioError."""
    try:
        return _beside_signals(source, read)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error.__cause__
    except Exception as error:  # the decoders raise almost any exception on damaged bytes
        raise AudioError(
            f"{name}: expected decodable audio, got '{reason_of(error)}' from the decoder;"
            " convert it again from the original or leave it out"
        ) from error


def _beside_signals(source: Any, read: Any) -> Any:
    """`read` applied to the opened source, in a thread that no signal interrupts.

    Decoders call Python to read a stream, and ignore exceptions raised there: a KeyboardInterrupt
    would be lost, and the read would count as empty.
    """

    def opened() -> Any:
        # infinite samples are found later
        with open_source(source) as stream, np.errstate(all="ignore"):
            return read(stream)

    if threading.current_thread() is not threading.main_thread():
        return opened()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(opened).result()


def _report(name: str, problems: list[str], say: Say | None) -> None:
    if problems and say is not None:
        say("; ".join(problems))
    elif problems:
        warnings.warn(AudioWarning(name, "; ".join(problems)), stacklevel=3)


# --- consecutive recordings of one file ---


def _load(stream: BinaryIO, span: Span, rate: int, say: Say) -> np.ndarray:
    """Samples at `rate` Hz in `span`, over all recordings in the file."""
    parts: list[np.ndarray] = []

    def load(link: Link, begin: float) -> float:
        if span.end is not None and begin >= span.end:
            return 0.0
        seconds, samples = _load_link(link, span.after(begin), rate, say)
        parts.append(samples)
        _check_length(sum(map(len, parts)) / rate)
        return seconds

    _all_links(stream, load, say)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _duration(stream: BinaryIO, say: Say) -> float:
    return _all_links(stream, lambda link, _: _link_duration(link, say), say)


def _all_links(stream: BinaryIO, read: Callable[[Link, float], float], say: Say) -> float:
    """Seconds of all recordings in a file. `read` takes each one and the seconds before it, and
    returns its seconds. A recording that cannot be decoded is skipped alone."""
    found = links(stream)
    seconds, errors = 0.0, []
    for number, link in enumerate(found, start=1):
        try:
            seconds += read(link, seconds)
        except Exception as error:
            errors.append(error)
            if isinstance(error, _TooLongError) or len(errors) == len(found):
                raise
            say(f"recording {number} of {len(found)} in it cannot be decoded: {reason_of(error)}")
    return seconds


def _load_link(link: Link, span: Span, rate: int, say: Say) -> tuple[float, np.ndarray]:
    """Seconds of a recording, and its samples at `rate` Hz in `span`."""
    stream, file = _opened(link, say)
    lasting = 0.0
    if file is not None:
        with file:
            first, stop = (min(place, file.frames) for place in span.frames(file.samplerate))
            _check_length((stop - first) / file.samplerate)
            try:
                samples, _ = _resampled(soundfile_blocks(file, span, say), span, rate)
                return file.frames / file.samplerate, samples
            except (soundfile.SoundFileError, EOFError) as error:
                if file.frames:
                    say(f"damaged ({reason_of(error)}): only the intact part is read")
                lasting = _promised(stream)
    if lasting and file is not None and file.format == "FLAC":
        return lasting, _resampled(salvaged_blocks(stream, span), span, rate)[0]
    samples, seconds = _resampled(_all_blocks(stream, say, file), span, rate)
    if lasting and len(samples):  # FFmpeg may drop the end, which would shorten the recording
        first, stop = Span(span.start, min(lasting, span.end or lasting)).frames(rate)
        seconds, missing = lasting, max(stop - first - len(samples), 0)
        samples = np.pad(samples, (0, missing))[: stop - first]
    return seconds, samples


def _promised(stream: Stream) -> float:
    """Seconds stated in the header if the last of these samples exists; else 0."""
    file = open_soundfile(stream)
    if file is None:
        return 0.0
    with file:
        _check_rate(file.samplerate)
        return float(file.frames / file.samplerate) if is_complete(file) else 0.0


def _link_duration(link: Link, say: Say) -> float:
    stream, file = _opened(link, say)
    if file is not None:
        file.close()
        seconds = _promised(stream)
        if seconds:
            return seconds
    return max((block.end for block in _all_blocks(stream, say, file)), default=0.0)


def _opened(link: Link, say: Say) -> tuple[Stream, soundfile.SoundFile | None]:
    """A recording with its true size, opened by libsndfile if that decodes it."""
    if link.damage:
        say(link.damage)
        return link.stream, None  # libsndfile would shorten the sound by each hole
    stream = with_true_size(link.stream, say)
    return stream, open_soundfile(stream)


def _all_blocks(
    stream: Stream, say: Say, file: soundfile.SoundFile | None
) -> Generator[Block, None, None]:
    """What PyAV decodes, also of a `file` that is too damaged for soundfile; nothing if that file
    is empty."""
    if file is not None and not file.frames and file.format != "OGG":
        return
    try:
        yield from pyav_blocks(stream, say)
    except av.FFmpegError:
        if file is None or file.frames:
            raise


# --- resampled samples ---


class _TooLongError(AudioError):
    """More than `MOST_HOURS`."""


def _check_length(seconds: float) -> None:
    if seconds > MOST_HOURS * 3600:
        raise _TooLongError(
            f"expected at most {MOST_HOURS} hours of sound at once, got more;"
            " cut the recording into shorter files, or select segments of it by start and end"
        )


def _resampled(
    blocks: Generator[Block, None, None], span: Span, rate: int
) -> tuple[np.ndarray, float]:
    """The checked samples in `span` at `rate` Hz, and the seconds from the beginning of the
    recording to the end of the blocks."""
    kept: list[np.ndarray] = []
    resampler, file_rate, wanted, end = None, 0, 0.0, 0.0
    with closing(blocks):
        for block in blocks:
            if span.end is not None and block.first >= span.frames(block.rate)[1]:
                break
            if block.rate != file_rate:
                if resampler is not None:
                    kept.append(resampler.resample_chunk(_NOTHING, last=True))
                file_rate = block.rate
                resampler = _resampler(file_rate, rate)
            samples = block.within(span)
            end, wanted = block.end, wanted + len(samples) / file_rate
            _check_length(wanted)
            for at in range(0, len(samples), _PIECE):
                piece = np.ascontiguousarray(samples[at : at + _PIECE], dtype=np.float32)
                _check_peak(piece)
                kept.append(piece if resampler is None else resampler.resample_chunk(piece))
    if resampler is not None:
        kept.append(resampler.resample_chunk(_NOTHING, last=True))
    samples = kept[0] if len(kept) == 1 else np.concatenate([_NOTHING, *kept])
    return samples, end


def _check_rate(rate: int) -> None:
    if rate not in RATES:
        raise AudioError(
            f"expected a sample rate of 1000 to 1000000 Hz, got {rate};"
            " the header is damaged: convert it again from the original"
        )


def _resampler(file_rate: int, rate: int) -> soxr.ResampleStream | None:
    _check_rate(file_rate)
    if file_rate == rate:
        return None
    return soxr.ResampleStream(file_rate, rate, 1, dtype="float32", quality="HQ")


def _check_peak(samples: np.ndarray) -> None:
    peak = max(float(samples.max()), -float(samples.min()))  # NaN stays NaN
    if not peak <= LARGEST_PEAK:
        raise AudioError(
            "expected samples within [-1, 1], got"
            f" {f'a peak of {peak:.6g}' if math.isfinite(peak) else 'NaN or infinite ones'};"
            " export it again as 16-bit PCM"
        )
