"""A backoff n-gram language model: a trie in flat arrays, which can be mapped from disk.

The node of the n-gram w1 ... wn is a child of the node of w1 ... wn-1; the root is the empty
context. Nodes are numbered level by level and sorted within a level, so that the children of a node
are adjacent. Scores are natural logarithms.

N nodes with the root, V words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from asr.lm.lookup import advance, link_suffixes, score_words

UNKNOWN, START, END = "<unk>", "<s>", "</s>"
SPECIAL = (UNKNOWN, START, END)
UNKNOWN_ID, START_ID, END_ID = range(3)
START_NODE = 1 + START_ID  # the context at the beginning of a sentence

Ints = NDArray[np.int32]
Floats = NDArray[np.float32]
Arrays = tuple[Ints, Floats, Floats, NDArray[np.int64], Ints]


@dataclass(frozen=True)
class Level:
    """All n-grams of one length, sorted by `parents`, then by `words`.

    Shape: each [n-grams]; parents are indices in the level below, words are ids.
    """

    parents: NDArray[np.int64]
    words: Ints
    log_probs: Floats
    backoffs: Floats


@dataclass(frozen=True)
class NgramModel:
    """An n-gram model. `vocabulary` begins with <unk>, <s> and </s>.

    Shape: words, log_probs, backoffs, suffixes [N], first_child [N + 1], of the root on.
    """

    vocabulary: tuple[str, ...]
    counts: tuple[int, ...]
    """The number of n-grams of each length, from one on."""
    words: Ints
    log_probs: Floats
    backoffs: Floats
    first_child: NDArray[np.int64]
    suffixes: Ints
    """The node of the longest known suffix: the context without its first word."""

    @property
    def order(self) -> int:
        return len(self.counts)

    @cached_property
    def ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.vocabulary)}

    @cached_property
    def arrays(self) -> Arrays:
        """The arrays for the functions of `lookup`."""
        return read_only(self.words, self.log_probs, self.backoffs, self.first_child, self.suffixes)

    def id(self, word: str) -> int:
        """The id of a word, or of <unk>; markers such as <s> are not words."""
        found = self.ids.get(word, UNKNOWN_ID)
        return found if found > END_ID else UNKNOWN_ID

    def score(self, node: int, word: int) -> tuple[float, int]:
        """Log-probability of a word id in the context `node`, and the context after it."""
        score, after = advance(*self.arrays, node, word)
        return float(score), int(after)

    def score_sentence(self, sentence: Sequence[str]) -> list[WordScore]:
        """Every word of a sentence after the previous ones, and the end.

        >>> from asr.lm.estimate import estimate
        >>> model = estimate(["a b", "a c"], order=2)
        >>> [score.word for score in model.score_sentence(["a", "d"])]
        ['a', 'd', '</s>']
        """
        ids = np.array([*(self.id(word) for word in sentence), END_ID], dtype=np.int32)
        scores, nodes = np.empty(len(ids), np.float32), np.empty(len(ids), np.int64)
        score_words(*self.arrays, START_NODE, ids, scores, nodes)
        lengths = np.searchsorted(np.cumsum([1, *self.counts]), nodes, "right")
        return [
            WordScore(word, float(score), int(length), int(i) == UNKNOWN_ID)
            for word, i, score, length in zip((*sentence, END), ids, scores, lengths, strict=True)
        ]


def read_only(*arrays: NDArray[Any]) -> Arrays:
    """Views that are read-only, whether mapped from disk or not: otherwise numba would compile all
    functions that use them once for each kind."""
    views = [np.asarray(array).view() for array in arrays]
    for view in views:
        view.flags.writeable = False
    return cast(Arrays, tuple(views))


@dataclass(frozen=True)
class WordScore:
    """A word of a sentence: natural log-probability, length of the n-gram that gave it."""

    word: str
    log_prob: float
    length: int
    unknown: bool

    @property
    def log10(self) -> float:
        """The score in the unit of ARPA files."""
        return self.log_prob / math.log(10)


LARGEST_NATS = 700.0  # whose exponential is still finite


def exp_or_inf(nats: float) -> float:
    """The exponential; infinite if a float cannot hold it.

    >>> exp_or_inf(1000.0)
    inf
    """
    return math.exp(nats) if nats < LARGEST_NATS else math.inf


@dataclass(frozen=True)
class Perplexity:
    """Sums over a text. Ends of sentences count as words, as is usual."""

    sentences: int = 0
    words: int = 0
    unknown: int = 0
    log_prob: float = 0.0
    known_log_prob: float = 0.0

    @property
    def perplexity(self) -> float:
        """Of all words; infinite if a closed vocabulary lacks one."""
        return exp_or_inf(-self.log_prob / self.words)

    @property
    def known_perplexity(self) -> float:
        """Of the known words only."""
        return exp_or_inf(-self.known_log_prob / max(1, self.words - self.unknown))


class Scorer(Protocol):
    """A language model, of n-grams or recurrent."""

    def score_sentence(self, sentence: Sequence[str]) -> list[WordScore]: ...


def measure_perplexity(model: Scorer, sentences: Iterable[Sequence[str]]) -> Perplexity:
    """The perplexity of tokenised sentences."""
    count, words, unknown = 0, 0, 0
    known, foreign = [], []
    for sentence in sentences:
        scores = model.score_sentence(sentence)
        count += 1
        words += len(scores)
        unknown += sum(score.unknown for score in scores)
        known += [score.log_prob for score in scores if not score.unknown]
        foreign += [score.log_prob for score in scores if score.unknown]
    total = math.fsum(known)
    return Perplexity(count, words, unknown, total + math.fsum(foreign), total)


def assemble(vocabulary: Sequence[str], levels: Sequence[Level]) -> NgramModel:
    """The trie of all n-grams. The first level holds every word of the vocabulary."""
    root = np.zeros(1)
    offsets = np.cumsum([0, 1, *(len(level.words) for level in levels)])
    parents = np.concatenate(
        [root, *(o + level.parents for o, level in zip(offsets, levels, strict=False))]
    ).astype(np.int64)
    words = np.concatenate([root, *(level.words for level in levels)]).astype(np.int32)
    children = np.bincount(parents[1:], minlength=len(words))
    first_child = np.concatenate([[1], 1 + np.cumsum(children)])
    suffixes = np.zeros(len(words), np.int32)
    link_suffixes(words, first_child, parents, suffixes)
    return NgramModel(
        tuple(vocabulary),
        tuple(len(level.words) for level in levels),
        words,
        np.concatenate([root, *(level.log_probs for level in levels)]).astype(np.float32),
        np.concatenate([root, *(level.backoffs for level in levels)]).astype(np.float32),
        first_child,
        suffixes,
    )
