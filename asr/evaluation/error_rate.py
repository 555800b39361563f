"""Word, character and sentence errors as counts, and confidence intervals of the error rate.

Texts are compared as given: case and punctuation count, since normalisation belongs to the recipe.
Whitespace separates words. Canonically equivalent texts are the same text, and invisible
characters, such as zero-width spaces, are removed (`asr.text.characters.canonical`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import jiwer
import numpy as np
from scipy.special import betaincinv, ndtr, stdtrit

from asr.errors import AsrError
from asr.evaluation.optional import align_optional, is_optional, plain
from asr.text.edit_distance import (
    OPERATIONS,
    WORDS,
    AlignedWord,
    Operation,
    align_chunks,
    columns,
    comparable,
)

FEWEST = 5
"""Fewest utterances, segments or speakers for an interval and a p-value."""
FEW = 10
"""Number of errors below which an interval does not depend on the bootstrap alone."""

Interval = tuple[float, float]
_CHARACTERS = jiwer.ReduceToListOfListOfChars()
_INDICES_AT_ONCE = 1_000_000  # 8 MB of indices: small enough for the cache, large enough for numpy


@dataclass(frozen=True)
class ErrorCounts:
    """Errors in one utterance or many, in units (words, characters or sentences).

    Add counts and then compute the rate; never average rates. Raises ValueError for impossible
    counts.

    >>> a, b = ErrorCounts(1, 0, 0, 2), ErrorCounts(0, 1, 1, 6)
    >>> print(sum([a, b], ErrorCounts()))
    37.50 % (3/8: 1 S, 1 D, 1 I)
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0

    def __post_init__(self) -> None:
        if min(self.substitutions, self.deletions, self.insertions) < 0:
            raise ValueError(f"expected counts of at least 0, got {self!r}")
        if self.substitutions + self.deletions > self.reference_length:
            raise ValueError(f"expected at most one error per reference unit, got {self!r}")

    @property
    def errors(self) -> int:
        """The sum of substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit, a fraction that insertions can raise above 1.

        Without reference units: 0.0 if there is no error, else infinity. Reports write null for it,
        since JSON has no infinity.

        >>> ErrorCounts(1, 0, 0, 4).rate, ErrorCounts().rate, ErrorCounts(insertions=2).rate
        (0.25, 0.0, inf)
        """
        if self.reference_length == 0:
            return math.inf if self.errors else 0.0
        return self.errors / self.reference_length

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_length + other.reference_length,
        )

    def __str__(self) -> str:
        percent = f"{100 * self.rate:.2f} %" if math.isfinite(self.rate) else "n/a"
        return (
            f"{percent} ({self.errors}/{self.reference_length}: {self.substitutions} S, "
            f"{self.deletions} D, {self.insertions} I)"
        )


@dataclass(frozen=True)
class UtteranceScore:
    """One utterance: its texts, errors and word alignment.

    `words.errors` is exact. Several alignments may have equally few errors; one is chosen, so other
    tools may divide the same total differently into S, D and I.
    """

    id: str
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts
    alignment: tuple[AlignedWord, ...]

    @property
    def right(self) -> list[bool]:
        """Whether each word of the hypothesis is correct."""
        return [column.operation == "C" for column in self.alignment if column.hypothesis]


@dataclass(frozen=True)
class Scores:
    """Every utterance of the reference, in order, and the ids without a partner."""

    utterances: tuple[UtteranceScore, ...]
    missing: tuple[str, ...]  # references without a hypothesis: scored as deletions
    unexpected: tuple[str, ...]  # hypotheses without a reference: not scored

    @cached_property
    def words(self) -> ErrorCounts:
        """Word errors of the whole set; the rate is the WER."""
        return sum((utterance.words for utterance in self.utterances), ErrorCounts())

    @cached_property
    def characters(self) -> ErrorCounts:
        """Character errors of the whole set; the rate is the CER."""
        return sum((utterance.characters for utterance in self.utterances), ErrorCounts())

    @cached_property
    def sentences(self) -> ErrorCounts:
        """Utterances with a word error, each as one substitution; the rate is the SER."""
        return sum(map(sentence_counts, self.utterances), ErrorCounts())


