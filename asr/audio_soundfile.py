"""Decoding by libsndfile: wav, flac, ogg and opus, NIST SPHERE and their relatives."""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
import soundfile

from asr.audio_source import LONGEST, Quiet, Span, check_complete, joined
from asr.errors import AudioError

# First bytes of what soundfile is asked to read. Other content never reaches libsndfile, which
# would take some non-audio files (Matlab, headerless) for sound.
_SOUNDFILE_MAGIC = (
    b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"NIST_1A", b"FORM", b".snd", b"caff",
)  # fmt: skip
_BLOCK = 1 << 22  # samples of all channels per read, so that a lying header cannot claim memory


def _is_soundfile(stream: BinaryIO) -> bool:
    head = stream.read(16)
    stream.seek(0)
    if not head:
        raise AudioError(
            "expected audio, got an empty file; convert it again from the original or leave it out"
        )
    return head.startswith(_SOUNDFILE_MAGIC)


def open_soundfile(stream: BinaryIO) -> soundfile.SoundFile | None:
    """None where the content is nothing for soundfile; `stream` is then at its beginning."""
    if not _is_soundfile(stream):
        return None
    try:
        if isinstance(stream, io.BytesIO):
            file = soundfile.SoundFile(Quiet(stream))
        else:  # by descriptor, since given a name soundfile and libsndfile look at the suffix
            file = soundfile.SoundFile(stream.fileno(), closefd=False)
        if file.frames < LONGEST:
            return file
        file.close()  # flac of unknown length, as written to a pipe: soundfile fails at its end
    except soundfile.SoundFileError:  # for example mp3 or AAC in a wav, speex in an ogg
        pass
    stream.seek(0)
    return None


def decode_soundfile(file: soundfile.SoundFile, span: Span) -> np.ndarray:
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
    check_complete(stop - left, stop, missing=0)
    return joined(blocks)
