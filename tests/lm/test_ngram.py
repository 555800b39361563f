"""N-gram models: estimated as KenLM does, proper distributions, whole on disk.

Covers `asr/lm/estimate.py` and `asr/lm/lookup.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import AsrError
from asr.lm.arpa import read_arpa
from asr.lm.estimate import FALLBACK, discounts, estimate
from asr.lm.ngram import START_ID, UNKNOWN_ID, NgramModel, Perplexity, measure_perplexity
from asr.lm.storage import load_ngram, save_ngram

LMPLZ = Path(__file__).parents[1] / "lmplz"
TEXT = (LMPLZ / "text.txt").read_text(encoding="utf-8").splitlines()
SMALL = ["a b a", "a c", "b a c c"]


def entries(model: NgramModel) -> dict[tuple[str, ...], tuple[float, float]]:
    """Score and backoff weight of every n-gram, to base 10."""
    found: dict[tuple[str, ...], tuple[float, float]] = {}
    named: dict[int, tuple[str, ...]] = {0: ()}
    for node in range(len(model.words)):
        for child in range(model.first_child[node], model.first_child[node + 1]):
            named[child] = (*named[node], model.vocabulary[model.words[child]])
            scores = model.log_probs[child], model.backoffs[child]
            found[named[child]] = scores[0] / math.log(10), scores[1] / math.log(10)
    return found


def assert_same(ours: NgramModel, theirs: NgramModel, tolerance: float = 1e-5) -> None:
    a, b = entries(ours), entries(theirs)
    assert a.keys() == b.keys()
    for words in a.keys() - {("<s>",)}:
        assert a[words] == pytest.approx(b[words], abs=tolerance), words
    assert a["<s>",][1] == pytest.approx(b["<s>",][1], abs=tolerance)


def total(model: NgramModel, node: int) -> float:
    """Probability of all that can follow a context."""
    words = (w for w in range(len(model.vocabulary)) if w != START_ID)
    return math.fsum(math.exp(model.score(node, word)[0]) for word in words)


# --- estimation ---


@pytest.mark.parametrize(
    ("name", "order", "cutoffs"), [("order3", 3, []), ("order4-pruned", 4, [0, 0, 1])]
)
def test_as_lmplz_estimates(name: str, order: int, cutoffs: Sequence[int]) -> None:
    # lmplz names thresholds from single words on, and we from pairs on.
    assert_same(estimate(TEXT, order, cutoffs[1:]), read_arpa(LMPLZ / f"{name}.arpa"))


@pytest.mark.parametrize(
    ("order", "cutoffs", "closed", "min_count"),
    [
        (1, [], False, 1),
        (2, [], False, 2),
        (3, [1], True, 1),
        (4, [0, 1, 2], False, 2),
        (4, [], True, 1),
    ],
)
def test_every_context_sums_to_one(
    order: int, cutoffs: Sequence[int], closed: bool, min_count: int
) -> None:
    model = estimate(TEXT, order, cutoffs, closed, min_count)
    assert model.order == order
    for node in range(len(model.words)):
        assert total(model, node) == pytest.approx(1, abs=1e-5)
    unknown = model.log_probs[1 + UNKNOWN_ID]
    assert (unknown == -math.inf) == closed


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_any_text_gives_proper_distributions(
    sentences: list[list[str]], order: int, cutoff: int
) -> None:
    model = estimate([" ".join(words) for words in sentences], order, [cutoff])
    assert np.isfinite(model.log_probs).all()
    assert np.isfinite(model.backoffs).all()
    for node in range(len(model.words)):
        assert total(model, node) == pytest.approx(1, abs=1e-5)


def test_a_unigram_by_hand() -> None:
    # Counts a 4, b 2, c 3, </s> 3: no word is said once, so the fallback discounts are taken.
    model = estimate(SMALL, 1)
    left = FALLBACK[1] + 3 * FALLBACK[2]
    share = left / 12 / 5  # of a, b, c, </s> and <unk>
    expected = {"<unk>": share, "a": 2.5 / 12 + share, "b": 1 / 12 + share, "c": 1.5 / 12 + share}
    found = {words[0]: 10 ** scores[0] for words, scores in entries(model).items()}
    for word, probability in expected.items():
        assert found[word] == pytest.approx(probability), word


def test_discounts_are_those_of_chen_and_goodman() -> None:
    counts = np.repeat([0, 1, 2, 3, 4, 7], [5, 40, 20, 12, 8, 3])
    y = 40 / (40 + 2 * 20)
    expected = [0, 1 - 2 * y * 20 / 40, 2 - 3 * y * 12 / 20, 3 - 4 * y * 8 / 12]
    assert discounts(counts) == pytest.approx(expected)
    assert discounts(np.array([1, 1, 2])) == pytest.approx([0, *FALLBACK])


def test_rare_words_count_as_unknown() -> None:
    model = estimate(SMALL, 2, min_count=3)
    assert model.vocabulary == ("<unk>", "<s>", "</s>", "a", "c")
    assert ("a", "<unk>") in entries(model)


def test_the_order_of_the_sentences_does_not_matter() -> None:
    assert_same(estimate(TEXT, 3), estimate(TEXT[::-1], 3), 0)


@pytest.mark.parametrize(
    ("sentences", "more", "message"),
    [
        ([], {}, "expected sentences, got an empty text"),
        (["", "  "], {}, "expected sentences, got an empty text"),
        (["a", "b <s> c"], {}, "got the marker <s> in line 2"),
        (["a b", "c"], {"order": 5}, "expected an order of at most 4"),
        (["a"], {"order": 0}, "an order of at least 1"),
        (["a"], {"cutoffs": [2, 1]}, "cut-offs that never fall"),
        (["a b"], {"min_count": 2}, "expected words with 2 occurrences, got none"),
        (["a <UNK>"], {}, "got the marker <UNK> in line 1"),
        (["a a"], {"min_count": 2, "closed": True}, "closed vocabulary of every word"),
    ],
)
def test_texts_that_cannot_be_estimated(
    sentences: list[str], more: dict[str, int], message: str
) -> None:
    with pytest.raises(AsrError, match=message):
        estimate(sentences, **{"order": 2} | more)  # type: ignore[arg-type]


def test_progress_ends_at_its_total() -> None:
    said: list[tuple[int, int]] = []
    estimate(TEXT, 3, progress=lambda done, steps: said.append((done, steps)))
    assert said[-1] == (4 * len(TEXT), 4 * len(TEXT))
    assert said == sorted(said)


# --- scores ---


def test_a_sentence_backs_off_by_the_rule() -> None:
    model = estimate(SMALL, 3)
    by_hand = entries(model)
    first, second, third, end = model.score_sentence(["b", "a", "d"])
    assert first.log10 == pytest.approx(by_hand["<s>", "b"][0])
    assert (first.length, second.length, third.length) == (2, 3, 1)
    assert second.log10 == pytest.approx(by_hand["<s>", "b", "a"][0])
    backed = by_hand["b", "a"][1] + by_hand["a",][1] + by_hand["<unk>",][0]
    assert third.log10 == pytest.approx(backed, abs=1e-5)
    assert third.unknown
    assert end.word == "</s>"
    assert end.log10 == pytest.approx(by_hand["<unk>",][1] + by_hand["</s>",][0], abs=1e-5)


def test_markers_in_a_sentence_are_unknown_words() -> None:
    model = estimate(SMALL, 2)
    assert all(score.unknown for score in model.score_sentence(["</s>", "<s>", "<unk>"])[:3])


def test_perplexity_by_hand() -> None:
    model = estimate(SMALL, 2)
    sentences = [["a", "b"], ["x"]]
    scores = [score for words in sentences for score in model.score_sentence(words)]
    found = measure_perplexity(model, sentences)
    assert (found.sentences, found.words, found.unknown) == (2, 5, 1)
    assert found.perplexity == pytest.approx(10 ** (-sum(s.log10 for s in scores) / 5))
    known = [score.log10 for score in scores if not score.unknown]
    assert found.known_perplexity == pytest.approx(10 ** (-sum(known) / 4))
    closed = measure_perplexity(estimate(SMALL, 2, closed=True), sentences)
    assert closed.perplexity == math.inf
    assert math.isfinite(closed.known_perplexity)


# --- files ---


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz", "folder"])
@pytest.mark.parametrize("closed", [False, True])
def test_what_is_saved_is_loaded(tmp_path: Path, name: str, closed: bool) -> None:
    model = estimate(TEXT, 3, closed=closed)
    save_ngram(tmp_path / name, model)
    loaded = load_ngram(tmp_path / name)
    assert_same(model, loaded)
    assert loaded.vocabulary == model.vocabulary
    sentence = TEXT[3].split()
    for ours, theirs in zip(
        model.score_sentence(sentence), loaded.score_sentence(sentence), strict=True
    ):
        assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-5)
        assert ours.length == theirs.length
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_perplexity_that_no_float_holds_is_infinite() -> None:
    found = Perplexity(1, 2, 0, -1500.0, -1500.0)
    assert found.perplexity == found.known_perplexity == math.inf
