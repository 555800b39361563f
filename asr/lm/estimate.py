"""Interpolated modified Kneser-Ney estimation of n-gram models (Chen and Goodman 1999, section 3).

Figures agree with KenLM's lmplz (Heafield et al. 2013), whose conventions are used if the paper
leaves a choice: n-grams that begin a sentence keep their plain counts, <s> is never predicted, and
<unk> gets the share of one more word with count zero.

P positions in the text: one for every word, <s> and </s>.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.errors import AsrError
from asr.lm.ngram import END_ID, SPECIAL, START_ID, UNKNOWN_ID, Level, NgramModel, assemble

# For counts 1, 2 and 3 or more, if a text is too small to estimate them (lmplz's fallback).
FALLBACK = (0.5, 1.0, 1.5)
SMALLEST = 1e-30  # backoff weight, whose logarithm must be finite
PROGRESS_EVERY = 10_000  # sentences

Ints = NDArray[np.int64]
Numbers = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Grams:
    """The distinct n-grams of one length, sorted by their first n - 1 words, then by the last.

    Shape: parents (indices of the n-grams one shorter), words, suffixes (indices likewise) and
    counts, each [n-grams]; places [P], the n-gram that ends at a position, or -1.
    """

    parents: Ints
    words: Ints
    suffixes: Ints
    counts: Ints
    places: Ints


def estimate(
    sentences: Iterable[str],
    order: int,
    cutoffs: Sequence[int] = (),
    closed: bool = False,
    min_count: int = 1,
    progress: Progress = lambda done, total: None,
) -> NgramModel:
    """A model of `sentences`, whose words are separated by spaces.

    `cutoffs`: n-grams with at most this count are left out, by length from two words on; the last
    value holds for all longer ones. Words with fewer than `min_count` occurrences count as <unk>. A
    closed vocabulary gives <unk> no probability. `progress` gets the steps done and in total.

    Raises AsrError for a text that is empty, too small for `order`, or contains a marker such as
    <s>.
    """
    if order < 1 or any(b < a for a, b in itertools.pairwise([0, *cutoffs])):
        raise AsrError(
            f"expected an order of at least 1 and cut-offs that never fall, got {order} and "
            f"{list(cutoffs)}: correct them"
        )
    lines = list(sentences)
    steps = len(lines) * (order + 1)  # one for reading, and one for every length of n-grams
    if closed and min_count > 1:
        raise AsrError(
            f"expected a closed vocabulary of every word, got a least count of {min_count}: "
            "choose one of them"
        )
    vocabulary, text = _read(lines, min_count, lambda done: progress(done, steps))
    longest = int(np.diff(np.flatnonzero(text == START_ID), append=len(text)).max())
    if order > longest:
        raise AsrError(
            f"expected an order of at most {longest}, the words of the longest sentence and its "
            f"two ends, got {order}: lower it, or give more text"
        )
    grams = []
    for gram in count(text, order, len(vocabulary)):
        grams.append(gram)
        progress((1 + len(grams)) * len(lines), steps)
    adjusted = [_continuations(longer, this) for this, longer in itertools.pairwise(grams)] + [
        grams[-1].counts
    ]
    adjusted[0] = adjusted[0].copy()
    adjusted[0][START_ID] = 0
    limits = [0, *cutoffs, *[cutoffs[-1] if cutoffs else 0] * order][:order]
    return assemble(vocabulary, _interpolated(grams, adjusted, limits, closed))


def _read(
    sentences: Sequence[str], min_count: int, progress: Callable[[int], None]
) -> tuple[list[str], Ints]:
    """The vocabulary, and the text as ids, every sentence between <s> and </s>. Shape: [P]."""
    seen: dict[str, int] = {word: i for i, word in enumerate(SPECIAL)}
    pieces = []
    for number, sentence in enumerate(sentences, start=1):
        words = sentence.split()
        # ARPA files of other programs have <UNK> for <unk>.
        if marker := next((w for w in words if w in SPECIAL or w == "<UNK>"), None):
            raise AsrError(f"expected words, got the marker {marker} in line {number}: remove it")
        if words:
            ids = [seen.setdefault(word, len(seen)) for word in words]
            pieces.append(np.array([START_ID, *ids, END_ID], dtype=np.int32))
        if number % PROGRESS_EVERY == 0:
            progress(number)
    if not pieces:
        raise AsrError("expected sentences, got an empty text: give lines of words")
    text = np.concatenate(pieces)
    names = list(seen)
    counts = np.bincount(text, minlength=len(names))
    kept = [i for i in range(len(names)) if i <= END_ID or counts[i] >= min_count]
    # Sorted, so that the model does not depend on the order of the words.
    kept[END_ID + 1 :] = sorted(kept[END_ID + 1 :], key=names.__getitem__)
    if len(kept) == len(SPECIAL):
        raise AsrError(f"expected words with {min_count} occurrences, got none: lower the count")
    place = np.full(len(names), UNKNOWN_ID)
    place[kept] = np.arange(len(kept))
    return [names[i] for i in kept], place[text]


def count(text: Ints, order: int, words: int) -> Iterator[Grams]:
    """The n-grams of every length up to `order`; none crosses a sentence boundary."""
    places = text.copy()
    counts = np.bincount(text, minlength=words)
    zeros = np.zeros(words, np.int64)
    yield Grams(zeros, np.arange(words), zeros, counts, places)
    for _ in range(1, order):
        shorter = places
        before = np.concatenate([[-1], shorter[:-1]])
        # An n-gram that ends with <s> would begin in the previous sentence.
        inside = (before >= 0) & (text != START_ID)
        keys = before[inside] * words + text[inside]
        distinct, first, inverse, counts = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        places = np.full(len(text), -1)
        places[inside] = inverse
        suffixes = shorter[inside][first]
        yield Grams(distinct // words, distinct % words, suffixes, counts, places)


def _continuations(longer: Grams, this: Grams) -> Ints:
    """Adjusted counts: the number of different words before an n-gram (Kneser and Ney 1995). At the
    beginning of a sentence no word precedes it: there it keeps its count."""
    adjusted = np.bincount(longer.suffixes, minlength=len(this.words))
    return np.where(adjusted == 0, this.counts, adjusted)


def discounts(adjusted: Ints) -> Numbers:
    """Discounts of counts 0, 1, 2, and 3 or more (Chen and Goodman 1999, equation 26)."""
    n1, n2, n3, n4 = np.bincount(np.minimum(adjusted, 5), minlength=6)[1:5].tolist()
    if not (n1 and n2 and n3):
        return np.array([0, *FALLBACK])
    y = n1 / (n1 + 2 * n2)
    found = np.array([0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    usable = (found[1:] >= 0).all() and (found[1:] <= (1, 2, 3)).all()
    return found if usable else np.array([0, *FALLBACK])


def _interpolated(
    grams: Sequence[Grams], adjusted: Sequence[Ints], limits: Sequence[int], closed: bool
) -> list[Level]:
    """Probabilities of every length from those of the previous one, and the backoff weights."""
    levels: list[Level] = []
    words = len(grams[0].words)
    possible = words - (2 if closed else 1)  # <s> is never predicted
    lower = np.full(1, 1 / possible)
    renamed = np.zeros(1, np.int64)  # indices among the kept n-grams
    for gram, counts, limit in zip(grams, adjusted, limits, strict=True):
        kept = (gram.counts > limit) | (len(levels) == 0)
        taken = discounts(counts)[np.minimum(counts, 3)]
        contexts = len(lower)
        total = np.bincount(gram.parents, counts, contexts)
        # Omitted n-grams give all their probability to shorter ones.
        left = np.bincount(gram.parents, np.where(kept, taken, counts), contexts)
        gamma = np.divide(left, total, out=np.ones(contexts), where=total > 0)
        own = (counts - taken) / np.maximum(total, 1)[gram.parents]
        probabilities = own + gamma[gram.parents] * lower[gram.suffixes]
        if not levels:
            probabilities[START_ID] = 1.0  # the convention for a word that is never predicted
            if closed:
                probabilities[UNKNOWN_ID] = 0.0
        else:
            _set_backoffs(levels[-1], gamma, renamed)
        with np.errstate(divide="ignore"):
            log_probs = np.log(probabilities)
        parents = renamed[gram.parents]
        levels.append(
            Level(
                parents[kept],
                gram.words[kept].astype(np.int32),
                log_probs[kept].astype(np.float32),
                np.zeros(int(kept.sum()), np.float32),
            )
        )
        renamed = np.where(kept, np.cumsum(kept) - 1, -1)
        lower = probabilities
    return levels


def _set_backoffs(level: Level, gamma: Numbers, renamed: Ints) -> None:
    """Set the backoff weights of a complete level from the n-grams that are one longer."""
    kept = renamed >= 0
    level.backoffs[renamed[kept]] = np.log(np.maximum(gamma[kept], SMALLEST))
