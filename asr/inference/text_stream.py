"""Streaming transcription: samples in, the text so far out.

S samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import soxr
import torch

from asr.audio.mono import as_mono
from asr.audio.samples import RATE_RANGE, RATES
from asr.decoding.decoder import Decoder
from asr.decoding.incremental import IncrementalDecoder
from asr.errors import StreamError
from asr.inference.streaming import Stream
from asr.models.bundle import Bundle


@dataclass(frozen=True)
class StreamText:
    """The text recognised so far."""

    text: str
    """Final: later texts of the stream begin with it. Its last word may be incomplete."""
    partial: str = ""
    """The text after `text` at present; later samples may change it."""


class TextStream:
    """One utterance as it arrives: `push` samples, then `finish`, which the end of a `with` block
    also calls. `text` is the text recognised so far.

    Raises ConfigError for a model that needs the whole utterance, StreamError for a wrong rate.
    """

    def __init__(self, bundle: Bundle, decoder: Decoder, sample_rate: int | None = None) -> None:
        """`sample_rate` is that of the samples, in Hz; by default that of the model."""
        rate = bundle.sample_rate if sample_rate is None else sample_rate
        if rate not in RATES:
            raise StreamError(f"expected a sample_rate of {RATE_RANGE}, got {rate!r}")
        self._scores = Stream(bundle.model, bundle.chunk)
        self._decoder = IncrementalDecoder(decoder)
        self._resampler = None
        if rate != bundle.sample_rate:
            self._resampler = soxr.ResampleStream(
                rate, bundle.sample_rate, 1, dtype="float32", quality="HQ"
            )
        self._text = StreamText("")
        self._finished = False

    def push(self, samples: Any) -> StreamText:
        """Recognize further samples. Shape: [S], any S; floating point within [-1, 1], or 16-bit or
        32-bit integers.

        Raises StreamError for other samples and after `finish`.
        """
        if self._finished:
            raise StreamError("expected no samples after the end, got some: start a new stream")
        return self._advance(as_mono(samples), last=False)

    def finish(self) -> StreamText:
        """The whole text, all of it final. Further calls return it again."""
        if not self._finished:
            self._advance(np.zeros(0, np.float32), last=True)
            self._finished = True
        return self._text

    @property
    def text(self) -> str:
        """The final text so far; after the stream's end, all of it."""
        return self._text.text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()

    def _advance(self, samples: np.ndarray, last: bool) -> StreamText:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        scores = self._scores.push(torch.from_numpy(samples))
        final, best = self._decoder.push(scores)
        if last:
            self._decoder.push(self._scores.finish())
            final = best = self._decoder.finish()
        self._text = StreamText(final, best[len(final) :])
        return self._text
