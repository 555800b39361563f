"""Whether two systems differ on the same utterances by more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asr.evaluation.error_rate import AlignedWord, ErrorCounts

_INDICES_AT_ONCE = 1 << 22
BOUNDARY_WORDS = 2  # correct in both systems, between two segments: NIST's choice


@dataclass(frozen=True)
class Difference:
    """Error rate of a system minus that of a baseline, as fractions; negative is better."""

    difference: float
    low: float
    high: float
    """95 % interval of the difference."""
    not_better: float
    """Share of the draws in which the system is not better than the baseline."""
    p_value: float
    """Two-sided: how often chance alone would show a difference of either sign as large."""


def paired_bootstrap(
    system: Mapping[str, ErrorCounts],
    baseline: Mapping[str, ErrorCounts],
    draws: int = 10000,
    seed: int = 0,
) -> Difference:
    """Compare two systems utterance by utterance (Bisani and Ney 2004, section 4).

    Utterances are drawn anew with replacement, the same ones for both systems: what makes an
    utterance hard for both cancels out. Raises ValueError unless both have the same utterances with
    references of the same lengths.

    The p-value is twice the share of draws on the wrong side of zero, the observed one counted in
    (Davison and Hinkley 1997, section 4.2): with 10000 draws it is never below 0.0002.

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
    random = np.random.default_rng(seed)
    differences = np.empty(draws)
    chunk = max(1, _INDICES_AT_ONCE // len(names))
    for start in range(0, draws, chunk):
        drawn = random.integers(len(names), size=(min(chunk, draws - start), len(names)))
        totals = lengths[drawn].sum(axis=1)
        differences[start : start + len(drawn)] = errors[drawn].sum(axis=1) / np.maximum(totals, 1)
    low, high = np.quantile(differences, [0.025, 0.975])
    rarer = min((differences >= 0).sum(), (differences <= 0).sum())
    return Difference(
        difference=float(errors.sum() / max(1, lengths.sum())),
        low=float(low),
        high=float(high),
        not_better=float((differences >= 0).mean()),
        p_value=float(min(1.0, 2 * (rarer + 1) / (draws + 1))),
    )


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs test: how many segments, by how many errors they differ on average, the
    statistic, and the two-sided probability of one as large if the systems were equal."""

    segments: int
    mean: float
    z: float
    p_value: float


def matched_pairs(
    system: Sequence[Sequence[AlignedWord]], baseline: Sequence[Sequence[AlignedWord]]
) -> MatchedPairs:
    """The matched-pairs sentence-segment word error test, MAPSSWE (Gillick and Cox, "Some
    statistical issues in the comparison of speech recognition algorithms", ICASSP 1989, section 4).

    Both sequences hold the alignments of the same utterances in the same order. Utterances are cut
    where both systems have at least two correct words in a row, so that the errors of one segment
    do not cause those of the next; segments in which nobody errs are left out, as NIST's sc_stats
    does. W = mean / (deviation / sqrt(n)) of the differences is taken as standard normal: believe
    it from about fifty segments on. Fewer than two segments, or differences that are all equal to
    zero, show nothing: p = 1.

    Raises ValueError where the references differ.
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
    if deviation == 0.0:
        # All segments differ alike: certain, unless they do not differ or there is but one.
        certain = count > 1 and mean != 0.0
        return MatchedPairs(
            count, mean, math.copysign(math.inf, mean) if certain else 0.0, 1.0 - certain
        )
    z = mean / (deviation / math.sqrt(count))
    return MatchedPairs(count, mean, z, math.erfc(abs(z) / math.sqrt(2)))


def segment_errors(
    system: Sequence[AlignedWord], baseline: Sequence[AlignedWord]
) -> Iterator[tuple[int, int]]:
    """Errors of either system in every segment of an utterance that has any.

    >>> from asr.evaluation.error_rate import align_words
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
    """Errors at every place of the reference: before its first word (insertions), at the word,
    before the second, and so on. Shape: 2 x words + 1."""
    places = [0]
    for column in alignment:
        if column.operation == "I":
            places[-1] += 1
        else:
            places += [int(column.operation != "C"), 0]
    return places
