"""Significance tests of the difference between two systems on the same utterances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asr.evaluation.error_rate import FEWEST, ErrorCounts, Interval, expanded_tail
from asr.text.edit_distance import AlignedWord

_INDICES_AT_ONCE = 1 << 22
BOUNDARY_WORDS = 2  # correct in both systems, between two segments: NIST's choice
ENOUGH_SEGMENTS = 50  # with different errors, for the normal distribution


@dataclass(frozen=True)
class Difference:
    """Error rate of a system minus that of a baseline, as fractions; negative is better."""

    difference: float
    interval: Interval | None
    """95 % interval of the difference; None for few utterances, or if all differ by the same."""
    not_better: float
    """Share of the draws in which the system is not better than the baseline."""
    p_value: float | None
    """Two-sided: the probability that chance alone gives a difference at least as large; None for
    fewer than `FEWEST` utterances."""


def paired_bootstrap(
    system: Mapping[str, ErrorCounts],
    baseline: Mapping[str, ErrorCounts],
    draws: int = 10000,
    seed: int = 0,
) -> Difference:
    """Compare two systems utterance by utterance (Bisani and Ney 2004, section 4).

    Utterances are resampled with replacement, the same ones for both systems, so that effects
    common to both cancel. Raises ValueError unless both have the same utterances with references of
    the same lengths.

    The p-value is twice the share of draws on the wrong side of zero, including the observed one
    (Davison and Hinkley 1997, section 4.2): with 10000 draws it is never below 0.0002. It is also
    limited by the number k of utterances that differ: if all favour one system, two of 2^k
    assignments of the signs are as extreme. The interval uses the expanded percentiles of
    `bootstrap_interval`.

    >>> counts = {"a": ErrorCounts(1, 0, 0, 5), "b": ErrorCounts(0, 0, 0, 5)}
    >>> paired_bootstrap(counts, counts).difference
    0.0
    """
    names = sorted(system)
    if not names or names != sorted(baseline):
        raise ValueError("expected the same utterances from both systems, got others")
    lengths = np.array([system[name].reference_length for name in names])
    if lengths.tolist() != [baseline[name].reference_length for name in names]:
        raise ValueError("expected the same references for both systems, got others")
    errors = np.array([system[name].errors - baseline[name].errors for name in names])
    difference = float(errors.sum() / max(1, lengths.sum()))
    random = np.random.default_rng(seed)
    differences = np.empty(draws)
    chunk = max(1, _INDICES_AT_ONCE // len(names))
    for start in range(0, draws, chunk):
        drawn = random.integers(len(names), size=(min(chunk, draws - start), len(names)))
        totals = lengths[drawn].sum(axis=1)
        differences[start : start + len(drawn)] = errors[drawn].sum(axis=1) / np.maximum(totals, 1)
    not_better = float((differences >= 0).mean())
    if len(names) < FEWEST:
        return Difference(difference, None, not_better, None)
    tail = expanded_tail(len(names), 0.95)
    low, high = (float(bound) for bound in np.quantile(differences, [tail, 1 - tail]))
    rarer = min((differences >= 0).sum(), (differences <= 0).sum())
    provable = 2.0 ** (1 - np.count_nonzero(errors))
    p_value = min(1.0, max(2 * (rarer + 1) / (draws + 1), provable))
    return Difference(difference, (low, high) if low < high else None, not_better, float(p_value))


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs test: the number of segments, their mean difference in errors, the
    statistic (0 if all differ by the same, as in sc_stats), and the two-sided probability of a
    difference at least as large for equal systems (None for fewer than `FEWEST` segments)."""

    segments: int
    mean: float
    z: float
    p_value: float | None


def matched_pairs(
    system: Sequence[Sequence[AlignedWord]], baseline: Sequence[Sequence[AlignedWord]]
) -> MatchedPairs:
    """The matched-pairs sentence-segment word error test, MAPSSWE (Gillick and Cox, "Some
    statistical issues in the comparison of speech recognition algorithms", ICASSP 1989, section 4).

    Both sequences hold the alignments of the same utterances in the same order. Utterances are cut
    where both systems have at least two correct words in a row, so that the errors of one segment
    do not cause those of the next; segments without errors are left out, as in NIST's sc_stats. W =
    mean / (deviation / sqrt(n)) of the differences is standard normal if at least fifty segments
    differ. If fewer differ, or all differ by the same and the deviation is zero, the p-value is
    exact: the share of all assignments of the errors to the systems, by segment, with at least this
    difference (Fisher's randomisation test). Segments with equally many errors in both systems
    carry no information, so they do not count towards the fifty.

    Raises ValueError if the references differ.
    """
    if len(system) != len(baseline):
        raise ValueError("expected the same utterances from both systems, got others")
    differences = np.array(
        [
            one - other
            for left, right in zip(system, baseline, strict=True)
            for one, other in segment_errors(left, right)
        ],
        np.float64,
    )
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    deviation = float(differences.std(ddof=1)) if count > 1 else 0.0
    # Equality is checked on the values: rounding may make the deviation nonzero.
    alike = count > 0 and bool((differences == differences[0]).all())
    z = mean / (deviation / math.sqrt(count)) if deviation and not alike else 0.0
    if count < FEWEST:
        return MatchedPairs(count, mean, z, None)
    if alike:  # all signs or their opposites; without any difference, any signs
        return MatchedPairs(count, mean, z, 2.0 ** (1 - count) if mean else 1.0)
    if np.count_nonzero(differences) < ENOUGH_SEGMENTS:
        return MatchedPairs(count, mean, z, randomisation(differences.astype(int).tolist()))
    return MatchedPairs(count, mean, z, math.erfc(abs(z) / math.sqrt(2)))


def randomisation(differences: Sequence[int]) -> float:
    """The share of all choices of signs whose sum is at least as far from zero as the observed sum.

    >>> randomisation([1, 1, 1, 1]), randomisation([2, -2]), randomisation([])
    (0.125, 1.0, 1.0)
    """
    ways = np.ones(1)  # shares by sum, from the lowest
    for size in (abs(difference) for difference in differences if difference):
        step = np.zeros(2 * size + 1)
        step[[0, -1]] += 0.5
        ways = np.convolve(ways, step)
    reach = (len(ways) - 1) // 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return float(min(1.0, ways[sums >= abs(sum(differences))].sum()))


def segment_errors(
    system: Sequence[AlignedWord], baseline: Sequence[AlignedWord]
) -> Iterator[tuple[int, int]]:
    """Errors of either system in every segment of an utterance with errors.

    >>> from asr.text.edit_distance import align_words
    >>> said = "a b c d e f"
    >>> one, other = align_words([said, said], ["x b c d e", "a b c d y f"])
    >>> list(segment_errors(one, other))
    [(1, 0), (1, 1)]
    """
    places = list(zip(_errors_by_place(system), _errors_by_place(baseline), strict=True))
    one = other = correct = 0
    for index, (left, right) in enumerate(places):
        is_word = index % 2 == 1
        if left or right:
            one, other, correct = one + left, other + right, 0
        elif is_word:
            correct += 1
            if correct == BOUNDARY_WORDS and one + other:
                yield one, other
                one = other = 0
    if one + other:
        yield one, other


def _errors_by_place(alignment: Sequence[AlignedWord]) -> list[int]:
    """Errors at every position of the reference: before its first word (insertions), at the word,
    before the second, and so on. Shape: 2 x words + 1."""
    places = [0]
    for column in alignment:
        if column.operation == "I":
            places[-1] += 1
        else:
            places += [int(column.operation != "C"), 0]
    return places
