"""Live recognition: the text of endless audio while somebody speaks, an utterance at a time.

A detector of speech finds where an utterance begins and the pause that ends it. A model that can
stream recognises the samples as they arrive. Any other model recognises the utterance so far again
and again, as often as the machine manages, and once more at its end.

S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import soxr

from asr.audio.mono import as_mono
from asr.audio.samples import RATE_RANGE, RATES
from asr.audio.speech_regions import Region, RegionConfig, RegionFinder
from asr.audio.vad import speech_detector
from asr.decoding.decoder import Decoder
from asr.errors import AsrError, StreamError
from asr.inference.acoustics import Acoustics
from asr.inference.live_clock import Clock
from asr.inference.live_utterance import Audio, GrowingUtterance, LiveText, WholeUtterance
from asr.inference.onnx_model import OnnxModel
from asr.inference.word_times import recognize_scores

PIECE_S = 0.1  # seconds of samples that are processed together
REGIONS = RegionConfig(silence_s=0.6, pad_s=0.2)
"""A pause of 0.6 s ends an utterance."""
LONG_S = 10.0  # an utterance of this length ends at a pause of `pad_s` already,
LONGEST_S = 20.0  # and one of this length is cut at its quietest moment
KEPT_S = 2.0  # seconds of audio that are kept before the detector has found speech in them

_NOTHING = np.zeros(0, np.float32)


def live(
    model: Acoustics,
    decoder: Decoder,
    blocks: Iterable[Any],
    sample_rate: int | None = None,
    clock: Clock | None = None,
) -> Iterator[LiveText]:
    """The texts of utterances in endless audio: each as it grows, then its final text.

    Args:
        blocks: mono samples, each [S] of any S: floating point within [-1, 1], or 16-bit or 32-bit
            integers. Their end is the end of the last utterance.
        sample_rate: Hz of the samples; by default that of the model.
        clock: counts audio and work; a new one by default.

    Memory does not grow with the audio. If `blocks` raises an AsrError, the last utterance is
    finished before the error is raised again.

    Raises StreamError for a wrong rate and for other samples.
    """
    recognition = Live(model, decoder, sample_rate, clock)
    warm_up(model, decoder)
    return _texts(recognition, blocks)


class Live:
    """Live recognition of samples as they are pushed; `live` does the same for an iterable.

    Both methods recognise while they are iterated over. Iterate to the end.
    """

    def __init__(
        self,
        model: Acoustics,
        decoder: Decoder,
        sample_rate: int | None = None,
        clock: Clock | None = None,
        regions: RegionConfig = REGIONS,
    ) -> None:
        """`sample_rate` is that of the samples in Hz, by default that of the model; `regions` says
        which pause ends an utterance. Raises StreamError for a wrong rate."""
        rate = model.sample_rate if sample_rate is None else sample_rate
        if rate not in RATES:
            raise StreamError(f"expected a sample_rate of {RATE_RANGE}, got {rate!r}")
        self._rate = model.sample_rate
        self._clock = clock or Clock()
        self._pieces = _Pieces(rate, self._rate)
        self._session = _Session(model, decoder, self._clock, regions)

    def push(self, samples: Any) -> Iterator[LiveText]:
        """The texts that further samples give. Shape: [S], any S, of the types of `live`.

        Raises StreamError for other samples.
        """
        for piece in self._pieces.push(as_mono(samples)):
            yield from self._recognize(piece)

    def finish(self) -> Iterator[LiveText]:
        """The end of the samples, and so of the last utterance."""
        for piece in self._pieces.finish():
            yield from self._recognize(piece)
        self._clock.deliver(0.0)
        yield from self._session.finish()
        self._clock.rest()

    def _recognize(self, piece: np.ndarray) -> Iterator[LiveText]:
        self._clock.deliver(len(piece) / self._rate)
        yield from self._session.push(piece)
        self._clock.rest()


def warm_up(model: Acoustics, decoder: Decoder) -> None:
    """Recognize a second of noise, and random scores, which give words. The first recognition of a
    process takes seconds longer than others, for which nobody who speaks should have to wait."""
    random = np.random.default_rng(0)
    session, audio = _Session(model, decoder, Clock()), Audio()
    samples = random.normal(0, 0.01, model.sample_rate).astype(np.float32)
    audio.append(samples)
    for _ in (*session.push(samples), *session.utterance(0).finish(audio, audio.end)):
        pass
    if decoder.config.rescore.every_step:  # its search is that of whole utterances
        return
    scores = random.normal(0, 3, (33, len(model.tokens)))
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    recognize_scores(decoder, scores, 1.0, decoder.texts([scores.astype(np.float32)])[0])


def _texts(recognition: Live, blocks: Iterable[Any]) -> Iterator[LiveText]:
    failure: AsrError | None = None
    checked = (as_mono(block) for block in blocks)
    while True:
        try:
            samples = next(checked, None)
        except AsrError as error:
            samples, failure = None, error
        yield from recognition.finish() if samples is None else recognition.push(samples)
        if failure is not None:
            raise failure
        if samples is None:
            return


class _Pieces:
    """The samples at the wanted rate, `PIECE_S` at a time, so that neither time nor results depend
    on the size of the blocks. Shape: each [S], float32."""

    def __init__(self, rate: int, wanted: int) -> None:
        self._resampler = None
        if rate != wanted:
            self._resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
        self._size, self._step = round(PIECE_S * wanted), max(1, round(PIECE_S * rate))
        self._waiting = _NOTHING

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        for at in range(0, len(samples), self._step):
            part = samples[at : at + self._step]
            if self._resampler is not None:
                part = self._resampler.resample_chunk(part)
            self._waiting = np.concatenate([self._waiting, part])
            while len(self._waiting) >= self._size:
                piece, self._waiting = np.split(self._waiting, [self._size])
                yield piece

    def finish(self) -> Iterator[np.ndarray]:
        rest = self._waiting
        if self._resampler is not None:
            last = self._resampler.resample_chunk(_NOTHING, last=True)
            rest = np.concatenate([rest, last])
        if len(rest):
            yield rest


def _kind(
    model: Acoustics, decoder: Decoder
) -> Callable[[Any, Decoder, Clock, int], GrowingUtterance]:
    """How utterances are recognised. An exported model needs them whole."""
    if isinstance(model, OnnxModel):
        return WholeUtterance
    from asr.inference.live_stream import StreamedUtterance, can_stream
    from asr.models.bundle import Bundle

    assert isinstance(model, Bundle)
    return StreamedUtterance if can_stream(model, decoder) else WholeUtterance


class _Session:
    """Splits audio into utterances. Positions are samples since the beginning."""

    def __init__(
        self,
        model: Acoustics,
        decoder: Decoder,
        clock: Clock,
        regions: RegionConfig = REGIONS,
    ) -> None:
        self._model, self._decoder, self._clock = model, decoder, clock
        self._rate = model.sample_rate
        self._kind = _kind(model, decoder)
        self._detector = speech_detector(self._rate)
        self._finder = RegionFinder(self._detector.window_s, regions)
        self._audio = Audio()
        self._utterance: GrowingUtterance | None = None
        self._done = 0  # the audio before belongs to utterances that have ended

    def push(self, piece: np.ndarray) -> Iterator[LiveText]:
        self._audio.append(piece)
        for ended in self._finder.push(self._detector.push(piece)):
            yield from self._end(ended)
        region = self._finder.open
        if region is not None and self._at(region.end) > self._done:
            yield from self._grow(region)
        kept = self._audio.end - round(KEPT_S * self._rate)
        if self._utterance is not None:
            kept = self._utterance.start
        elif region is not None:
            kept = min(kept, self._at(region.start))
        self._audio.drop(max(self._done, kept))

    def finish(self) -> Iterator[LiveText]:
        for region in self._finder.push(self._detector.finish()) + self._finder.finish():
            yield from self._end(region)

    def _at(self, second: float) -> int:
        return round(second * self._rate)

    def utterance(self, start: int) -> GrowingUtterance:
        """A new utterance."""
        return self._kind(self._model, self._decoder, self._clock, start)

    def _current(self, region: Region) -> GrowingUtterance:
        if self._utterance is None:
            start = max(self._at(region.start), self._done, self._audio.start)
            self._utterance = self.utterance(start)
        return self._utterance

    def _grow(self, region: Region) -> Iterator[LiveText]:
        utterance = self._current(region)
        paused = region.end < self._finder.seconds
        end = min(self._at(region.end), self._audio.end)
        yield from utterance.grow(self._audio, end if paused else None)
        seconds = (self._audio.end - utterance.start) / self._rate
        if paused and seconds >= LONG_S:
            yield from self._end(region)
        elif seconds >= LONGEST_S:
            result, self._done = utterance.cut(self._audio)
            self._utterance = None
            yield from result

    def _end(self, region: Region) -> Iterator[LiveText]:
        end = min(self._at(region.end), self._audio.end)
        if end > self._done:
            utterance = self._current(region)
            self._utterance, self._done = None, end
            yield from utterance.finish(self._audio, end)
