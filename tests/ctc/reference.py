"""A plain implementation of CTC, as reference for tests of the fast ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from asr.text.tokens import BLANK_ID


def collapse(path: Sequence[int]) -> list[int]:
    """The tokens of a frame-by-frame path: merge repeats, then drop blanks.

    >>> collapse([1, 1, 0, 1, 2])
    [1, 1, 2]
    """
    return [unit for unit, _ in itertools.groupby(path) if unit != BLANK_ID]


def enumerate_loss(log_probs: np.ndarray, target: Sequence[int]) -> float:
    """Minus the log of the total probability of all paths that collapse to `target`.

    Enumerates V ** T paths. Shape: log_probs [T, V].
    """
    T, V = log_probs.shape
    paths = itertools.product(range(V), repeat=T)
    fitting = (path for path in paths if collapse(path) == list(target))
    total = sum(math.exp(log_probs[np.arange(T), list(path)].sum()) for path in fitting)
    return -math.log(total) if total else math.inf


def forward_loss(log_probs: np.ndarray, target: Sequence[int]) -> float:
    """The forward recursion of Graves et al. 2006, section 4.1. Shape: log_probs [T, V]."""
    extended = [BLANK_ID]
    for unit in target:
        extended += [unit, BLANK_ID]
    alpha = np.full(len(extended), -np.inf)
    alpha[0] = 0.0  # before the first frame, all mass is before the leading blank
    reached = alpha
    for t, frame in enumerate(log_probs):
        reached = np.full(len(extended), -np.inf)
        for s, unit in enumerate(extended):
            sources = [alpha[s]] + ([alpha[s - 1]] if s else [])
            if s > 1 and unit != BLANK_ID and unit != extended[s - 2]:
                sources.append(alpha[s - 2])
            if t == 0:
                sources = [0.0] if s < 2 else [-np.inf]
            reached[s] = np.logaddexp.reduce(sources) + frame[unit]
        alpha = reached
    return -float(np.logaddexp.reduce(reached[-2:]))
