"""Beam search: exact where every path can be summed, and the same in pieces as at once.

Covers `asr/decoding/beam_kernel.py`, `asr/decoding/fusion.py`, `asr/decoding/fusion_kernel.py`,
`asr/decoding/greedy.py`.
"""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.decoding.beam import BeamHypothesis, BeamSearch, beam_decode
from asr.decoding.beam_kernel import kth_largest
from asr.decoding.config import BeamConfig, LanguageConfig
from asr.decoding.fusion import build_language
from asr.decoding.fusion_kernel import Language
from asr.decoding.greedy import greedy_decode
from asr.decoding.trie import build_trie
from asr.errors import LanguageModelError
from asr.lm.estimate import estimate
from asr.lm.ngram import NgramModel
from asr.padded import Padded
from asr.text.tokens import BLANK, WORD_START, Tokens

SPELLED = Tokens((BLANK, WORD_START, "a", "b"))
MIXED = Tokens((BLANK, WORD_START, "a", "▁ab", "ba"))
EVERYTHING = BeamConfig(size=5000, nats=1e9, token_nats=1e9, recombine=False)
WEIGHTS = LanguageConfig(weight=0.7, word_bonus=0.5, unknown_score=-2)
WORDS = estimate(["a b ab", "ab a", "bb a ba"], 2)
CHARACTERS = estimate(["▁ a b ▁ a", "▁ b ▁ a b b", "▁ a ▁ a b"], 3)
PLAIN = build_language(SPELLED)


