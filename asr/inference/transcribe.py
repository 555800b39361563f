"""Recordings to text with a trained model."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
import torch

from asr.audio.load import load_audio
from asr.audio.pcm import to_pcm
from asr.audio.samples import as_recording
from asr.audio.source import name_of
from asr.dataset.prefetch import prefetch
from asr.decoding.decoder import Decoder
from asr.errors import AudioError, CheckpointError
from asr.inference.decode import BATCH_SECONDS, decode_waves
from asr.inference.time_formats import Word
from asr.inference.transcript import Segment, Transcript
from asr.inference.word_times import recognize_waves
from asr.io.printable import printable, printable_name
from asr.models.bundle import Bundle
from asr.padded import pad

MOST_WAITING = 128  # files, readable or not, whose results are pending
BYTES_A_SECOND = (
    900_000  # bytes of memory per second of sound on a CPU: the included model takes 870,000
)

Source = str | Path | bytes | bytearray | memoryview | BinaryIO | np.ndarray
"""A recording: a path, the bytes of a file, an open binary file, or an array of samples."""

Loaded = tuple[Any, torch.Tensor | AudioError]  # a source, and its samples or its error
Timed = tuple[str, tuple[Word, ...]]  # a text, and its words if requested


def default_model() -> Path:
    """The folder of the AN4 model in the package: spelled words and numbers, American English.

    `recipes/an4` trains it. Raises CheckpointError if the package was installed without it.
    """
    folder = Path(__file__).resolve().parent / "default_model"
    if not folder.is_dir():
        raise CheckpointError("expected --model, got none, and no model is included here: give one")
    return folder


def is_source(value: Any) -> bool:
    """Whether this is a single recording: a path, bytes, an open file or an array."""
    single = str | os.PathLike | bytes | bytearray | memoryview
    return isinstance(value, single) or hasattr(value, "read") or hasattr(value, "__array__")


def transcribe(
    bundle: Bundle,
    sources: Iterable[Source],
    decoder: Decoder | None = None,
    words: bool = False,
    sample_rate: int | None = None,
) -> Iterator[Transcript]:
    """Transcribe recordings in order; one that cannot be read becomes an error entry.

    Without `decoder`, decoding is greedy; `asr.decoding.folder.load_decoder` returns the decoder of
    a model. With `words`, each word has its time and confidence. `sample_rate` is that of samples
    given as arrays, in Hz.

    Recordings are read ahead and decoded together, about a minute of audio at a time. One that is
    too long for the free memory becomes an error entry as well.
    """
    bundle.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    rate = bundle.sample_rate
    decoder = decoder or Decoder(bundle.tokens)

    def load(source: Any) -> Loaded:
        try:
            samples = to_pcm(_samples(source, sample_rate, rate)).samples  # rounded as in a dataset
            if not torch.cuda.is_available():
                _check_memory(source, len(samples) / rate)
            return source, torch.from_numpy(samples)
        except AudioError as error:
            return source, error

    waiting: list[Loaded] = []
    count = longest = 0  # of the waiting waves, in samples
    with prefetch(load, sources, depth=16) as results:
        for loaded in results:
            _, wave = loaded
            length = 0 if isinstance(wave, AudioError) else len(wave)
            padded = (count + (length > 0)) * max(longest, length)
            if padded > BATCH_SECONDS * rate or len(waiting) == MOST_WAITING:
                yield from _decode(bundle, decoder, waiting, words)
                waiting, count, longest = [], 0, 0
            if not length and not waiting:
                yield from _decode(bundle, decoder, [loaded], words)
                continue
            waiting.append(loaded)
            count, longest = count + (length > 0), max(longest, length)
    yield from _decode(bundle, decoder, waiting, words)


def _samples(source: Any, sample_rate: int | None, rate: int) -> np.ndarray:
    """The samples of any source at `rate` Hz. Shape: [S]. Raises AudioError."""
    if not is_source(source):
        raise AudioError(
            "expected a path, bytes, an open file or an array of samples, got "
            f"{type(source).__name__}: convert it"
        )
    if isinstance(source, io.TextIOBase):
        raise AudioError("expected a file in binary mode, got one in text mode: open it with 'rb'")
    if isinstance(source, str | os.PathLike):
        source = Path(source)
        if source.is_dir():
            raise AudioError(f"{printable_name(source)}: expected a file, got a folder")
    elif hasattr(source, "__array__"):
        source = as_recording(source, sample_rate)
    return load_audio(source, rate)


def _check_memory(source: Any, seconds: float) -> None:
    """Raise AudioError if the free memory is too small to decode a recording as a whole."""
    most = psutil.virtual_memory().available / BYTES_A_SECOND
    if seconds > most:
        raise AudioError(
            f"{printable(name_of(source))}: expected at most {most / 60:.0f} minutes of sound, the"
            f" limit of the free memory, got {seconds / 60:.0f}; cut the recording into"
            " shorter files, or close other programs"
        )


def _decode(
    bundle: Bundle, decoder: Decoder, loaded: Sequence[Loaded], words: bool
) -> Iterator[Transcript]:
    waves = [wave for _, wave in loaded if not isinstance(wave, AudioError)]
    results: Iterator[Timed] = iter(())
    if waves and words:
        rows = recognize_waves(bundle.model, decoder, pad(waves), bundle.sample_rate)
        results = iter([(row.text, row.words) for row in rows])
    elif waves:
        results = iter([(text, ()) for text in decode_waves(bundle.model, pad(waves), decoder)])
    for source, wave in loaded:
        path = Path(source) if isinstance(source, str | os.PathLike) else None
        if isinstance(wave, AudioError):
            yield Transcript(path, error=str(wave))
        else:
            text, times = next(results)
            seconds = len(wave) / bundle.sample_rate
            yield Transcript(path, (Segment(0.0, seconds, text, times),), seconds)
