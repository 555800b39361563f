"""Alignment: the best of all paths that spell the text, in however small pieces it is found."""

from __future__ import annotations

import itertools
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.ctc.align import CELLS, align, best_path, skip_scores
from tests.processes import start


def random_log_probs(T: int, V: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(T, V, generator=generator).mul(3).log_softmax(dim=1)


def score(log_probs: Tensor, spans: list[tuple[int, int]], target: list[int]) -> float:
    """Of the path that says each unit in its span, and is blank elsewhere."""
    path = torch.zeros(len(log_probs), dtype=torch.long)
    for unit, (first, last) in zip(target, spans, strict=True):
        path[first : last + 1] = unit
    said = [unit for unit, _ in itertools.groupby(path.tolist()) if unit]
    assert said == target
    return float(log_probs.gather(1, path[:, None]).sum())


def states(target: list[int]) -> np.ndarray:
    values = np.zeros(2 * len(target) + 1, np.int64)
    values[1::2] = target
    return values


@pytest.mark.parametrize("target", [[1], [2, 1], [1, 1], [2, 2, 1]])
def test_no_other_path_is_better(target: list[int]) -> None:
    for seed in range(5):
        log_probs = random_log_probs(6, 3, seed)
        best = max(
            float(log_probs.gather(1, torch.tensor(path)[:, None]).sum())
            for path in itertools.product(range(3), repeat=6)
            if [unit for unit, _ in itertools.groupby(path) if unit] == target
        )
        assert score(log_probs, align(log_probs, target), target) == pytest.approx(best, abs=1e-4)


@settings(max_examples=60)
@given(st.data())
def test_as_good_as_torchaudios_and_the_same_in_pieces(data: st.DataObject) -> None:
    target = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    needed = len(target) + sum(a == b for a, b in itertools.pairwise(target))
    T = data.draw(st.integers(needed, needed + 30))
    log_probs = random_log_probs(T, 5, data.draw(st.integers(0, 1000)))
    path, _ = torchaudio.functional.forced_align(log_probs[None], torch.tensor([target]), blank=0)
    theirs = float(log_probs.gather(1, path[0].long()[:, None]).sum())
    assert score(log_probs, align(log_probs, target), target) == pytest.approx(theirs, abs=1e-3)
    arguments = log_probs.numpy(), states(target), skip_scores(states(target))
    whole = best_path(*arguments, CELLS)
    for cells in (1, 7, 60):
        assert best_path(*arguments, cells).tolist() == whole.tolist()


def test_impossible_units_are_gone_round() -> None:
    log_probs = random_log_probs(8, 4, 0)
    log_probs[:, 3] = -torch.inf
    spans = align(log_probs, [1, 2])
    assert np.isfinite(score(log_probs, spans, [1, 2]))
    # A text that cannot be said is still laid along the frames, in order.
    assert [first <= last for first, last in align(log_probs, [3, 1])] == [True, True]


def test_texts_of_nothing_and_of_too_much() -> None:
    log_probs = random_log_probs(3, 4, 0)
    assert align(log_probs, []) == []
    assert align(log_probs, [1, 2, 3]) == [(0, 0), (1, 1), (2, 2)]
    assert align(log_probs, [1, 1]) == [(0, 0), (2, 2)]
    for target in ([1, 2, 3, 1], [1, 1, 2]):
        with pytest.raises(ValueError, match="expected at least 4 frames, got 3"):
            align(log_probs, target)


def align_long(said: Path) -> None:
    """Writes how many MiB more a process has needed at its peak once it has aligned six minutes."""
    target = torch.arange(7000) % 7 + 1
    frames = torch.zeros(12000, dtype=torch.long)
    frames[:7000] = target
    log_probs = torch.nn.functional.one_hot(frames, 9).float().mul(9).log_softmax(dim=1)
    align(log_probs[:9], [1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spans = align(log_probs, target.tolist())
    assert spans == [(i, i) for i in range(7000)]
    said.write_text(str((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


@pytest.mark.slow
def test_a_long_recording_takes_memory_in_proportion_to_its_length(tmp_path: Path) -> None:
    # A table of where each of 14001 states came from in 12000 frames would take 168 MB.
    process = start(align_long, tmp_path / "said")
    process.join()
    assert process.exitcode == 0
    assert float((tmp_path / "said").read_text()) < 60
