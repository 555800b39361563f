"""Raw PCM from a pipe: every sample, whatever the pieces; the stop; what is no PCM."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from asr.audio.pcm_input import PcmInput
from asr.errors import AudioError
from tests.recordings import tone, with_soundfile

STEPS = np.arange(-3000, 3000, dtype="<i2")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def read(source: PcmInput) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *source.blocks()])


@pytest.mark.parametrize("size", [1, 3, 500, 12000])
def test_every_sample_comes_whatever_the_pieces(pipe: tuple[int, int], size: int) -> None:
    reading, writing = pipe
    content = STEPS.tobytes() + b"\x01"  # and half a sample

    def feed() -> None:
        for at in range(0, len(content), size):
            os.write(writing, content[at : at + size])
        os.close(writing)

    thread = threading.Thread(target=feed)
    thread.start()
    samples = read(PcmInput(reading, 8000))
    thread.join()
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, STEPS / np.float32(32768))


@pytest.mark.parametrize("content", [b"", b"\x00", b"\x00\x40", b"\x00\x40\x00"])
def test_short_inputs(pipe: tuple[int, int], content: bytes) -> None:
    reading, writing = pipe
    os.write(writing, content)
    os.close(writing)
    np.testing.assert_array_equal(read(PcmInput(reading, 8000)), [0.5] * (len(content) // 2))


def test_the_stop_ends_the_input_after_what_the_pipe_holds(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, STEPS.tobytes())
    source = PcmInput(reading, 8000)
    blocks = source.blocks()
    first = next(blocks)
    assert len(first) == 800  # a tenth of a second: later samples are not waited for
    source.stop()
    rest = np.concatenate(list(blocks))
    np.testing.assert_array_equal(np.concatenate([first, rest]), STEPS / np.float32(32768))


def test_an_endless_input_ends_after_the_stop() -> None:
    with open("/dev/zero", "rb") as endless:  # noqa: PTH123
        source = PcmInput(endless.fileno(), 8000)
        blocks = source.blocks()
        next(blocks)
        source.stop()
        assert sum(map(len, blocks)) <= 40_000


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_an_audio_file_is_refused_with_advice(pipe: tuple[int, int], kind: str) -> None:
    reading, writing = pipe
    os.write(writing, with_soundfile(tone(0.1, 16000), 16000, kind))
    with pytest.raises(AudioError, match="got an audio file; leave out --live, or decode it"):
        next(PcmInput(reading, 16000).blocks())


def test_a_terminal_is_refused_with_advice() -> None:
    master, terminal = os.openpty()
    with pytest.raises(AudioError, match="got a terminal; send them by a pipe, as in: arecord"):
        PcmInput(terminal, 16000)
    os.close(master)
    os.close(terminal)
