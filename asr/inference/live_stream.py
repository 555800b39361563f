"""One utterance of live recognition by a model that streams.

S samples, T frames, V tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from asr.decoding.decoder import Decoder
from asr.decoding.incremental import IncrementalDecoder
from asr.errors import ConfigError
from asr.inference.live_clock import Clock
from asr.inference.live_utterance import Audio, LiveText, final_text
from asr.inference.streaming import Stream, obstacles
from asr.inference.time_formats import Word, shifted
from asr.inference.word_times import recognize_scores
from asr.models.bundle import Bundle


def can_stream(bundle: Bundle, decoder: Decoder) -> bool:
    """Whether the model and the decoder recognise samples as they arrive."""
    if obstacles(bundle.model.features.config, bundle.model.config):
        return False
    try:
        IncrementalDecoder(decoder)
    except ConfigError:
        return False
    return True


class StreamedUtterance:
    """An utterance whose samples are recognised as they arrive."""

    def __init__(self, bundle: Bundle, decoder: Decoder, clock: Clock, start: int) -> None:
        self._bundle, self._decoder, self._clock = bundle, decoder, clock
        self.start = start
        self._end = start  # of what has been pushed
        self._stream = Stream(bundle.model, bundle.chunk)
        self._text = IncrementalDecoder(decoder)
        self._scores: list[torch.Tensor] = []
        self._shown = ("", "")
        self._grown: list[tuple[int, float]] = []  # characters of the final text, and since when

    def grow(self, audio: Audio, end: int | None) -> Iterator[LiveText]:
        text, best = self._push(audio)
        shown = (text, best[len(text) :])
        if shown != self._shown:
            self._shown = shown
            self._note(text)
            rate = self._bundle.sample_rate
            yield LiveText(*shown, self.start / rate, self._end / rate, is_final=False)

    def finish(self, audio: Audio, end: int) -> Iterator[LiveText]:
        self._push(audio)
        self._scores.append(self._stream.finish())
        self._text.push(self._scores[-1])
        text = self._text.finish()
        self._note(text)
        rate = self._bundle.sample_rate
        words: list[Word] = []
        if text:
            scores, seconds = torch.cat(self._scores), (self._end - self.start) / rate
            row = recognize_scores(self._decoder, scores, seconds, text)
            words = [shifted(word, self.start / rate) for word in row.words]
        late, at = [], 0
        for word in words:
            at = text.index(word.text, at) + len(word.text)
            late.append(next(now for count, now in self._grown if count >= at) - word.end)
        yield from final_text(words, late, self.start / rate, end / rate, any(self._shown))

    def cut(self, audio: Audio) -> tuple[list[LiveText], int]:
        return list(self.finish(audio, audio.end)), audio.end

    def _push(self, audio: Audio) -> tuple[str, str]:
        samples = audio.between(self._end, audio.end)
        self._end = audio.end
        self._scores.append(self._stream.push(torch.from_numpy(samples)))
        return self._text.push(self._scores[-1])

    def _note(self, text: str) -> None:
        self._grown.append((len(text), self._clock.now()))
