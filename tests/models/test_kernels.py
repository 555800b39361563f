"""Every fast path against the reference loop in float64: outputs, final states, gradients.

Covers `asr/models/kernels/reference.py`, `asr/models/kernels/gates.py`,
`asr/models/kernels/compiled.py`, `asr/models/kernels/cpu.py`, `asr/models/kernels/layer_norm.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.models.cells import CELLS, State
from asr.models.kernels import cpu, dense, reference
from asr.models.kernels.compiled import tanh
from asr.models.kernels.gates import GATES

Weights = dict[str, Tensor]
Run = Callable[[Tensor, State, Weights], State]
Case = tuple[Tensor, list[Tensor], Weights]


def drawn(name: str, T: int, B: int, H: int, R: int, seed: int) -> Case:
    """Input, state and weights in the scale of a trained network."""
    random = torch.Generator().manual_seed(seed)
    cell = CELLS[name]

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=random, dtype=torch.float64)

    weights = {"weight_hh": draw(cell.gates * H, R, scale=R**-0.5)}
    for vector, (times, start) in cell.vectors.items():
        weights[vector] = start + draw(times * H, scale=0.3)
    if cell.projects:
        weights["weight_hr"] = draw(R, H, scale=H**-0.5)
    state = [draw(B, R, scale=0.5)] + ([draw(B, H)] if cell.memory else [])
    return draw(T, B, cell.gates * H), state, weights


def outcome(run: Run, case: Case, dtype: torch.dtype) -> list[Tensor]:
    """States after every frame, and the gradients of everything that went in."""
    x, state, weights = case
    x_, *state_ = (v.to(dtype, copy=True).requires_grad_() for v in (x, *state))
    weights_ = {name: w.to(dtype, copy=True).requires_grad_() for name, w in weights.items()}
    states = run(x_, tuple(state_), weights_)
    random = torch.Generator().manual_seed(9)
    # A different weight for each output, so that no wrong gradient can cancel out.
    slopes = [torch.randn(s.shape, generator=random, dtype=torch.float64) for s in states]
    losses = [(s * slope.to(dtype)).sum() for s, slope in zip(states, slopes, strict=True)]
    torch.stack(losses).sum().backward()
    leaves = [x_, *state_, *weights_.values()]
    gradients = [leaf.grad for leaf in leaves]
    assert all(gradient is not None for gradient in gradients)
    return [s.detach().double() for s in states] + [g.double() for g in gradients if g is not None]


def assert_equal(name: str, fast: Run, case: Case, tolerance: float = 2e-5) -> None:
    cell = CELLS[name]
    expected = outcome(lambda x, s, w: reference.run(cell, x, s, w), case, torch.float64)
    got = outcome(fast, case, torch.float32)
    assert len(got) == len(expected)
    for ours, wanted in zip(got, expected, strict=True):
        assert ours.shape == wanted.shape
        scale = max(1.0, float(wanted.abs().max()))
        assert float((ours - wanted).abs().max()) <= tolerance * scale


def on_cpu(name: str) -> Run:
    return lambda x, state, weights: cpu.run(name, CELLS[name], x, state, weights)


@pytest.mark.parametrize("name", GATES)
def test_every_cell_has_a_compiled_path(name: str) -> None:
    assert set(GATES) == set(CELLS)
    R = 3 if CELLS[name].projects else 5
    for T, B in ((1, 1), (7, 2), (7, 3)):
        assert_equal(name, on_cpu(name), drawn(name, T, B, 5, R, seed=T))


@settings(max_examples=25)
@given(
    st.sampled_from(sorted(GATES)),
    st.integers(1, 33),
    st.one_of(st.integers(1, 70), st.integers(71, 513)),
    st.integers(1, 9),
    st.integers(0, 2**16),
)
def test_compiled_paths_at_any_size(name: str, B: int, H: int, T: int, seed: int) -> None:
    R = max(1, H // 2) if CELLS[name].projects else H
    if name == "layer_norm":
        H = R = max(H, 4)  # the deviation of one or two numbers amplifies every rounding
    assert_equal(name, on_cpu(name), drawn(name, T, B, H, R, seed), tolerance=1e-4)


@pytest.mark.parametrize("name", GATES)
def test_compiled_paths_at_a_large_size(name: str) -> None:
    R = 200 if CELLS[name].projects else 513
    assert_equal(name, on_cpu(name), drawn(name, 3, 17, 513, R, seed=1), tolerance=1e-4)


def test_outputs_alone_may_be_wanted() -> None:
    case = drawn("peephole", 4, 2, 6, 6, seed=0)

    def outputs(run: Run) -> Run:
        return lambda x, state, weights: run(x, state, weights)[:1]

    cell = CELLS["peephole"]
    plain = outputs(lambda x, s, w: reference.run(cell, x, s, w))
    expected = outcome(plain, case, torch.float64)
    for ours, wanted in zip(
        outcome(outputs(on_cpu("peephole")), case, torch.float32), expected, strict=True
    ):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", GATES)
def test_nan_stays_visible(name: str) -> None:
    x, state, weights = drawn(name, 3, 2, 4, 2 if CELLS[name].projects else 4, seed=0)
    x[1, 0, :] = torch.nan
    states = on_cpu(name)(
        x.float(),
        tuple(s.float() for s in state),
        {name: weight.float() for name, weight in weights.items()},
    )
    assert states[0][0].isfinite().all()
    assert states[0][1:, 0].isnan().all()
    assert states[0][:, 1].isfinite().all()


def test_the_curve_of_the_gates() -> None:
    for v in (-100.0, -8.0, -1.0, -1e-3, 0.0, 1e-6, 0.3, 2.0, 7.5, 1e30):
        expected = float(torch.tanh(torch.tensor(v, dtype=torch.float64)))
        assert tanh(torch.tensor(v).numpy()[()]) == pytest.approx(expected, abs=4e-7)


@pytest.mark.parametrize("name", dense.LIBRARY)
def test_the_libraries_compute_the_same_cells(name: str) -> None:
    R = 3 if CELLS[name].projects else 5
    x, state, weights = drawn(name, 6, 4, 5, R, seed=2)
    rows = x.shape[2]
    # An input of the size of the sums, and the identity: what comes in is the share itself.
    full = weights | {
        "weight_ih": torch.eye(rows, dtype=x.dtype),
        "bias": torch.zeros(rows).double(),
    }
    outputs, after = dense.run(name, x.transpose(0, 1), tuple(state), full)
    expected = reference.run(CELLS[name], x, tuple(state), weights)
    torch.testing.assert_close(outputs.transpose(0, 1), expected[0])
    for ours, wanted in zip(after, expected, strict=True):
        torch.testing.assert_close(ours, wanted[-1])


def test_zoneout_keeps_what_it_draws_and_mixes_in_evaluation() -> None:
    x, state, weights = drawn("rnn_tanh", 40, 8, 16, 16, seed=3)
    cell = CELLS["rnn_tanh"]
    torch.manual_seed(0)
    (drawn_states,) = reference.run(cell, x, tuple(state), weights, zoneout=0.25, draw=True)
    before = torch.cat([state[0][None], drawn_states[:-1]])
    kept = drawn_states == before
    assert 0.2 < float(kept.double().mean()) < 0.3
    (mixed,) = reference.run(cell, x[:1], tuple(state), weights, zoneout=0.25)
    (new,) = reference.run(cell, x[:1], tuple(state), weights)
    torch.testing.assert_close(mixed, 0.25 * state[0][None] + 0.75 * new)
