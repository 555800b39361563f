"""Hot words and phrases: exact where every path can be summed, and quick to find.

Covers `asr/decoding/trie.py`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding.beam import BeamSearch
from asr.decoding.config import BeamConfig
from asr.decoding.fusion import build_language
from asr.errors import LanguageModelError
from asr.lm.estimate import estimate
from asr.lm.ngram import NgramModel
from asr.text.tokens import BLANK, WORD_START, Tokens
from tests.decoding.test_beam import (
    CHARACTERS,
    MIXED,
    SPELLED,
    WEIGHTS,
    WORDS,
    assert_exact,
    decoded,
    random_log_probs,
)

# They overlap, contain each other, follow themselves and lower the score.
HOT = {"a b": 2.0, "b": 1.0, "ab a": -1.5, "a b a": 4.0, "b a": 3.0, "ba": 0.7, "a a": 0.3}


def bonus(text: str, hot: dict[str, float]) -> float:
    """The sum over all places at which the words of a phrase stand, one after the other."""
    words = text.split()
    return math.fsum(
        score
        for phrase, score in hot.items()
        for place in range(len(words))
        if words[place : place + len(phrase.split())] == phrase.split()
    )


@pytest.mark.parametrize("tokens", [SPELLED, MIXED])
@pytest.mark.parametrize("model", [None, WORDS, CHARACTERS])
@pytest.mark.parametrize("lexicon", [None, ["a", "b", "ab"]])
def test_every_text_has_the_bonus_of_all_its_phrases(
    tokens: Tokens, model: NgramModel | None, lexicon: list[str] | None
) -> None:
    def score(ids: tuple[int, ...]) -> float:
        text = tokens.decode(ids)
        words = text.split()
        if lexicon and not set(words) <= set(lexicon):
            return -math.inf
        units = [c for i in ids for c in tokens.units[i]] if model is CHARACTERS else words
        known = model.score_sentence(units) if model else []
        unknown = -2 if model is WORDS else 0
        total = sum(0.7 * word.log_prob + unknown * word.unknown for word in known)
        return total + 0.5 * len(words) + bonus(text, HOT)

    assert_exact(tokens, build_language(tokens, model, WEIGHTS, lexicon, HOT), score, 0)


phrases = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3).map(" ".join)
hot_lists = st.dictionaries(phrases, st.floats(-3, 6), max_size=5)


@settings(max_examples=60)
@given(
    st.integers(0, 1000),
    st.integers(1, 12),
    hot_lists,
    st.sampled_from([None, WORDS, CHARACTERS]),
    st.sampled_from([SPELLED, MIXED]),
    st.booleans(),
)
def test_a_narrow_beam_gives_each_text_its_bonus(
    seed: int,
    size: int,
    hot: dict[str, float],
    model: NgramModel | None,
    tokens: Tokens,
    recombine: bool,
) -> None:
    log_probs = random_log_probs(25, len(tokens), seed)
    config = BeamConfig(size=size, recombine=recombine)
    language = build_language(tokens, model, WEIGHTS, None, hot)
    plain = build_language(tokens, model, WEIGHTS)
    for found in decoded(log_probs, language, config, size):
        # The score of a text without phrases, from a search that is forced to it.
        certain = torch.full((2 * len(found.ids), len(tokens)), -1e6).double()
        certain[range(0, len(certain), 2), list(found.ids)] = 0
        certain[1::2, 0] = 0
        (alone,) = decoded(certain, plain, BeamConfig(size=1, token_nats=1))
        assert alone.ids == found.ids
        expected = alone.language + bonus(tokens.decode(found.ids), hot)
        assert found.language == pytest.approx(expected, abs=1e-4)


@settings(max_examples=60)
@given(
    st.integers(0, 1000),
    st.integers(1, 12),
    hot_lists,
    st.sampled_from([None, WORDS, CHARACTERS]),
    st.sampled_from([SPELLED, MIXED]),
)
def test_no_candidate_is_passed_over(
    seed: int, size: int, hot: dict[str, float], model: NgramModel | None, tokens: Tokens
) -> None:
    """Limits on what a further token may gain spare work, but change no result."""
    log_probs = random_log_probs(25, len(tokens), seed)
    language = build_language(tokens, model, WEIGHTS, None, hot)
    if language.phrases is None:
        return
    most = np.full(len(language.phrases.ahead), 1e3)
    unlimited = language._replace(
        phrases=language.phrases._replace(ahead_within=most, ahead_new=most)
    )
    for nats in (3, 25):
        config = BeamConfig(size=size, nats=nats)
        assert decoded(log_probs, language, config, size) == decoded(
            log_probs, unlimited, config, size
        )


TOKENS = Tokens((BLANK, WORD_START, *"abcdefgh"))


def test_a_phrase_survives_a_narrow_beam_before_it_is_complete() -> None:
    # Every letter of the phrase is heard a little less than another.
    heard, meant = TOKENS.encode("abc def ghab"), TOKENS.encode("bcd efg habc")
    log_probs = torch.full((2 * len(heard), len(TOKENS)), -20.0).double()
    for t, (likely, other) in enumerate(zip(heard, meant, strict=True)):
        log_probs[2 * t, likely] = math.log(0.7)
        log_probs[2 * t, other] = math.log(0.3) if likely != other else math.log(0.7)
        log_probs[2 * t + 1, 0] = 0
    language = build_language(TOKENS, hot_words={"bcd efg habc": 12.0})
    (best,) = decoded(log_probs, language, BeamConfig(size=4))
    assert TOKENS.decode(best.ids) == "bcd efg habc"
    assert language.phrases is not None
    no_share = language.phrases._replace(ahead=np.zeros(len(language.phrases.ahead)))
    (lost,) = decoded(log_probs, language._replace(phrases=no_share), BeamConfig(size=4))
    assert TOKENS.decode(lost.ids) == "abc def ghab"
    # What is not completed gains nothing.
    longer = build_language(TOKENS, hot_words={"bcd efg habc a": 12.0})
    (plain,) = decoded(log_probs, longer, BeamConfig(size=4))
    assert (TOKENS.decode(plain.ids), plain.language) == ("abc def ghab", 0.0)


def test_recombination_keeps_phrases_apart() -> None:
    # Without their place in phrases, "b a" and "a a" would be equal before the last word.
    hot = {"b a b": 5.0}
    log_probs = torch.full((5, 4), -30.0).double()
    log_probs[0, 2], log_probs[0, 3] = math.log(0.8), math.log(0.2)
    for t, unit in enumerate([WORD_START, "a", WORD_START, "b"], start=1):
        log_probs[t, SPELLED.units.index(unit)] = 0
    unigrams = build_language(SPELLED, estimate(["a", "b", "a b"], 1), WEIGHTS, None, hot)
    (best,) = decoded(log_probs, unigrams, BeamConfig(size=8))
    assert SPELLED.decode(best.ids) == "b a b"


def test_frames_may_come_in_any_pieces_and_what_is_stable_stays() -> None:
    language = build_language(SPELLED, WORDS, WEIGHTS, None, HOT)
    for seed in range(5):
        log_probs = random_log_probs(60, 4, seed).mul(2).log_softmax(dim=1)
        beam = BeamSearch(language, BeamConfig(size=6))
        known: tuple[int, ...] = ()
        for row in log_probs:
            beam.push(row[None])
            stable = beam.stable()
            assert stable[: len(known)] == known
            known = stable
        assert known
        assert beam.best(6) == decoded(log_probs, language, BeamConfig(size=6), 6)


@pytest.mark.parametrize("phrase", ["a  b", " a", "a b ", "a ▁", "a c", ""])
def test_phrases_that_the_tokens_cannot_write(phrase: str) -> None:
    with pytest.raises(LanguageModelError, match="expected words of the model's characters, got"):
        build_language(SPELLED, hot_words={phrase: 1.0})
