"""Tries of characters: the words of a lexicon, and hot words and phrases.

Nodes are numbered level by level and sorted within a level, so that the children of a node are
adjacent. The root is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from asr.lm.ngram import Ints


def best_below(
    parents: Sequence[NDArray[np.int64]], ends: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The highest value of the words that end at each node or below. A node without any has no
    nodes below it, and is the root of an empty trie."""
    best = np.full(sum(map(len, parents)), -np.inf)
    best[ends] = values
    last = len(best)
    for level in reversed(parents):
        first = last - len(level)
        if first:
            np.maximum.at(best, level, best[first:last])
        last = first
    return np.where(np.isneginf(best), 0.0, best)


def build_trie(
    words: Sequence[str], alphabet: Mapping[str, int]
) -> tuple[Ints, Ints, NDArray[np.int64], list[NDArray[np.int64]]]:
    """A node for every prefix of a word, level by level, and the final node of each word.

    Shape: the first child of every node [N + 1], its character [N], the words' nodes [words], and
    the parents of the nodes of each level.
    """
    lengths = np.array([len(word) for word in words], np.int64)
    longest = int(lengths.max(initial=0))
    # One after the other: a table would have the width of the longest word.
    spelled = np.fromiter((alphabet[c] for word in words for c in word), np.int64, lengths.sum())
    begins = np.cumsum(lengths) - lengths
    parents, characters = [np.zeros(1, np.int64)], [np.full(1, -1)]
    nodes, total = np.zeros(len(words), np.int64), 1
    for place in range(longest):
        inside = np.flatnonzero(lengths > place)
        keys = nodes[inside] * len(alphabet) + spelled[begins[inside] + place]
        distinct, inverse = np.unique(keys, return_inverse=True)
        nodes[inside] = total + inverse
        parents.append(distinct // len(alphabet))
        characters.append(distinct % len(alphabet))
        total += len(distinct)
    children = np.bincount(np.concatenate(parents)[1:], minlength=total)
    first_child = np.concatenate([[1], 1 + np.cumsum(children)]).astype(np.int32)
    return first_child, np.concatenate(characters).astype(np.int32), nodes, parents
