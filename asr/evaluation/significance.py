"""Whether two systems differ on the same utterances by more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from asr.evaluation.error_rate import ErrorCounts

_INDICES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Difference:
    """Error rate of a system minus that of a baseline, as fractions; negative is better."""

    difference: float
    low: float
    high: float
    """95 % interval of the difference."""
    not_better: float
    """Share of the draws in which the system is not better than the baseline."""


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
    return Difference(
        difference=float(errors.sum() / max(1, lengths.sum())),
        low=float(low),
        high=float(high),
        not_better=float((differences >= 0).mean()),
    )
