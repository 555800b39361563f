"""Forced alignment: the frames of each token of a known text, from the best CTC path.

Memory grows with the text and with the recording, but not with their product. The frames are
halved, the best state in the middle is found from both ends, and each half is solved separately
(Hirschberg 1975, for strings). This takes twice the time of one pass over all cells.

T frames, V tokens, U tokens of the text, S = 2 U + 1 states: the tokens with a blank around each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.audio.samples import as_array
from asr.jit import compiled, inner
from asr.text.tokens import BLANK_ID

LEAST = -1e9  # replaces minus infinity, whose differences are undefined
CELLS = 1 << 22  # frames times states that are solved with a table of predecessors


def align(log_probs: Any, target: Sequence[int]) -> list[tuple[int, int]]:
    """First and last frame of each token on the best path; `log_probs` is an array or a tensor.

    Shape: log_probs [T, V] -> U spans.

    Raises ValueError for fewer frames than the tokens and the blanks between equal ones need.
    """
    units = np.array(target, dtype=np.int64)
    needed = len(units) + int((np.diff(units) == 0).sum())
    if needed > len(log_probs):
        raise ValueError(f"expected at least {needed} frames, got {len(log_probs)}")
    if not len(units):
        return []
    states = np.full(2 * len(units) + 1, BLANK_ID, np.int64)
    states[1::2] = units
    values = np.maximum(np.asarray(as_array(log_probs), np.float32), LEAST)
    path = best_path(values, states, skip_scores(states), CELLS)
    edges = np.flatnonzero(np.diff(path)) + 1
    bounds = [0, *edges.tolist(), len(path)]
    return [(a, b - 1) for a, b in itertools.pairwise(bounds) if path[a] % 2]


def skip_scores(states: NDArray[np.int64]) -> NDArray[np.float64]:
    """See `best_path`. Shape: [S] -> [S]."""
    scores = np.full(len(states), -np.inf)
    units = states[1::2]
    scores[3::2][units[1:] != units[:-1]] = 0.0
    return scores


@compiled
def best_path(log_probs, states, skips, cells):
    """The state of each frame.

    Shape: log_probs [T, V], states [S] (their tokens), skips [S] -> [T]. `skips` is added to the
    score of a path that enters a state from two states before: 0 for a token after a different one,
    else minus infinity. Up to `cells` frames times states are solved with a table of predecessors;
    more are divided in the middle.
    """
    T, S = len(log_probs), len(states)
    path = np.empty(T, np.int32)
    before, after, spare = np.empty(S), np.empty(S), np.empty(S)
    # Intervals still to solve: frames [t0, t1), and the first and last states allowed at each end.
    waiting = [(0, T, 0, 1, S - 2, S - 1)]
    while len(waiting):
        t0, t1, low, high, end_low, end_high = waiting.pop()
        width = end_high - low + 1
        if (t1 - t0) * width <= cells or t1 - t0 == 1:
            solve(log_probs, states, skips, path, t0, t1, low, high, end_low, end_high)
            continue
        middle = (t0 + t1) // 2
        own, skip = states[low : low + width], skips[low : low + width]
        before[:width], after[:width] = -np.inf, -np.inf
        for i in range(high - low + 1):
            before[i] = log_probs[t0, own[i]]
        for t in range(t0 + 1, middle):
            step_on(log_probs[t], own, skip, before, spare)
            before, spare = spare, before
        for i in range(end_low - low, width):
            after[i] = log_probs[t1 - 1, own[i]]
        for t in range(t1 - 2, middle - 1, -1):
            step_back(log_probs[t], own, skip, after, spare)
            after, spare = spare, after
        best, source, sink = -np.inf, low, low
        for i in range(width):
            for jump in range(min(3, width - i)):
                score = before[i] + after[i + jump] + (skip[i + jump] if jump == 2 else 0.0)
                if score > best:
                    best, source, sink = score, low + i, low + i + jump
        waiting.append((t0, middle, low, min(high, source), source, source))
        waiting.append((middle, t1, sink, sink, max(end_low, sink), end_high))
    return path


@inner
def step_on(row, states, skips, old, new):
    """Best scores of paths to each state, one frame later."""
    width = len(states)
    new[0] = old[0] + row[states[0]]
    if width > 1:
        new[1] = max(old[1], old[0]) + row[states[1]]
    for i in range(2, width):
        new[i] = max(max(old[i], old[i - 1]), old[i - 2] + skips[i]) + row[states[i]]


@inner
def step_back(row, states, skips, old, new):
    """Best scores of paths from each state to the end, one frame earlier."""
    width = len(states)
    new[width - 1] = old[width - 1] + row[states[width - 1]]
    if width > 1:
        new[width - 2] = max(old[width - 2], old[width - 1]) + row[states[width - 2]]
    for i in range(width - 2):
        new[i] = max(max(old[i], old[i + 1]), old[i + 2] + skips[i + 2]) + row[states[i]]


@inner
def solve(log_probs, states, skips, path, t0, t1, low, high, end_low, end_high):
    """Fill in the path of an interval, with a table of predecessors."""
    width = end_high - low + 1
    scores = np.full(width, -np.inf)
    for state in range(low, high + 1):
        scores[state - low] = log_probs[t0, states[state]]
    came = np.zeros((t1 - t0, width), np.uint8)
    for t in range(t0 + 1, t1):
        for i in range(width - 1, -1, -1):
            best, jump = scores[i], 0
            if i > 0 and scores[i - 1] > best:
                best, jump = scores[i - 1], 1
            if i > 1 and scores[i - 2] + skips[low + i] > best:
                best, jump = scores[i - 2], 2
            scores[i] = best + log_probs[t, states[low + i]]
            came[t - t0, i] = jump
    state = end_low
    for other in range(end_low, end_high + 1):
        if scores[other - low] > scores[state - low]:
            state = other
    for t in range(t1 - 1, t0 - 1, -1):
        path[t] = state
        state -= came[t - t0, state - low]
