"""Decoding by libsndfile: wav, flac, ogg and opus, NIST SPHERE and similar formats."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator

import numpy as np
import soundfile

from asr.audio.channels import MOST_SECONDS, Mix, mix_of
from asr.audio.source import LONGEST, Block, Span, Stream, View
from asr.errors import AudioError

# Signatures of the files that soundfile reads. libsndfile must not get other content: it would
# accept some non-audio files (Matlab, headerless) as sound.
SOUNDFILE_MAGIC = (
    b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"NIST_1A", b"FORM", b".snd", b"caff",
)  # fmt: skip
_BLOCK = 1 << 18  # samples of all channels per read, to limit the memory
_LONGEST_PAGE = 60  # seconds
_STEPS = 50  # steps per second in which damage is skipped
_GLIMPSES = 40


def _is_soundfile(stream: Stream) -> bool:
    stream.seek(0)
    head = stream.read(16)
    stream.seek(0)
    if not head:
        raise AudioError(
            "expected audio, got an empty file; convert it again from the original or leave it out"
        )
    return head.startswith(SOUNDFILE_MAGIC)


def open_soundfile(stream: Stream) -> soundfile.SoundFile | None:
    """None if libsndfile cannot read the content."""
    if not _is_soundfile(stream):
        return None
    try:
        if isinstance(stream, io.FileIO):
            # By descriptor: given a name, soundfile and libsndfile would consider the suffix.
            file = soundfile.SoundFile(stream.fileno(), closefd=False)
        else:
            file = soundfile.SoundFile(stream if isinstance(stream, View) else View(stream))
        if file.frames < LONGEST:
            return file
        file.close()  # flac of unknown length, as written to a pipe: soundfile fails at its end
    except soundfile.SoundFileError:  # for example mp3 or AAC in a wav, speex in an ogg
        pass
    return None


def is_complete(file: soundfile.SoundFile) -> bool:
    """Whether the last sample stated in the header exists. Only FLAC may lack it: for other
    formats, libsndfile counts the samples in the file."""
    if file.format != "FLAC" or not file.frames:
        return bool(file.frames)
    try:
        file.seek(file.frames - 1)
        return len(file.read(1)) == 1
    except soundfile.SoundFileError:
        return False


def file_mix(file: soundfile.SoundFile, channel: int | None, say: Callable[[str], None]) -> Mix:
    """How its channels become one (`mix_of`). Moves the position in the file."""
    if file.channels == 1:
        return mix_of([], channel or 1, say)
    return mix_of(_glimpses(file), channel, say)


def soundfile_blocks(
    file: soundfile.SoundFile, span: Span, mix: Mix
) -> Generator[Block, None, None]:
    """The samples in `span`, reached by seeking.

    Raises:
        soundfile.SoundFileError: damage that libsndfile detects.
        EOFError: fewer samples than the header states: libsndfile skips holes in ogg silently.
    """
    first, stop = (min(frame, file.frames) for frame in span.frames(file.samplerate))
    if not file.frames:
        raise EOFError("no samples")
    position = _sought(file, first)
    while position < stop:
        block = file.read(min(stop - position, max(1, _BLOCK // file.channels)), dtype="float32")
        if not len(block):
            raise EOFError("a hole in the file")
        yield Block(position, _mono(block, mix), file.samplerate)
        position += len(block)


def _mono(block: np.ndarray, mix: Mix) -> np.ndarray:
    return mix(np.atleast_2d(block.T))


def _glimpses(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Short segments spread over the recording, `MOST_SECONDS` in total. Shape: each [C, S]."""
    size = max(1, min(file.frames, round(MOST_SECONDS * file.samplerate)) // _GLIMPSES)
    try:
        for first in np.linspace(0, file.frames - size, _GLIMPSES).astype(int).tolist():
            file.seek(first)
            yield file.read(size, dtype="float32", always_2d=True).T
    except soundfile.SoundFileError:
        return  # damaged: reported when it is read


def _sought(file: soundfile.SoundFile, first: int) -> int:
    """The frame that is read next: `first`, or an earlier one. In the last page of Ogg Vorbis,
    libsndfile would seek one packet too far, and a page may last a minute."""
    if file.format == "OGG" and file.frames - first < _LONGEST_PAGE * file.samplerate:
        first = max(0, file.frames - 2 * _LONGEST_PAGE * file.samplerate)
    if first or file.channels > 1:  # glimpses of several channels were taken
        file.seek(first)
    return first


def salvaged_blocks(stream: Stream, span: Span, mix: Mix) -> Generator[Block, None, None]:
    """What libsndfile decodes of a damaged FLAC file in `span`, with silence for the rest.
    libsndfile resynchronises after a seek; FFmpeg would lose some frames around the damage."""
    position, stop, failures = 0, 1, 0
    while position < stop:
        file = open_soundfile(stream)
        assert file is not None  # it was open before
        with file:
            rate = file.samplerate
            first, stop = (min(frame, file.frames) for frame in span.frames(rate))
            position = max(position, first)
            try:
                file.seek(position)
                while position < stop:
                    block = file.read(min(stop - position, rate // _STEPS), dtype="float32")
                    failures = 0
                    if not len(block):
                        return
                    yield Block(position, _mono(block, mix), rate)
                    position += len(block)
            except soundfile.SoundFileError:
                # The steps grow, so that long damage does not take long.
                step = min(rate // _STEPS << min(failures, 5), stop - position)
                failures += 1
                yield Block(position, np.zeros(step, np.float32), rate)
                position += step
