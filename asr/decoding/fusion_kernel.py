"""Text scores in a beam search: words, spelling, hot words and phrases, compiled by numba.

N nodes of the lexicon. Scores are natural logarithms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.jit import inner
from asr.lm.lookup import advance
from asr.lm.ngram import Arrays, Ints

Floats = NDArray[np.float64]

NO_MODEL, WORD_MODEL, CHARACTER_MODEL = range(3)
OFF = -1  # a word outside the lexicon; also a prefix outside the beam, and no child


class Phrases(NamedTuple):
    """Hot words and phrases as an automaton; built by `asr.decoding.phrases`.

    The state after a text is the node of the longest prefix of a phrase that is a suffix of the
    text. If there is none, it is the root between words and `OFF` within a word. Phrases are
    spelled with `mark` between their words. `fallback` is the failure link, to the next shorter
    such prefix. If a word ends at a node, its `bonus` is the sum over all phrases that end there.
    `ahead` is the share of a bonus that counts in comparisons while a phrase is being spelled;
    `ahead_within` and `ahead_new` are the largest shares after one more token, for one that begins
    no word and for one that does. Shape: each [N].
    """

    mark: int
    first_child: Ints
    character: Ints
    fallback: Ints
    begins_word: NDArray[np.bool_]
    bonus: Floats
    ahead: Floats
    ahead_within: Floats
    ahead_new: Floats


class Language(NamedTuple):
    """The text knowledge of a search; built by `asr.decoding.fusion`.

    `kind` is the type of the n-gram model's words; a sentence begins at its node `start` and ends
    with its word `end`. The lexicon is a trie: the children of a node are adjacent, sorted by their
    character; `word` is the model's id of the word that ends there, or `OFF`. `ahead_score` is the
    best weighted score without context of the words at or below a node; `unknown_ahead` is the
    log-probability of an unknown word. A token's characters are indices in the alphabet, including
    the word-start mark.
    """

    kind: int
    ngram: Arrays
    start: int
    end: int
    first_child: Ints
    character: Ints
    word: Ints
    ahead_score: Floats
    unknown_ahead: float
    lexicon_only: bool
    phrases: Phrases | None
    unit_characters: Ints
    unit_first: Ints
    starts_word: NDArray[np.bool_]
    character_words: Ints
    weight: float
    word_bonus: float
    unknown_score: float


@inner
def weighted(language, score):
    """A score of the n-gram model with its weight; 0 times minus infinity is 0 here."""
    return language.weight * score if language.weight != 0.0 else 0.0


@inner
def spell(language, spelled, character):
    """The lexicon's node after one character, or OFF."""
    if spelled < 0:
        return OFF
    for child in range(language.first_child[spelled], language.first_child[spelled + 1]):
        if language.character[child] == character:
            return child
    return OFF


@inner
def spell_unit(language, spelled, unit):
    """The lexicon's node after a token, or OFF."""
    first, last = language.unit_first[unit], language.unit_first[unit + 1]
    if language.starts_word[unit]:
        spelled, first = 0, first + 1
    for i in range(first, last):
        spelled = spell(language, spelled, language.unit_characters[i])
    return spelled


@inner
def match(phrases, node, character):
    """The node of hot phrases after one character. A mark after a mark begins no other word."""
    if character == phrases.mark and node >= 0 and phrases.begins_word[node]:
        return node
    while node >= 0:
        for child in range(phrases.first_child[node], phrases.first_child[node + 1]):
            if phrases.character[child] == character:
                return child
        node = phrases.fallback[node]
    return 0 if character == phrases.mark else OFF


@inner
def match_unit(language, phrases, node, unit):
    """The node of hot phrases after a token."""
    for i in range(language.unit_first[unit], language.unit_first[unit + 1]):
        node = match(phrases, node, language.unit_characters[i])
    return node


@inner
def match_shares(phrases, node):
    """The share of a bonus that counts in comparisons, and the largest after one more token, for
    one that begins no word and for one that does. Otherwise the beam would lose a phrase before it
    is complete. Texts are scored without it, so an incomplete phrase gains nothing."""
    if phrases is None:
        return 0.0, 0.0, 0.0
    if node == OFF:
        return 0.0, 0.0, phrases.ahead_new[0]
    return phrases.ahead[node], phrases.ahead_within[node], phrases.ahead_new[node]


@inner
def end_word(language, context, spelled):
    """The score that the end of a word adds, and the context after it, without hot phrases."""
    if spelled == 0:
        return 0.0, context  # nothing was spelled
    word = OFF if spelled < 0 else language.word[spelled]
    if word == OFF and language.lexicon_only:
        return -np.inf, context
    score = language.word_bonus
    if language.kind == WORD_MODEL:
        known, context = advance(*language.ngram, context, max(word, 0))
        score += weighted(language, known)
        if word <= 0:
            score += language.unknown_score
    return score, context


@inner
def spell_out(language, context, unit):
    """The score of a token's characters by a character model, and the context after them."""
    score = 0.0
    for i in range(language.unit_first[unit], language.unit_first[unit + 1]):
        word = language.character_words[language.unit_characters[i]]
        known, context = advance(*language.ngram, context, word)
        score += known
    return score, context


@inner
def look_ahead(language, spelled):
    """An upper estimate of the score of a partial word, used to compare prefixes. Otherwise
    prefixes with a word score still to come would displace those that have paid it (Ortmanns et al.
    1996, "Language-model look-ahead for large vocabulary speech recognition")."""
    if language.kind != WORD_MODEL:
        return 0.0
    unknown = weighted(language, language.unknown_ahead) + language.unknown_score
    if spelled < 0:
        return language.word_bonus + unknown
    known = language.ahead_score[spelled]
    if not language.lexicon_only:
        known = max(known, unknown)
    return language.word_bonus + known
