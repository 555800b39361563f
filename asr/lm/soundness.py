"""Validation of the arrays of an n-gram model as a trie, before compiled code uses them.

The compiled code checks no bounds: an index from a damaged or hostile file would read foreign
memory, and circular links would never end. Arrays are read in blocks, since they may be mapped from
disk and larger than memory. N nodes with the root, V words.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.lm.ngram import SPECIAL, NgramModel

PIECE = 1 << 20  # nodes
LARGEST = 1e5  # nats of a score or backoff weight, so that no sum of them can overflow
ROUNDING = 1e-3  # nats by which a log-probability may exceed 0

Array = NDArray[Any]


def find_fault(model: NgramModel) -> str | None:
    """What is wrong with a model, as `NAME: expected ..., got ...`, or None.

    A sound model has: a vocabulary of distinct words that begins with the markers; nodes level by
    level, with all words in order in the first level; children one level below their node, sorted
    by word; suffixes above the level of their node, so that every chain of them ends at the root;
    and scores that are numbers not above 0, or minus infinity.
    """
    words, nodes = len(model.vocabulary), 1 + sum(model.counts)
    if model.vocabulary[: len(SPECIAL)] != SPECIAL or model.counts[0] != words:
        return f"vocabulary: expected {model.counts[0]} words from {SPECIAL[0]} on, got {words}"
    if len(set(model.vocabulary)) != words:
        return "vocabulary: expected every word once, got one again"
    lengths = {"words": nodes, "log_probs": nodes, "backoffs": nodes, "suffixes": nodes,
               "first_child": nodes + 1}  # fmt: skip
    for name, length in lengths.items():
        if len(getattr(model, name)) != length:
            got = len(getattr(model, name))
            return f"{name}: expected {length} numbers according to the counts, got {got}"
    return _find_bad_link(model, words, nodes) or _find_bad_score(model)


def _find_bad_link(model: NgramModel, words: int, nodes: int) -> str | None:
    first, starts = model.first_child, [0, *np.cumsum([1, *model.counts]).tolist()]
    # At the start of each level, the children of its nodes must begin with the next level.
    for level, start in enumerate(starts):
        expected = starts[min(level + 1, len(starts) - 1)]
        if first[start] != expected:
            return f"first_child: expected {expected} at node {start}, got {first[start]}"
    for begin, end in _pieces(0, nodes):
        steps = np.diff(first[begin : end + 1])
        if (steps < 0).any():
            return f"first_child: expected no decrease after node {begin + int(np.argmin(steps))}"
    if not np.array_equal(model.words[1 : 1 + words], np.arange(words)):
        return "words: expected all words of the vocabulary in the first level, got others"
    for begin, end in _pieces(0, nodes):
        if not _within(model.words[begin:end], words):
            return f"words: expected ids from 0 to {words - 1}, got others from node {begin} on"
        rising = np.diff(model.words[begin : end + 1]) > 0
        # At the first child of another node, the order restarts.
        low, high = np.searchsorted(first, [begin + 1, min(end + 1, nodes)])
        rising[np.asarray(first[low:high]) - begin - 1] = True
        if not rising.all():
            return f"words: expected children sorted by word, got others near node {begin}"
    for start, stop in itertools.pairwise(starts):
        for begin, end in _pieces(start, stop):
            if not _within(model.suffixes[begin:end], max(start, 1)):
                return (
                    f"suffixes: expected nodes of shorter n-grams, below {max(start, 1)}, got "
                    f"others from node {begin} on"
                )
    return None


def _find_bad_score(model: NgramModel) -> str | None:
    for begin, end in _pieces(0, len(model.words)):
        scores, backoffs = model.log_probs[begin:end], model.backoffs[begin:end]
        possible = (scores <= ROUNDING) & ((scores >= -LARGEST) | np.isneginf(scores))
        if not possible.all():
            return f"log_probs: expected numbers up to 0, got others from node {begin} on"
        if not (np.abs(backoffs) <= LARGEST).all():
            return f"backoffs: expected finite numbers, got others from node {begin} on"
    return None


def _within(values: Array, limit: int) -> bool:
    return bool(((values >= 0) & (values < limit)).all())


def _pieces(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for begin in range(start, stop, PIECE):
        yield begin, min(begin + PIECE, stop)
