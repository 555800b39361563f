"""The CTC loss against all paths written out (`tests/ctc/reference.py`)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.ctc.loss import ctc_loss, feasible, required_frames
from asr.decoding.greedy import greedy_decode
from asr.padded import Padded, pad
from asr.text.tokens import BLANK_ID
from tests.contracts import assert_decoder_contract, assert_loss_contract, ragged
from tests.ctc.reference import collapse, enumerate_loss, forward_loss

# Frames, units (blank included), target: small enough to visit all V ** T paths.
targets_3 = st.lists(st.integers(1, 2), max_size=4)


def log_probs(lengths: list[int], units: int, seed: int = 0) -> Padded:
    x = ragged(lengths, units, seed=seed)
    return Padded((2 * x.values).log_softmax(dim=2), x.lengths)


def units(*targets: list[int]) -> Padded:
    return pad([torch.tensor(target, dtype=torch.int64) for target in targets])


def one_loss(scores: Tensor, target: list[int]) -> float:
    return float(ctc_loss(pad([scores]), units(target)))


@settings(max_examples=60)
@given(st.integers(1, 6), targets_3, st.integers(0, 1000))
def test_loss_is_that_of_every_path_summed(T: int, target: list[int], seed: int) -> None:
    scores = log_probs([T], 3, seed).values[0]
    expected = enumerate_loss(scores.double().numpy(), target)
    assert forward_loss(scores.double().numpy(), target) == pytest.approx(expected)
    assert one_loss(scores, target) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    fits = required_frames(target) <= T
    assert math.isfinite(expected) == fits


def test_loss_of_one_path_by_hand() -> None:
    scores = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    # Of 1: (1, 1), (blank, 1) and (1, blank); of nothing: (blank, blank).
    assert one_loss(scores, [1]) == pytest.approx(-math.log(0.375 + 0.375 + 0.125))
    assert one_loss(scores, []) == pytest.approx(-math.log(0.125))


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.lists(st.integers(1, 6), max_size=12)),
        min_size=1,
        max_size=5,
    )
)
def test_losses_of_a_batch_are_those_of_the_reference_and_of_torch(
    cases: list[tuple[int, list[int]]],
) -> None:
    scores = log_probs([T for T, _ in cases], 7)
    targets = units(*(target for _, target in cases))
    losses = ctc_loss(scores, targets)
    by_torch = torch.nn.functional.ctc_loss(
        scores.values.transpose(0, 1),
        targets.values,
        scores.lengths,
        targets.lengths,
        reduction="none",
    )
    torch.testing.assert_close(losses, by_torch)
    for loss, row, (_, target) in zip(losses.tolist(), scores.unpad(), cases, strict=True):
        expected = forward_loss(row.double().numpy(), target)
        assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_loss_of_a_long_utterance() -> None:
    random = np.random.default_rng(0)
    target = random.integers(1, 30, 150).tolist()
    scores = log_probs([600], 30).values[0]
    expected = forward_loss(scores.double().numpy(), target)
    assert one_loss(scores, target) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", [[], [1], [1, 1], [2, 1, 1, 2], [3, 1, 2, 3]])
def test_gradient_is_the_slope_of_the_reference(target: list[int]) -> None:
    T, V, step = 6, 4, 1e-5
    logits = torch.randn(T, V, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tracked = logits.clone().requires_grad_()
    ctc_loss(pad([tracked.log_softmax(dim=1)]), units(target)).sum().backward()
    expected = torch.empty_like(logits)
    for t in range(T):
        for v in range(V):
            sides = []
            for sign in (1, -1):
                moved = logits.clone()
                moved[t, v] += sign * step
                sides.append(forward_loss(moved.log_softmax(dim=1).numpy(), target))
            expected[t, v] = (sides[0] - sides[1]) / (2 * step)
    assert tracked.grad is not None
    torch.testing.assert_close(tracked.grad, expected, rtol=1e-4, atol=1e-5)


def test_a_target_that_cannot_fit_is_infinite_without_gradient() -> None:
    logits = ragged([2, 5, 3, 1], 4)
    values = logits.values.clone().requires_grad_()
    targets = units([1, 2, 3], [1, 2, 3], [1, 1], [2, 2])
    losses = ctc_loss(Padded(values.log_softmax(dim=2), logits.lengths), targets)
    assert losses.isinf().tolist() == [True, False, False, True]
    losses.sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert values.grad.abs().sum(dim=(1, 2)).gt(0).tolist() == [False, True, True, False]


def test_nan_scores_are_not_hidden() -> None:
    scores = log_probs([4, 4], 3)
    scores.values[0, 1] = torch.nan
    losses = ctc_loss(scores, units([1], [1]))
    assert losses.isnan().tolist() == [True, False]


@given(st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1, max_size=4))
def test_required_frames_decide_what_is_feasible(targets: list[list[int]]) -> None:
    needed = [required_frames(target) for target in targets]
    # A path of so many frames exists, and the shortest one has exactly so many.
    for target, frames in zip(targets, needed, strict=True):
        path: list[int] = []
        for unit in target:
            path += [BLANK_ID, unit] if path and path[-1] == unit else [unit]
        assert collapse(path) == target
        assert len(path) == frames
    padded = units(*targets)
    padded = Padded(padded.values.masked_fill(~padded.mask(), 1), padded.lengths)
    assert feasible(torch.tensor(needed), padded).all()
    assert not feasible(torch.tensor(needed) - 1, padded).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_loss_contract(seed: int) -> None:
    scores = log_probs([9, 4, 1, 12, 3, 0, 0], 5, seed)
    targets = units([1, 2, 2, 4], [3], [2, 1], [], [4, 4], [], [1])
    losses = ctc_loss(scores, targets)
    assert losses.isinf().tolist() == [False, False, True, False, False, False, True]
    assert float(losses[5]) == 0.0  # no frames and nothing to write: certain
    assert_loss_contract(ctc_loss, scores, targets)


def test_half_precision_scores_are_summed_in_float32() -> None:
    scores = log_probs([300], 5)
    halved = Padded(scores.values.half(), scores.lengths)
    loss = ctc_loss(halved, units([1, 2]))
    assert loss.dtype == torch.float32
    exact = Padded(halved.values.float(), scores.lengths)
    torch.testing.assert_close(loss, ctc_loss(exact, units([1, 2])))


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), min_size=1, max_size=4))
def test_greedy_is_the_collapsed_best_path(paths: list[list[int]]) -> None:
    random = torch.Generator().manual_seed(0)
    rows = []
    for path in paths:
        scores = torch.rand(len(path), 4, generator=random)
        scores[torch.arange(len(path)), torch.tensor(path, dtype=torch.int64)] += 1.0
        rows.append(scores.log_softmax(dim=1))
    assert greedy_decode(pad(rows)) == [collapse(path) for path in paths]


def test_greedy_contract() -> None:
    scores = log_probs([9, 4, 0, 1, 12], 3)
    for row, hypothesis in zip(scores.unpad(), greedy_decode(scores), strict=True):
        assert hypothesis == collapse(row.argmax(dim=1).tolist())
    assert_decoder_contract(greedy_decode, scores)


@pytest.mark.parametrize(
    ("path", "expected"),
    [([], []), ([0, 0], []), ([1, 1], [1]), ([1, 0, 1], [1, 1]), ([0, 2, 2, 1, 0], [2, 1])],
)
def test_collapse(path: list[int], expected: list[int]) -> None:
    assert collapse(path) == expected
