"""How often a 95 % interval of the word error rate holds the true one, by simulation.

Utterances have 2 to 14 words, and each its own difficulty: the share of wrong words is drawn from a
beta distribution around the true rate, as speakers and noise spread it (a word's chance within
an utterance correlates by 1/11).
"""

from __future__ import annotations

import numpy as np

from asr.evaluation.error_rate import ErrorCounts, bootstrap_interval

CONCENTRATION = 10.0  # of the beta distribution
SIZES = (5, 10, 20, 50, 130)
RATES = (0.05, 0.2, 0.5)


def simulated(random: np.random.Generator, utterances: int, rate: float) -> list[ErrorCounts]:
    """The errors of one test set."""
    lengths = random.integers(2, 15, utterances)
    difficulty = random.beta(rate * CONCENTRATION, (1 - rate) * CONCENTRATION, utterances)
    errors = random.binomial(lengths, difficulty)
    return [ErrorCounts(int(e), 0, 0, int(n)) for e, n in zip(errors, lengths, strict=True)]


def coverage(utterances: int, rate: float, experiments: int, seed: int = 0) -> float:
    """The share of simulated test sets whose interval holds `rate`."""
    random = np.random.default_rng(seed)
    held = 0
    for experiment in range(experiments):
        counts = simulated(random, utterances, rate)
        interval = bootstrap_interval(counts, draws=2000, seed=experiment)
        held += interval is not None and interval[0] <= rate <= interval[1]
    return held / experiments


def run() -> None:
    print("coverage of 95 % intervals, % of 2000 simulated test sets (seed 0)")
    print("utterances  " + "  ".join(f"WER {100 * rate:2.0f} %" for rate in RATES))
    for size in SIZES:
        cells = [f"{100 * coverage(size, rate, 2000):8.1f}" for rate in RATES]
        print(f"{size:10}  {'  '.join(cells)}")
