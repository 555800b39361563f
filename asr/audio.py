"""Any recording to mono float32 samples at one rate, whatever its container, rate and channels.

soundfile reads wav, flac, ogg/opus, NIST SPHERE and their relatives; PyAV reads the rest (mp3, mp4,
m4a, webm, aac, ...). Which one is decided by the first bytes, never by the suffix. mp3 goes to PyAV
because libsndfile's decoder seeks inexactly there and writes its complaints to stderr.

Letters: S samples, C channels.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
import soxr

from asr.errors import AudioError
from asr.files import atomic_path
from asr.pcm import to_int16

SAMPLE_RATE = 16000
"""The rate in Hz that models hear unless their configuration says otherwise."""
AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".mp4", ".m4a", ".webm", ".aac"}
)
"""What `find_audio` looks for in a folder, in lower case."""

# First bytes of what soundfile is asked to read. Other content never reaches libsndfile, which
# would take some non-audio files (Matlab, headerless) for sound.
_SOUNDFILE_MAGIC = (
    b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"NIST_1A", b"FORM", b".snd", b"caff",
)  # fmt: skip
# Self-contained containers only: no playlists, which could name other files or addresses.
_PYAV_FORMATS = (
    "mov,mp4,m4a,3gp,matroska,webm,mp3,aac,ogg,flac,wav,w64,nistsphere,aiff,au,caf,asf,amr,flv,"
    "avi,mpegts,mpeg,ac3"
)
# Containers that state the duration of each track; elsewhere it is that of the longest track, or
# estimated from the bit rate.
_TIMED_CONTAINERS = ("mov", "ogg")
_MISSING = 0.5  # seconds that may lack of the stated duration before the file counts as damaged

_RATES = range(1_000, 1_000_001)  # Hz; anything outside is a damaged header
_BLOCK = 1 << 22  # samples of all channels per read, so that a lying header cannot claim memory
_LARGEST_PEAK = 8.0  # decoders overshoot 1 a little; more than 18 dB is a file with another scale
_LONGEST = 1 << 62  # frames; libsndfile says "unknown" with the largest integer


@dataclass(frozen=True)
class _Span:
    """A stretch of a recording in seconds; `end` None means to the last sample."""

    start: float
    end: float | None

    def frames(self, rate: int) -> tuple[int, int]:
        """First frame and the one after the last at `rate` Hz."""
        stop = _LONGEST if self.end is None else round(min(self.end * rate, _LONGEST))
        return round(min(self.start * rate, _LONGEST)), stop


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
    name = _name(source)
    _check_request(name, rate, start, end)
    span = _Span(start, end)
    samples, file_rate = _guarded(name, source, lambda stream: _decode(stream, span))
    return _finish(name, samples, file_rate, rate, span)


def audio_duration(path: str | Path) -> float:
    """Seconds of a whole recording, from its header where that is exact, else by decoding.

    Raises AudioError: missing or undecodable file, no samples.
    """
    seconds = _guarded(_name(path), path, _duration)
    if not 0 < seconds < math.inf:
        raise AudioError(f"{_name(path)}: expected audio, got no samples; record or export it anew")
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
            f"{path}: expected a place to write to, got {_one_line(error)}; choose another path"
        ) from error


def find_audio(paths: Iterable[str | Path]) -> list[Path]:
    """The recordings meant by `paths`: files as they are, folders searched below, each file once.

    Within a folder only files with a suffix in `AUDIO_SUFFIXES` count, in sorted order.

    Raises:
        AudioError: a path that does not exist.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        # os.path says False, where Path raises, to names that no file system takes.
        if os.path.isdir(path):  # noqa: PTH112
            below = (p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            found += sorted(p for p in below if p.is_file())
        elif os.path.exists(path):  # noqa: PTH110
            found.append(path)
        else:
            raise AudioError(
                f"{_one_line(path)}: expected a recording or a folder, got a path to nothing;"
                " check it"
            )
    return list(dict.fromkeys(found))


# --- naming, opening, guarding ---


def _name(source: Any) -> str:
    if isinstance(source, (str, Path)):
        return _one_line(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    name = getattr(source, "name", None)
    return _one_line(name) if isinstance(name, str) else "<stream>"


def _one_line(value: object) -> str:
    return " ".join(str(value).split()).rstrip(".") or type(value).__name__


def _reason(error: Exception) -> str:
    """The decoder's own words, without error numbers and file names."""
    words = getattr(error, "strerror", None) or getattr(error, "error_string", None) or error
    return _one_line(words).removeprefix("Error : ")


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


def _open(source: Any) -> BinaryIO:
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            what = "something else" if Path(source).exists() else "a path to nothing"
            raise AudioError(f"expected an audio file, got {what}; check the path")
        # Unbuffered: libsndfile reads the same descriptor, so its position must be the true one.
        return Path(source).open("rb", buffering=0)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    return io.BytesIO(source.read())


def _guarded(name: str, source: Any, read: Any) -> Any:
    """`read` applied to the opened source; whatever goes wrong becomes one AudioError."""
    try:
        with _open(source) as stream, np.errstate(all="ignore"):  # infinite samples are found later
            return read(stream)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error.__cause__
    except Exception as error:  # the decoders raise nearly everything on damaged bytes
        raise AudioError(
            f"{name}: expected decodable audio, got '{_reason(error)}' from the decoder;"
            " convert it again from the original or leave it out"
        ) from error


# --- decoding ---


class _Quiet:
    """A stream for the decoders, which print a traceback for every position that Python refuses."""

    def __init__(self, stream: BinaryIO) -> None:
        self._size = stream.seek(0, io.SEEK_END)
        self._stream = stream
        self.read, self.tell = stream.read, stream.tell
        stream.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        offset += (0, self._stream.tell(), self._size)[whence]
        # -1 is an error to the decoders; what lies past the end reads as the end.
        return self._stream.seek(min(offset, self._size)) if offset >= 0 else -1


def _is_soundfile(stream: BinaryIO) -> bool:
    head = stream.read(16)
    stream.seek(0)
    if not head:
        raise AudioError(
            "expected audio, got an empty file; convert it again from the original or leave it out"
        )
    return head.startswith(_SOUNDFILE_MAGIC)


def _open_soundfile(stream: BinaryIO) -> soundfile.SoundFile | None:
    """None where the content is nothing for soundfile; `stream` is then at its beginning."""
    if not _is_soundfile(stream):
        return None
    try:
        if isinstance(stream, io.BytesIO):
            file = soundfile.SoundFile(_Quiet(stream))
        else:  # by descriptor, since given a name soundfile and libsndfile look at the suffix
            file = soundfile.SoundFile(stream.fileno(), closefd=False)
        if file.frames < _LONGEST:
            return file
        file.close()  # flac of unknown length, as written to a pipe: soundfile fails at its end
    except soundfile.SoundFileError:  # for example mp3 or AAC in a wav, speex in an ogg
        pass
    stream.seek(0)
    return None


def _decode(stream: BinaryIO, span: _Span) -> tuple[np.ndarray, int]:
    file = _open_soundfile(stream)
    if file is None:
        return _decode_pyav(stream, span)
    with file:
        return _decode_soundfile(file, span), file.samplerate


def _decode_soundfile(file: soundfile.SoundFile, span: _Span) -> np.ndarray:
    first, stop = (min(frame, file.frames) for frame in span.frames(file.samplerate))
    if first:
        file.seek(first)
    blocks: list[np.ndarray] = []
    left = stop - first
    while left > 0:
        block = file.read(min(left, max(1, _BLOCK // file.channels)), dtype="float32")
        if not len(block):
            break
        blocks.append(block if block.ndim == 1 else block.mean(axis=1))
        left -= len(block)
    _check_complete(stop - left, stop, missing=0)
    return _joined(blocks)


def _check_complete(frames: int, stated: int, missing: int) -> None:
    """Decoders pass silently over holes in ogg and mp4; the header tells."""
    if frames + missing < stated:
        raise AudioError(
            f"expected {stated} samples as the header says, got {frames};"
            " the file is damaged: convert it again from the original or leave it out"
        )


def _joined(blocks: Sequence[np.ndarray]) -> np.ndarray:
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _open_pyav(stream: BinaryIO) -> Any:
    container = av.open(_Quiet(stream), options={"format_whitelist": _PYAV_FORMATS})
    if not container.streams.audio:
        container.close()
        raise AudioError("expected an audio track, got none; give a recording with sound")
    return container


def _decode_pyav(stream: BinaryIO, span: _Span) -> tuple[np.ndarray, int]:
    with _open_pyav(stream) as container:
        rate, first, stop, position = 0, 0, 0, 0
        blocks: list[np.ndarray] = []
        for block, block_rate in _pyav_blocks(container):
            if not rate:
                rate = block_rate
                first, stop = span.frames(rate)
            if block_rate != rate:
                raise AudioError(
                    f"expected one sample rate, got {rate} and then {block_rate} Hz;"
                    " convert the file to wav first"
                )
            blocks.append(block[max(first - position, 0) : max(stop - position, 0)])
            position += len(block)
            if position >= stop:
                break
        _check_complete(
            position, min(stop, round(_stated_duration(container) * rate)), round(_MISSING * rate)
        )
        return _joined(blocks), rate


def _stated_duration(container: Any) -> float:
    """Seconds of the audio track as the header has them; 0 where it does not."""
    track = container.streams.audio[0]
    if not track.duration or not container.format.name.startswith(_TIMED_CONTAINERS):
        return 0.0
    return float(track.duration * track.time_base)


def _pyav_blocks(container: Any) -> Iterator[tuple[np.ndarray, int]]:
    """Mono float32 blocks [S] of the first audio track, each with its rate in Hz."""
    for frame in container.decode(container.streams.audio[0]):
        values = frame.to_ndarray()
        if not frame.format.is_planar:  # [1, S * C] interleaved
            values = values.reshape(-1, len(frame.layout.channels)).T
        if values.dtype.kind == "u":
            values = values.astype(np.float32) - 128.0
            values /= 128.0
        elif values.dtype.kind == "i":
            values = values / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
        yield values.mean(axis=0, dtype=np.float32), frame.sample_rate


def _duration(stream: BinaryIO) -> float:
    file = _open_soundfile(stream)
    if file is not None:
        with file:
            return file.frames / file.samplerate
    with _open_pyav(stream) as container:
        stated = _stated_duration(container)
    if stated > 0:
        return stated
    stream.seek(0)
    samples, rate = _decode_pyav(stream, _Span(0.0, None))
    return len(samples) / rate if rate else 0.0


def _finish(name: str, samples: np.ndarray, file_rate: int, rate: int, span: _Span) -> np.ndarray:
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
