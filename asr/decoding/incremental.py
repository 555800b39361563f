"""Incremental decoding of the network's output: the text so far, and its final part.

N frames, V tokens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from asr.decoding.decoder import Decoder
from asr.decoding.rows import as_row
from asr.errors import ConfigError
from asr.text.tokens import BLANK_ID

if TYPE_CHECKING:
    from asr.decoding.beam import BeamSearch


class IncrementalDecoder:
    """Incremental decoding of one utterance by a `Decoder`. `finish` returns the result of `texts`
    for all frames; the part that `push` returns as final does not change.

    Raises ConfigError for a decoder with `rescore.every_step`, which needs all frames at once.
    """

    def __init__(self, decoder: Decoder) -> None:
        if decoder.config.kind == "beam" and decoder.config.rescore.every_step:
            raise ConfigError(
                "expected a decoder that can stream, got rescore.every_step: use greedy decoding, "
                "or rescoring without it"
            )
        self._decoder = decoder
        self._ids: list[int] = []  # for greedy decoding
        self._last = BLANK_ID
        self._search: BeamSearch | None = None
        if decoder.config.kind == "beam":
            from asr.decoding.beam import BeamSearch
            from asr.decoding.fusion import build_language

            beam = decoder.config.beam
            if decoder.neural is not None:  # it rescores the whole beam
                beam = beam.model_copy(update={"recombine": False})
            language = decoder.language or build_language(decoder.tokens)
            self._search = BeamSearch(language, beam)
            # Where unknown words are impossible, a partial word may prove so, and is dropped.
            closed = language.weight > 0 and math.isinf(language.unknown_ahead)
            self._drops_words = decoder.lexicon is not None or closed

    def push(self, log_probs: Any) -> tuple[str, str]:
        """The final start of the text, and the best text so far.

        Shape: [N, V], an array or a tensor.
        """
        decode = self._decoder.tokens.decode
        if self._search is None:
            for unit in as_row(log_probs).argmax(axis=1).tolist():
                if unit not in (self._last, BLANK_ID):
                    self._ids.append(unit)
                self._last = unit
            text = decode(self._ids)
            return text, text
        self._search.push(log_probs)
        final, best = decode(self._search.stable()), decode(self._search.best()[0].ids)
        if self._drops_words:
            final = final.rpartition(" ")[0]
        return final, best if best.startswith(final) else final

    def finish(self) -> str:
        """The text after the last frames."""
        if self._search is None:
            return self._decoder.tokens.decode(self._ids)
        count = 1 if self._decoder.neural is None else self._decoder.config.beam.size
        return self._decoder.ranked([self._search.best(count)])[0][0].text
