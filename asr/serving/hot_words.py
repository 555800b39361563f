"""The decoders of requests with hot words of their own."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence

from asr.decoding.decoder import Decoder
from asr.decoding.folder import with_hot_words
from asr.errors import AsrError, LanguageModelError
from asr.inference.recognizer import Recognizer
from asr.lm.words import BOOST, check_phrase, parse_hot_word, parse_hot_words
from asr.text.tokens import WORD_START

MOST_KEPT = 16  # decoders
LONGEST_PHRASE = 4  # words of a phrase in a prompt; more are a sentence
MOST_IN_PROMPT = 100  # phrases
MOST_LOOKED_AT = 1000  # parts of a prompt
MOST_CHARACTERS = 100  # of a phrase

_BETWEEN = re.compile(r"[,;:.!?\n\r\t]+")


def phrases_of(
    prompt: str, recognizer: Recognizer, keywords: Sequence[str] = ()
) -> tuple[str, ...]:
    """The words and phrases of a prompt that can be hot: its short parts between punctuation, if
    the decoder can write them. Those that are among the `keywords` are left out."""
    decoder, normalise = recognizer.decoder, recognizer.bundle.normalise
    if decoder.config.rescore.every_step:  # takes no hot words
        return ()
    alphabet = {c for unit in decoder.tokens.units[1:] for c in unit}
    words = None if decoder.lexicon is None else frozenset(decoder.lexicon)
    known = set()
    for keyword in keywords:
        with contextlib.suppress(AsrError):  # whoever decodes with it raises the error
            known.add(normalise(parse_hot_word(keyword, spaced=False)[0]))
    found: dict[str, str] = {}
    for part in _BETWEEN.split(prompt)[:MOST_LOOKED_AT]:
        short = len(part) <= MOST_CHARACTERS and len(part.split()) <= LONGEST_PHRASE
        if short and "=" not in part and len(found) < MOST_IN_PROMPT:
            with contextlib.suppress(AsrError):
                written = " ".join(normalise(part).split())
                check_phrase(written, alphabet)
                if written not in known and (words is None or words.issuperset(written.split())):
                    found.setdefault(written, " ".join(part.split()))
    return tuple(found.values())


class HotDecoders:
    """Decoders with hot words, the latest of which are kept: clients send the same list with every
    request. Any thread may call."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self._kept: OrderedDict[tuple[tuple[str, float], ...], Decoder] = OrderedDict()
        self._lock = threading.Lock()

    def decoder(self, phrases: Sequence[str]) -> Decoder:
        """The decoder of the model with these words and phrases besides its own, each as `phrase`
        or `phrase=boost`.

        Raises LanguageModelError or ConfigError for what cannot be hot.
        """
        if not phrases:
            return self._recognizer.decoder
        if (longest := max(map(len, phrases))) > MOST_CHARACTERS:
            raise LanguageModelError(
                f"expected keywords of at most {MOST_CHARACTERS} characters, got {longest}: "
                "leave the long ones out"
            )
        boosts = parse_hot_words(phrases, "keywords")
        key = tuple(sorted(boosts.items()))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        normalise = self._recognizer.bundle.normalise
        made = with_hot_words(self._recognizer.decoder, boosts, normalise)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return made

    def any_decoder(self) -> Decoder:
        """A decoder with some hot word, to warm up."""
        units = "".join(self._recognizer.decoder.tokens.units[1:])
        letter = next(c for c in units if c != WORD_START)
        return with_hot_words(self._recognizer.decoder, {letter: BOOST})