def sentence_counts(utterance: UtteranceScore) -> ErrorCounts:
    """The utterance as one unit: wrong if a word is wrong."""
    return ErrorCounts(substitutions=int(utterance.words.errors > 0), reference_length=1)


def score(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> Scores:
    """Align each reference with the hypothesis of the same id and count the errors.

    A missing hypothesis is scored as an empty one, so all its words are deletions. Words are
    separated by whitespace. Characters are code points, with one space between words: a wrong word
    boundary is a character error.

    Raises AsrError without references, since there is no rate.

    >>> scores = score({"a": "one two", "b": "three"}, {"a": "one too", "c": "four"})
    >>> print(scores.words)
    66.67 % (2/3: 1 S, 1 D, 0 I)
    >>> scores.missing, scores.unexpected, scores.sentences.errors
    (('b',), ('c',), 2)
    >>> [tuple(word) for word in scores.utterances[0].alignment]
    [('C', 'one', 'one'), ('S', 'two', 'too')]
    """
    if not references:
        raise AsrError("expected at least one reference utterance, got none: check the manifest")
    reference_texts = [comparable(text) for text in references.values()]
    hypothesis_texts = [comparable(hypotheses.get(id_, "")) for id_ in references]
    utterances = [
        _with_optional(id_, reference, hypothesis)
        if any(map(is_optional, f"{reference} {hypothesis}".split()))
        else UtteranceScore(
            id=id_,
            reference=reference,
            hypothesis=hypothesis,
            words=_counts(words),
            characters=_counts(characters),
            alignment=columns(reference.split(), hypothesis.split(), words),
        )
        for id_, reference, hypothesis, words, characters in zip(
            references,
            reference_texts,
            hypothesis_texts,
            align_chunks(reference_texts, hypothesis_texts, WORDS),
            align_chunks(reference_texts, hypothesis_texts, _CHARACTERS),
            strict=True,
        )
    ]
    return Scores(
        utterances=tuple(utterances),
        missing=tuple(id_ for id_ in references if id_ not in hypotheses),
        unexpected=tuple(id_ for id_ in hypotheses if id_ not in references),
    )


def _with_optional(id_: str, reference: str, hypothesis: str) -> UtteranceScore:
    """The score of an utterance with optionally deletable words."""
    columns = []
    for left, right in align_optional(reference.split(), hypothesis.split()):
        operation: Operation = "I"
        if left is not None:
            correct = plain(left) == right or (right is None and is_optional(left))
            operation = "C" if correct else "D" if right is None else "S"
        columns.append(AlignedWord(operation, left, right))
    said = " ".join(column.hypothesis for column in columns if column.hypothesis is not None)
    units = Counter(column.operation for column in columns)
    expected = " ".join(plain(c.reference) for c in columns if c.reference and not c.unsaid)
    (characters,) = align_chunks([expected], [said], _CHARACTERS)
    return UtteranceScore(
        id=id_,
        reference=reference,
        hypothesis=said,
        words=ErrorCounts(units["S"], units["D"], units["I"], len(reference.split())),
        characters=_counts(characters),
        alignment=tuple(columns),
    )


def _counts(chunks: Sequence[jiwer.AlignmentChunk]) -> ErrorCounts:
    units: Counter[str] = Counter()
    reference_length = 0
    for chunk in chunks:
        in_reference = chunk.ref_end_idx - chunk.ref_start_idx
        in_hypothesis = chunk.hyp_end_idx - chunk.hyp_start_idx
        units[OPERATIONS[chunk.type]] += max(in_reference, in_hypothesis)
        reference_length += in_reference
    return ErrorCounts(units["S"], units["D"], units["I"], reference_length)


def bootstrap_interval(
    counts: Sequence[ErrorCounts], confidence: float = 0.95, draws: int = 10000, seed: int = 0
) -> Interval | None:
    """The interval of the total rate from resampling utterances with replacement.

    The percentile bootstrap of Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR
    performance evaluation", ICASSP 2004, with two corrections for small sets. The percentiles are
    those of Hesterberg's expanded interval ("What teachers should know about the bootstrap", 2015,
    section 3.4), which has the width of Student's distribution. With fewer than `FEW` errors, or
    fewer than `FEW` units without one, the bounds are at least as wide as those of Clopper and
    Pearson (1934), which assume independent units: a bootstrap cannot resample an error that did
    not occur. `python -m tests.bench intervals` measures the coverage.

    Utterances count as independent: with few speakers the true interval is wider. The same seed
    gives the same interval, whatever the order of `counts`.

    Returns the lower and upper bound as fractions, infinite if a sample has no reference units.
    Returns None if no interval can be estimated: fewer than `FEWEST` utterances, no reference
    units, or at least `FEW` errors that are spread perfectly evenly. Raises ValueError for a
    confidence outside (0, 1).

    >>> low, high = bootstrap_interval([ErrorCounts(k, 0, 0, 10) for k in range(1, 9)])
    >>> round(low, 3), round(high, 3)
    (0.25, 0.65)
    >>> bootstrap_interval([ErrorCounts(1, 0, 0, 10)] * 4)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence between 0 and 1, got {confidence}")
    pairs = np.array(sorted((count.errors, count.reference_length) for count in counts))
    if len(counts) < FEWEST or not pairs[:, 1].any():
        return None
    # One contiguous column each, so that the gathers below stay in the cache.
    errors, lengths = np.ascontiguousarray(pairs.T)
    generator = np.random.default_rng(seed)
    chunk = max(1, _INDICES_AT_ONCE // len(counts))
    rates = np.empty(draws)
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        drawn = generator.integers(len(counts), size=(size, len(counts)))
        rates[start : start + size] = _rates(
            errors.take(drawn).sum(axis=1), lengths.take(drawn).sum(axis=1)
        )
    rates.sort()
    # Order statistics, not interpolation: an infinite rate would become NaN.
    tail = int(expanded_tail(len(counts), confidence) * draws)
    low, high = float(rates[tail]), float(rates[draws - 1 - tail])
    wrong, units = int(errors.sum()), int(lengths.sum())
    if wrong <= units and min(wrong, units - wrong) < FEW:
        exact = _clopper_pearson(wrong, units, confidence)
        low, high = min(low, exact[0]), max(high, exact[1])
    return (low, high) if low < high else None


def expanded_tail(count: int, confidence: float) -> float:
    """The share of draws to leave out at either end of a bootstrap of `count` observations.

    A bootstrap underestimates the spread by sqrt((n - 1) / n), and treats the deviation as known.
    Hesterberg's expanded percentiles correct both.

    >>> round(expanded_tail(5, 0.95), 4), round(expanded_tail(1000, 0.95), 4)
    (0.001, 0.0248)
    """
    student = stdtrit(count - 1, (1 - confidence) / 2)
    return float(ndtr(math.sqrt(count / (count - 1)) * student))


def _clopper_pearson(wrong: int, units: int, confidence: float) -> Interval:
    """Bounds of a share, `wrong` of `units`, by quantiles of the beta distribution."""
    tail = (1 - confidence) / 2
    low = float(betaincinv(wrong, units - wrong + 1, tail)) if wrong else 0.0
    high = float(betaincinv(wrong + 1, units - wrong, 1 - tail)) if wrong < units else 1.0
    return low, high


def _rates(errors: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`ErrorCounts.rate` for arrays. Shape: [D], [D] -> [D] float64."""
    undefined = np.where(errors > 0, np.inf, 0.0)
    return np.divide(errors, lengths, out=undefined, where=lengths > 0)
