"""Walking the trie of an n-gram model, compiled by numba."""

from __future__ import annotations

import numpy as np

from asr.jit import compiled, inner


@inner
def find_child(words, first_child, node, word):
    """The node of `word` after `node`, or -1. The children of a node are sorted by word, and those
    of the root, 0, are all words."""
    if node == 0:
        return 1 + word
    low, high = first_child[node], first_child[node + 1]
    while low < high:
        middle = (low + high) // 2
        if words[middle] < word:
            low = middle + 1
        else:
            high = middle
    if low < first_child[node + 1] and words[low] == word:
        return low
    return -1


@compiled
def advance(words, log_probs, backoffs, first_child, suffixes, node, word):
    """The score of `word` after the context `node`, and the context after it.

    The longest known n-gram counts; for every word dropped from the front of the context, its
    backoff weight is added (Katz 1987).
    """
    score = np.float32(0.0)
    while True:
        child = find_child(words, first_child, node, word)
        if child >= 0:
            return score + log_probs[child], child
        score += backoffs[node]
        node = suffixes[node]


@compiled
def link_suffixes(words, first_child, parents, suffixes):
    """Fill in, for the node of every n-gram, the node of its longest known suffix."""
    for node in range(1, len(words)):
        context = parents[node]
        if context == 0:
            suffixes[node] = 0
            continue
        while True:
            context = suffixes[context]
            child = find_child(words, first_child, context, words[node])
            if child >= 0:
                suffixes[node] = child
                break


@compiled
def score_words(words, log_probs, backoffs, first_child, suffixes, node, ids, scores, nodes):
    """Score `ids` from `node` on: the score of each, and the context after it."""
    for i in range(len(ids)):
        scores[i], node = advance(words, log_probs, backoffs, first_child, suffixes, node, ids[i])
        nodes[i] = node
