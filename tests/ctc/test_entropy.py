"""The entropy of alignments and its gradient are those of all paths, one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from asr.ctc.entropy import path_entropy
from asr.padded import Padded, pad
from tests.contracts import assert_loss_contract, ragged
from tests.ctc.reference import collapse

TARGETS = [[1, 2], [1, 1], [], [2], [1, 2, 1, 2]]
FRAMES = [5, 4, 3, 1, 3]  # the last does not fit


def of_all_paths(scores: Tensor, target: list[int]) -> Tensor:
    """Shape: [T, V] -> []."""
    T, V = scores.shape
    paths = [p for p in itertools.product(range(V), repeat=T) if collapse(p) == target]
    of_paths = torch.stack([sum(scores[t, k] for t, k in enumerate(p)) for p in paths])  # type: ignore[misc]
    log_posteriors = of_paths.log_softmax(0)
    return -(log_posteriors.exp() * log_posteriors).sum()


def units(targets: list[list[int]]) -> Padded:
    return pad([torch.tensor(target, dtype=torch.int64) for target in targets])


@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
def test_entropy_and_gradient_are_those_of_every_path(scale: float) -> None:
    x = ragged(FRAMES, 3, seed=1)
    logits = (scale * x.values).requires_grad_()
    weights = torch.arange(1.0, len(TARGETS) + 1)
    found = path_entropy(Padded(logits.log_softmax(dim=2), x.lengths), units(TARGETS))
    (slopes,) = torch.autograd.grad((weights * found).sum(), logits)
    for row, target in enumerate(TARGETS):
        own = logits.detach()[row, : FRAMES[row]].double().requires_grad_()
        if len(target) > FRAMES[row]:
            assert found[row] == 0
            assert not slopes[row].any()
            continue
        expected = of_all_paths(own.log_softmax(dim=1), target)
        assert float(found[row].detach()) == pytest.approx(float(expected.detach()), abs=1e-3)
        (slope,) = torch.autograd.grad(weights[row].double() * expected, own)
        difference = (slopes[row, : FRAMES[row]] - slope).abs().max()
        assert difference <= 0.02 * slope.abs().max() + 1e-3
        assert not slopes[row, FRAMES[row] :].any()


def test_contract() -> None:
    x = ragged([12, 7, 9], 4)
    log_probs = Padded(x.values.log_softmax(dim=2), x.lengths)
    assert_loss_contract(path_entropy, log_probs, units([[1, 2, 3], [2, 2], []]))
