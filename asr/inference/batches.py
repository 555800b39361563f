"""Pieces of recordings recognised together, in batches of similar length."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from asr.decoding.decoder import Decoder
from asr.errors import lacks_memory
from asr.inference.acoustics import BATCH_SECONDS, Acoustics
from asr.inference.long_form import WHOLE_S, Part
from asr.inference.onnx_model import OnnxModel
from asr.inference.time_formats import shifted
from asr.inference.word_times import Recognition, recognize_texts, recognize_waves

POOL_BATCHES = 8  # batches that are sorted by length together
MOST_PIECES = 1000  # in a batch
READ_AHEAD = 32  # pieces and ends of recordings, at least
READERS = 8  # threads that read for a GPU, at most

_NOTHING = np.zeros(0, np.float32)


class Batches:
    """Pieces that wait to be recognised. A text does not depend on the others in its batch.

    The first batches are small, so that the first texts come early.
    """

    def __init__(
        self, model: Acoustics, decoder: Decoder, words: bool, batch_seconds: float | None = None
    ) -> None:
        """`batch_seconds` is the most in a batch, with padding; by default a minute, or on a GPU
        what its free memory holds."""
        self._model, self._decoder, self._words = model, decoder, words
        self._most = batch_seconds or _batch_seconds(model)
        self._limit = min(self._most, BATCH_SECONDS)
        self._parts: list[Part] = []
        self.seconds = 0.0
        """Of the pieces that wait."""

    @property
    def read_ahead(self) -> int:
        """Number of pieces to read while a batch is computed: as many as it holds of the longest,
        so that a large batch on a GPU does not wait for all of the next one."""
        return min(max(READ_AHEAD, int(self._most / WHOLE_S)), MOST_PIECES)

    @property
    def readers(self) -> int:
        """Number of threads that read recordings. On a CPU it is one, and the other cores compute;
        a GPU, whose batches are larger, is faster than one thread reads."""
        if self._most <= BATCH_SECONDS:
            return 1
        return min(READERS, max(1, (os.cpu_count() or 1) - 1))

    def add(self, part: Part) -> None:
        self._parts.append(part)
        self.seconds += part.seconds

    @property
    def is_full(self) -> bool:
        """Whether the pieces should be recognised now."""
        return self.seconds >= self._limit

    def recognise(self) -> Iterator[None]:
        """Recognise all pieces and store their texts; yields after each batch."""
        self._limit = min(2 * self._limit, POOL_BATCHES * self._most)
        parts, self._parts = sorted(self._parts, key=lambda part: part.seconds), []
        while parts:
            batch = _last_batch(parts, self._most)
            del parts[-len(batch) :]
            self._write(batch)
            self.seconds = sum(part.seconds for part in parts)
            yield

    def _write(self, batch: Sequence[Part]) -> None:
        for part, result in zip(batch, self._recognized(batch), strict=True):
            part.text = result.text
            part.words = tuple(shifted(word, part.start) for word in result.words)
            part.samples = _NOTHING

    def _recognized(self, batch: Sequence[Part]) -> list[Recognition]:
        waves = [part.samples for part in batch]
        try:
            if self._words:
                return recognize_waves(self._model, self._decoder, waves)
            timed = [part.is_joined for part in batch]
            return recognize_texts(self._model, self._decoder, waves, timed)
        except RuntimeError as error:
            if len(batch) == 1 or not _is_out_of_memory(error):
                raise
        middle = len(batch) // 2
        self._most = min(self._most, middle * max(part.seconds for part in batch))
        return self._recognized(batch[:middle]) + self._recognized(batch[middle:])


def _last_batch(parts: Sequence[Part], most: float) -> Sequence[Part]:
    """The longest of some pieces, sorted by length, at least one and at most `most` seconds with
    padding."""
    longest = max(parts[-1].seconds, 1e-3)
    count = min(max(1, int(most / longest)), MOST_PIECES)
    return parts[-count:]


def _batch_seconds(model: Acoustics) -> float:
    if isinstance(model, OnnxModel):
        return BATCH_SECONDS
    from asr.inference.gpu_memory import batch_seconds

    return batch_seconds(model)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether there was too little memory; what torch keeps of a GPU's for later is then freed."""
    if not lacks_memory(error):
        return False
    import torch  # only where it runs

    torch.cuda.empty_cache()
    return True
