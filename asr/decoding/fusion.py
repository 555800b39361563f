"""Text knowledge of a beam search: an n-gram model, a lexicon and hot words, by tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from asr.decoding.config import LanguageConfig
from asr.decoding.fusion_kernel import CHARACTER_MODEL, NO_MODEL, OFF, WORD_MODEL, Language
from asr.decoding.phrases import build_phrases
from asr.decoding.trie import best_below, build_trie
from asr.errors import LanguageModelError
from asr.lm.ngram import END_ID, SPECIAL, START_NODE, Arrays, NgramModel, read_only
from asr.lm.words import check_phrase, check_word
from asr.text.tokens import WORD_START, Tokens

# The usual logarithm of zero in ARPA files; minus infinity would make comparisons NaN.
LOWEST = -99 * math.log(10)


def build_language(
    tokens: Tokens,
    model: NgramModel | None = None,
    config: LanguageConfig | None = None,
    lexicon: Sequence[str] | None = None,
    hot_words: Mapping[str, float] | None = None,
) -> Language:
    """All knowledge as arrays for the search.

    With a `lexicon`, only its words are recognised. `hot_words` maps words and phrases of several
    words to bonuses in nats, for each time that the words occur in a text in succession. A model of
    characters is recognised by the word-start mark among its words.

    Raises LanguageModelError for a word or phrase that the tokens cannot encode.
    """
    config, hot = config or LanguageConfig(), hot_words or {}
    alphabet = {c: i for i, c in enumerate(dict.fromkeys("".join(tokens.units[1:])))}
    for word in lexicon or ():
        check_word(word, alphabet)
    for phrase in hot:
        check_phrase(phrase, alphabet)
    kind = NO_MODEL
    if model is not None:
        kind = CHARACTER_MODEL if WORD_START in model.ids else WORD_MODEL
    words = set(lexicon or ())
    if lexicon is None and model is not None and kind == WORD_MODEL:
        words = _writable(model, alphabet)
    first_child, characters, ends, parents = build_trie(sorted(words), alphabet)
    word_ids = np.full(len(characters), OFF, np.int32)
    word_ids[ends] = [0 if model is None else model.id(word) for word in sorted(words)]
    scores = np.zeros(1 if model is None else len(model.vocabulary))
    if model is not None and kind == WORD_MODEL:
        scores = model.log_probs[1 : 1 + len(model.vocabulary)].astype(np.float64)
    ids = word_ids[ends]
    ahead = config.weight * np.maximum(scores[ids], LOWEST) + config.unknown_score * (ids == 0)
    spelled = [[alphabet[c] for c in unit] for unit in tokens.units[1:]]
    return Language(
        kind=kind,
        ngram=_no_model() if model is None else model.arrays,
        start=START_NODE,
        end=END_ID,
        first_child=first_child,
        character=characters,
        word=word_ids,
        ahead_score=best_below(parents, ends, ahead),
        unknown_ahead=float(scores[0]),
        lexicon_only=lexicon is not None,
        phrases=build_phrases(hot, alphabet, max(map(len, spelled))) if hot else None,
        unit_characters=np.array([c for unit in spelled for c in unit], np.int32),
        unit_first=np.cumsum([0, 0, *map(len, spelled)]).astype(np.int32),
        starts_word=np.array([False, *(unit.startswith(WORD_START) for unit in tokens.units[1:])]),
        character_words=np.array([0 if model is None else model.id(c) for c in alphabet], np.int32),
        weight=config.weight,
        word_bonus=config.word_bonus,
        unknown_score=config.unknown_score,
    )


def _writable(model: NgramModel, alphabet: Mapping[str, int]) -> set[str]:
    """The model's words that the tokens can encode; at least one is required."""
    known = model.vocabulary[len(SPECIAL) :]
    words = {word for word in known if alphabet.keys() >= set(word)}
    if known and not words:
        raise LanguageModelError(
            f"expected words that the recogniser can spell, got {known[0]!r} and others in the "
            "language model: estimate it with --model, which spells them as the recogniser does"
        )
    return words


def _no_model() -> Arrays:
    """Empty arrays of the types of an n-gram model."""
    ints, floats = np.zeros(2, np.int32), np.zeros(2, np.float32)
    return read_only(ints, floats, floats, np.zeros(2, np.int64), ints)
