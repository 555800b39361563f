"""One utterance of live recognition: what all models share, and models that recognise the utterance
so far again and again.

S samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asr.audio.pcm import to_pcm
from asr.audio.silence import cuts, quietest
from asr.decoding.decoder import Decoder
from asr.inference.acoustics import Acoustics
from asr.inference.live_clock import Clock
from asr.inference.time_formats import Word, shifted
from asr.inference.word_times import recognize_waves

OFTEN_S = 0.3  # seconds of audio from one partial text to the next, at least,
BUSY = 0.5  # and so many that the work on partial texts takes at most this share of the time


@dataclass(frozen=True)
class LiveText:
    """The text of an utterance at one moment. Times in seconds since the first sample."""

    text: str
    """Does not change any more. Of an utterance that goes on, its last word may be incomplete."""
    partial: str
    """The text after `text` at present; it may change."""
    start: float
    end: float
    """Of the utterance so far."""
    is_final: bool
    """The utterance has ended: `text` is all of it, and not empty."""
    words: tuple[Word, ...] = ()
    """The words of a final text, with times and confidences."""
    latencies: tuple[float, ...] = ()
    """For each of these words the seconds from its end to its final text (see `Clock`)."""


class Audio:
    """The end of endless audio. Positions are samples since the beginning."""

    def __init__(self) -> None:
        self._samples = np.zeros(0, np.float32)
        self.start = 0

    @property
    def end(self) -> int:
        return self.start + len(self._samples)

    def append(self, samples: np.ndarray) -> None:
        self._samples = np.concatenate([self._samples, samples])

    def between(self, start: int, end: int) -> np.ndarray:
        return self._samples[max(0, start - self.start) : max(0, end - self.start)]

    def drop(self, before: int) -> None:
        if before > self.start:
            self._samples = self._samples[before - self.start :].copy()
            self.start = before


class GrowingUtterance(Protocol):
    """An utterance that grows until `finish` or `cut`."""

    start: int
    """Its first sample."""

    def grow(self, audio: Audio, end: int | None) -> Iterator[LiveText]:
        """The text so far, if it has changed. `end` is the end of the speech in a pause that may
        prove to be the end of the utterance."""

    def finish(self, audio: Audio, end: int) -> Iterator[LiveText]:
        """The final text, unless it is empty. A partial text that was given before is withdrawn."""

    def cut(self, audio: Audio) -> tuple[list[LiveText], int]:
        """The final text of an utterance that has become too long, and the sample at which the next
        one begins."""


class WholeUtterance:
    """An utterance that is recognised again as it grows."""

    def __init__(self, model: Acoustics, decoder: Decoder, clock: Clock, start: int) -> None:
        self._model, self._decoder, self._clock = model, decoder, clock
        self.start = start
        self._end = start  # of what has been recognised
        self._words: tuple[Word, ...] = ()
        self._shown = ""
        self._cost = 0.0  # seconds of the last recognition

    def grow(self, audio: Audio, end: int | None) -> Iterator[LiveText]:
        rate = self._model.sample_rate
        if self._clock.lag > 0:  # the final texts come first
            return
        if end is None:
            if audio.end - self._end < max(OFTEN_S, self._cost / BUSY) * rate:
                return
            end = audio.end
        if end == self._end:
            return
        self._recognize(audio, end)
        text = joined(self._words)
        if text != self._shown:
            yield LiveText("", text, self.start / rate, end / rate, is_final=False)
            self._shown = text

    def finish(self, audio: Audio, end: int) -> Iterator[LiveText]:
        if end != self._end:  # else it was recognised at the beginning of the pause
            self._recognize(audio, end)
        now, rate = self._clock.now(), self._model.sample_rate
        late = [now - word.end for word in self._words]
        yield from final_text(self._words, late, self.start / rate, end / rate, bool(self._shown))

    def cut(self, audio: Audio) -> tuple[list[LiveText], int]:
        rate = self._model.sample_rate
        if self._end != audio.end:
            self._recognize(audio, audio.end)
        samples, first = audio.between(self.start, audio.end), self.start / rate
        seconds = len(samples) / rate
        gaps = [
            quietest(samples, a.end - first, b.start - first, rate)
            for a, b in itertools.pairwise(self._words)
        ]
        chosen = cuts(gaps, seconds, seconds / 2)[:1]
        gap = gaps[chosen[0]] if chosen else quietest(samples, seconds / 2, seconds, rate)
        end = self.start + round(gap.second * rate)
        return list(self.finish(audio, end)), end

    def _recognize(self, audio: Audio, end: int) -> None:
        began, rate = self._clock.now(), self._model.sample_rate
        samples = to_pcm(audio.between(self.start, end)).samples  # rounded as in a dataset
        (row,) = recognize_waves(self._model, self._decoder, [samples])
        self._words = tuple(shifted(word, self.start / rate) for word in row.words)
        self._end, self._cost = end, self._clock.now() - began


def joined(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def final_text(
    words: Sequence[Word], late: Sequence[float], start: float, end: float, shown: bool
) -> Iterator[LiveText]:
    if words:
        late = [max(0.0, seconds) for seconds in late]
        yield LiveText(joined(words), "", start, end, True, tuple(words), tuple(late))
    elif shown:  # no words after all
        yield LiveText("", "", start, end, is_final=False)