def random_log_probs(T: int, V: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(T, V, generator=generator).mul(2).log_softmax(dim=1).double()


def every_text(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Log-probability of everything that can be written, summed path by path."""
    T, V = log_probs.shape
    rows = log_probs.tolist()
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(V), repeat=T):
        ids = tuple(unit for unit, _ in itertools.groupby(path) if unit)
        score = math.fsum(row[unit] for row, unit in zip(rows, path, strict=True))
        found[ids] = float(np.logaddexp(found.get(ids, -np.inf), score))
    return found


def decoded(
    log_probs: Tensor, language: Language, config: BeamConfig, count: int = 1
) -> list[BeamHypothesis]:
    beam = BeamSearch(language, config)
    beam.push(log_probs)
    return beam.best(count)


def assert_exact(
    tokens: Tokens, language: Language, score: Callable[[tuple[int, ...]], float], seed: int
) -> None:
    """The beam that drops nothing finds what can be written, with its exact scores, in order."""
    log_probs = random_log_probs(6 if len(tokens) == 4 else 5, len(tokens), seed)
    expected = {ids: (ctc, score(ids)) for ids, ctc in every_text(log_probs).items()}
    possible = {ids: scores for ids, scores in expected.items() if scores[1] > -math.inf}
    found = decoded(log_probs, language, EVERYTHING, 5000)
    assert {hypothesis.ids for hypothesis in found} == possible.keys()
    for hypothesis in found:
        assert (hypothesis.ctc, hypothesis.language) == pytest.approx(
            possible[hypothesis.ids], abs=1e-5
        )
    scores = [hypothesis.score for hypothesis in found]
    assert scores == sorted(scores, reverse=True)


# --- against every path ---


@pytest.mark.parametrize("seed", range(3))
def test_without_a_language_every_text_has_its_probability(seed: int) -> None:
    assert_exact(SPELLED, PLAIN, lambda ids: 0.0, seed)


@pytest.mark.parametrize("tokens", [SPELLED, MIXED])
@pytest.mark.parametrize("seed", range(2))
def test_with_a_model_of_words(tokens: Tokens, seed: int) -> None:
    def score(ids: tuple[int, ...]) -> float:
        words = tokens.decode(ids).split()
        known = sum(0.7 * word.log_prob - 2 * word.unknown for word in WORDS.score_sentence(words))
        return known + 0.5 * len(words)

    assert_exact(tokens, build_language(tokens, WORDS, WEIGHTS), score, seed)


@pytest.mark.parametrize("tokens", [SPELLED, MIXED])
def test_with_a_model_of_characters(tokens: Tokens) -> None:
    def score(ids: tuple[int, ...]) -> float:
        characters = [c for i in ids for c in tokens.units[i]]
        known = sum(0.7 * word.log_prob for word in CHARACTERS.score_sentence(characters))
        return known + 0.5 * len(tokens.decode(ids).split())

    assert_exact(tokens, build_language(tokens, CHARACTERS, WEIGHTS), score, 0)


def test_a_word_that_is_cut_off_is_left_out() -> None:
    language = build_language(SPELLED, None, None, ["ab", "ba"])
    heard = [1, 2, 3, 1, 3]  # "ab b"
    log_probs = torch.full((5, 4), -30.0).double()
    log_probs[range(5), heard] = 0.0
    (best,) = decoded(log_probs, language, BeamConfig(size=2))
    assert SPELLED.decode(best.ids) == "ab"
    (nothing,) = decoded(log_probs[:2], language, BeamConfig(size=1))
    assert nothing.ids == ()


@pytest.mark.parametrize("only", [False, True])
def test_with_recombination_the_same_beam_finds_better_texts(only: bool) -> None:
    random = np.random.default_rng(0)
    tokens = Tokens((BLANK, WORD_START, *"abcdefgh"))
    words = ["".join(random.choice(list("abcdefgh"), random.integers(2, 6))) for _ in range(60)]
    lines = [" ".join(random.choice(words[:20], 5)) for _ in range(300)]
    model = estimate([*lines, " ".join(words)], 2)
    language = build_language(tokens, model, WEIGHTS, words if only else None)
    gains = []
    for seed, line in enumerate(lines[:20]):
        log_probs = random_log_probs(120, len(tokens), seed)
        log_probs[:, 0] += 2
        for t, unit in enumerate(tokens.encode(line)):
            log_probs[3 * t, unit] += 6
        log_probs = log_probs.log_softmax(dim=1)
        alone, together = (
            decoded(log_probs, language, BeamConfig(size=16, recombine=recombine))[0].score
            for recombine in (False, True)
        )
        gains.append(together - alone)
    assert np.mean(gains) > 0.1
    assert min(gains) > -1


@pytest.mark.parametrize("tokens", [SPELLED, MIXED])
@pytest.mark.parametrize("model", [None, WORDS])
def test_with_a_lexicon_only_its_words_are_written(
    tokens: Tokens, model: NgramModel | None
) -> None:
    lexicon = ["a", "ab", "aba"]  # the last is in no model

    def score(ids: tuple[int, ...]) -> float:
        words = tokens.decode(ids).split()
        if not set(words) <= set(lexicon):
            return -math.inf
        scores = model.score_sentence(words) if model else []
        return sum(0.7 * w.log_prob - 2 * w.unknown for w in scores) + 0.5 * len(words)

    assert_exact(tokens, build_language(tokens, model, WEIGHTS, lexicon), score, 0)


def test_unknown_words_are_estimated_as_they_will_be_scored() -> None:
    """Otherwise a lexicon's unknown words would displace known ones until they end."""
    language = build_language(SPELLED, WORDS, WEIGHTS, ["a", "ab", "aba"])
    word = WORDS.log_probs[1 + WORDS.id("ab")]
    unknown = WORDS.log_probs[1]
    # The root, and the nodes of "a", "ab" and "aba".
    assert language.ahead_score[3] == pytest.approx(0.7 * unknown - 2)
    assert language.ahead_score[2] == pytest.approx(0.7 * word)


def without(model: NgramModel, word: str) -> NgramModel:
    """The model with a word of probability 0."""
    log_probs = model.log_probs.copy()
    log_probs[model.words == model.id(word)] = -np.inf
    return replace(model, log_probs=log_probs)


def test_impossible_words_are_estimated_as_such() -> None:
    closed = without(WORDS, "ab")
    ahead = build_language(SPELLED, closed, WEIGHTS, ["a", "ab"]).ahead_score
    assert ahead[2] < -100 < ahead[1]
    weightless = LanguageConfig(weight=0.0)
    assert not build_language(SPELLED, closed, weightless, ["a", "ab"]).ahead_score.any()


@pytest.mark.parametrize("model", [None, WORDS])
def test_hot_words_score_more(model: NgramModel | None) -> None:
    hot = {"ba": 3.0, "bab": 1.5}

    def score(ids: tuple[int, ...]) -> float:
        words = SPELLED.decode(ids).split()
        scores = model.score_sentence(words) if model else []
        known = sum(0.7 * w.log_prob - 2 * w.unknown for w in scores)
        return known + 0.5 * len(words) + sum(hot.get(word, 0) for word in words)

    assert_exact(SPELLED, build_language(SPELLED, model, WEIGHTS, None, hot), score, 0)


# --- a narrow beam ---


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([None, WORDS, CHARACTERS]))
def test_a_narrow_beam_never_overrates_a_text(
    seed: int, size: int, model: NgramModel | None
) -> None:
    log_probs = random_log_probs(6, 4, seed)
    language = build_language(SPELLED, model, WEIGHTS)
    exact = {h.ids: h for h in decoded(log_probs, language, EVERYTHING, 5000)}
    for found in decoded(log_probs, language, BeamConfig(size=size), size):
        assert found.ctc <= exact[found.ids].ctc + 1e-9
        assert found.language == pytest.approx(exact[found.ids].language)


def test_a_wide_beam_finds_the_likeliest_text_that_the_greedy_path_misses() -> None:
    # Two paths write "a" with 0.28 each and one path nothing with 0.44 (all frames alike).
    log_probs = torch.tensor([[0.6, 0.0, 0.4, 0.0], [0.6, 0.0, 0.4, 0.0]]).clamp(1e-9).log()
    assert greedy_decode(Padded(log_probs[None], torch.tensor([2]))) == [[]]
    assert decoded(log_probs, PLAIN, BeamConfig(size=4))[0].ids == (2,)


def test_a_dropped_prefix_that_comes_back_is_the_same_prefix() -> None:
    # Whatever the beam, a text stands in it once.
    for seed in range(30):
        beam = BeamSearch(PLAIN, BeamConfig(size=3))
        for row in random_log_probs(20, 4, seed):
            beam.push(row[None])
            texts = [hypothesis.ids for hypothesis in beam.best(3)]
            assert len(set(texts)) == len(texts)


def test_prefixes_of_equal_score_do_not_displace_a_better_one() -> None:
    # After two frames "" and "a▁" are equal, and listed before "b▁", which is the best.
    shares = [[0.25, 0, 0.5, 0.25], [0.5, 0.25, 0.25, 0], [0, 0, 0, 1]]
    language = build_language(SPELLED, hot_words={"b b": 9.0})
    (best,) = decoded(torch.tensor(shares).log(), language, BeamConfig(size=4))
    assert SPELLED.decode(best.ids) == "b b"


def test_pruning_drops_only_what_is_far_behind() -> None:
    log_probs = random_log_probs(12, 4, 1)
    wide = decoded(log_probs, PLAIN, BeamConfig(size=200, nats=1e9, token_nats=1e9), 200)
    near = decoded(log_probs, PLAIN, BeamConfig(size=200, nats=3, token_nats=1e9), 200)
    assert near[0].ids == wide[0].ids
    assert len(near) < len(wide)
    assert min(h.score for h in near) > near[0].score - 3 - 1e-9


@settings(max_examples=60)
@given(st.lists(st.floats(-50, 0) | st.just(-math.inf), min_size=1, max_size=40), st.data())
def test_the_kth_largest(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    assert kth_largest(np.array(values), len(values), k) == sorted(values, reverse=True)[k - 1]


# --- in pieces, in batches ---


@pytest.mark.parametrize("model", [None, WORDS])
def test_frames_may_come_in_any_pieces(model: NgramModel | None) -> None:
    log_probs = random_log_probs(30, 4, 3)
    language = build_language(SPELLED, model, WEIGHTS)
    config = BeamConfig(size=8)
    beam = BeamSearch(language, config)
    for piece in log_probs.split([1, 0, 7, 2, 20]):
        beam.push(piece)
    assert beam.best(8) == decoded(log_probs, language, config, 8)


def test_what_is_stable_stays() -> None:
    for seed in range(5):
        beam = BeamSearch(PLAIN, BeamConfig(size=6))
        known: tuple[int, ...] = ()
        for row in random_log_probs(60, 4, seed).mul(2).log_softmax(dim=1):
            beam.push(row[None])
            stable = beam.stable()
            assert stable[: len(known)] == known
            known = stable
        assert known
        for hypothesis in beam.best(6):
            assert hypothesis.ids[: len(known)] == known


def test_a_batch_is_its_utterances_and_padding_does_not_matter() -> None:
    lengths = torch.tensor([9, 0, 5])
    values = torch.full((3, 9, 4), torch.nan)
    rows = [random_log_probs(int(length), 4, i).float() for i, length in enumerate(lengths)]
    for value, row in zip(values, rows, strict=True):
        value[: len(row)] = row
    language = build_language(SPELLED, WORDS, WEIGHTS)
    together = beam_decode(Padded(values, lengths), language, BeamConfig(size=5), 2)
    assert together == [decoded(row, language, BeamConfig(size=5), 2) for row in rows]
    assert together[1][0].ids == ()


def test_one_long_word_takes_no_room_for_the_others() -> None:
    words = [f"{number:05d}" for number in range(5000)]
    alphabet = {c: i for i, c in enumerate("0123456789")}
    tracemalloc.start()
    _, characters, _, _ = build_trie([*words, "7" * 5000], alphabet)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # a table of all words has 200 MB
    assert len(characters) == 1 + (1 + 5 + 50 + 500 + 5000) + 5000


def test_without_a_frame_nothing_was_said() -> None:
    (nothing,) = decoded(torch.zeros(0, 4), PLAIN, BeamConfig(), 5)
    assert nothing == BeamHypothesis((), 0.0, 0.0)


def test_impossible_units_do_no_harm() -> None:
    log_probs = random_log_probs(8, 4, 0)
    log_probs[:, 3] = -math.inf
    log_probs[4] = torch.tensor([-math.inf, 0.0, -math.inf, -math.inf])
    (best,) = decoded(log_probs, PLAIN, BeamConfig())
    assert 3 not in best.ids
    assert math.isfinite(best.score)


# --- bad input ---


def test_what_are_no_log_probabilities() -> None:
    beam = BeamSearch(PLAIN, BeamConfig())
    for values in (torch.zeros(3, 5), torch.zeros(4), torch.zeros(1, 3, 4)):
        with pytest.raises(ValueError, match=r"expected log-probabilities \[T, 4\], got"):
            beam.push(values)
    for value in (math.nan, 0.5):
        with pytest.raises(ValueError, match="got NaN or values above 0"):
            beam.push(torch.full((2, 4), value))


@pytest.mark.parametrize("word", ["abc", "a▁b", ""])
def test_words_that_the_units_cannot_write(word: str) -> None:
    with pytest.raises(LanguageModelError, match="expected words of the model's characters"):
        build_language(SPELLED, lexicon=["a", word])
    with pytest.raises(LanguageModelError, match="expected words of the model's characters"):
        build_language(SPELLED, hot_words={word: 1.0})
