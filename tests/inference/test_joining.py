"""Words of overlapping pieces: each once, whatever is said and wherever it is cut."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.inference.joining import join_words
from asr.inference.time_formats import TokenTime, Word

WORDS = ("one", "two", "two", "four", "oh", "e", "seventeen")
OVERLAP = 2.0


def spoken(seed: int, count: int) -> list[Word]:
    """Random words without pauses or with short ones, often the same one again."""
    random = np.random.default_rng(seed)
    words, at = [], 0.0
    for text in random.choice(WORDS, count):
        at += float(random.choice([0.0, 0.02, 0.3]))
        end = at + float(random.uniform(0.12, 0.7))
        words.append(Word(str(text), round(at, 3), round(end, 3)))
        at = end
    return words


def recognised(
    words: list[Word], start: float, end: float, seed: int, last: bool, first: bool
) -> list[Word]:
    """What a recogniser finds between two times: a word that is cut is another one or none."""
    random = np.random.default_rng(seed)
    shift = float(random.uniform(-0.04, 0.04))
    found = []
    for word in words:
        if word.end <= start or word.start >= end:
            continue
        moved = replace(word, start=word.start + shift, end=word.end + shift)
        if (word.start < start and not first) or (word.end > end and not last):
            if random.random() < 0.5:
                continue
            moved = Word("cut", max(moved.start, start), min(moved.end, end))
        found.append(moved)
    return found


@settings(max_examples=120)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(2.5, 6.0))
@example(1557, 35, 2.75)  # "two two", quickly
def test_no_word_is_lost_or_doubled(seed: int, count: int, longest: float) -> None:
    words = spoken(seed, count)
    random, total = np.random.default_rng(seed), words[-1].end
    pieces, start = [], 0.0
    while total - start > longest:
        end = start + float(random.uniform(OVERLAP + 0.3, longest))
        pieces.append((start, end))
        start = end - OVERLAP
    pieces.append((start, total))
    joined: tuple[Word, ...] = ()
    for number, (start, end) in enumerate(pieces):
        last, first = number == len(pieces) - 1, number == 0
        found = recognised(words, start, end, seed + number, last, first)
        reached = pieces[number - 1][1]
        joined = join_words(joined, found, start, reached) if number else tuple(found)
    assert [word.text for word in joined] == [word.text for word in words]
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(joined))
    assert max(abs(a.end - b.end) for a, b in zip(joined, words, strict=True)) < 0.1


def spelled(text: str, start: float, end: float, confidence: float | None = None) -> Word:
    """A word whose tokens last equally long."""
    times = np.linspace(start, end, len(text) + 1).round(3).tolist()
    units = [TokenTime(c, a, b) for c, (a, b) in zip(text, itertools.pairwise(times), strict=True)]
    units[0] = replace(units[0], unit="▁" + text[0])
    return Word(text, start, end, confidence, tuple(units))


def test_a_text_without_spaces_is_joined_by_its_tokens() -> None:
    left, right = spelled("abcdefgh", 0.0, 8.0, 0.9), spelled("xghijkl", 5.5, 12.0, 0.8)
    right = replace(right, units=spelled("fghijkl", 5.0, 12.0).units)
    right = replace(right, text="fghijkl", start=5.0)
    (joined,) = join_words([left], [right], 5.0, 8.0)
    assert (joined.text, joined.start, joined.end) == ("abcdefghijkl", 0.0, 12.0)
    assert joined.confidence == 0.8
    assert "".join(unit.unit for unit in joined.units) == "▁abcdefghijkl"
    apart = spelled("z", 9.0, 9.4)
    assert [w.text for w in join_words([left], [apart], 7.0, 9.0)] == ["abcdefgh", "z"]


def test_where_both_disagree_the_join_is_between_words() -> None:
    left = [Word("a", 0.0, 1.0), Word("b", 3.0, 3.9), Word("c", 4.1, 4.9)]
    right = [Word("x", 3.1, 3.8), Word("y", 4.2, 5.0), Word("d", 6.0, 6.5)]
    assert [w.text for w in join_words(left, right, 3.0, 5.0)] == ["a", "b", "y", "d"]


@pytest.mark.parametrize(("left", "right"), [(1, 0), (0, 1), (0, 0)])
def test_silent_pieces(left: int, right: int) -> None:
    word = Word("one", 4.0, 4.4)
    found = join_words([word] * left, [word] * right, 3.0, 5.0)
    assert len(found) == left or len(found) == right
