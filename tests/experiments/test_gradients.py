"""Gradient flow against Jacobians by hand, finite differences, and decays known exactly."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from asr.cli.main import main
from asr.errors import ConfigError
from asr.experiments.gradients import (
    Curve,
    CurveConfig,
    GradientConfig,
    Trial,
    clipped,
    draw_trial,
    flow_back,
    measure,
    read_config,
    to_json,
    to_text,
    write,
)
from asr.models.cells import CELLS, Cell, State, Weights

DOCS = Path(__file__).resolve().parents[2] / "docs"
F64 = torch.float64
SMALL = GradientConfig(hidden=6, frames=8, seeds=1)


def linear(x: Tensor, state: State, w: Weights) -> State:
    return (x + state[0] @ w["weight_hh"].T,)


def linear_trial(recurrent: Tensor, slope: Tensor, frames: int) -> Trial:
    """h' = 1 + U h from zero."""
    R = len(recurrent)
    share = torch.ones(frames, 1, R, dtype=F64)
    zeros = torch.zeros(1, R, dtype=F64)
    weights = {"weight_hh": recurrent.to(F64)}
    return Trial(Cell(linear, 1, memory=False), share, (zeros,), weights, slope.to(F64))


def trial_of(name: str, seed: int = 0, **options: Any) -> Trial:
    return draw_trial(CurveConfig(cell=name, **options), SMALL, seed)


def states_of(trial: Trial) -> list[State]:
    """Before the first frame, then after each."""
    states = [trial.state]
    for frame in trial.share:
        states.append(trial.cell.step(frame, states[-1], trial.weights))
    return states


def test_tanh_is_a_product_of_jacobians() -> None:
    trial = trial_of("rnn_tanh", recurrent_scale=1.7)
    U = trial.weights["weight_hh"].numpy()
    h, outputs = np.zeros(6), []
    for x in trial.share[:, 0].numpy():
        h = np.tanh(x + U @ h)
        outputs.append(h)
    jacobians = [np.diag(1 - h**2) @ U for h in outputs]  # dh_t/dh_{t-1}
    product, expected = np.eye(6), []
    for t in reversed(range(8)):
        expected.append(float(np.linalg.norm(trial.slope.numpy() @ product)))
        product = product @ jacobians[t]
    assert flow_back(trial).state_norms == pytest.approx(expected, rel=1e-12)


def test_gradient_of_the_weights_by_hand() -> None:
    trial = trial_of("rnn_tanh", recurrent_scale=1.7)
    states = [h[0] for (h,) in states_of(trial)]
    g, expected = trial.slope, torch.zeros(6, 6, dtype=F64)
    for before, after in zip(reversed(states[:-1]), reversed(states[1:]), strict=True):
        at_sum = g * (1 - after**2)
        expected += torch.outer(at_sum, before)
        g = at_sum @ trial.weights["weight_hh"]
    torch.testing.assert_close(flow_back(trial).weight_gradient, expected)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_agrees_with_finite_differences(name: str) -> None:
    """Each h_t is nudged in each direction, the memory beside it left alone."""
    trial = trial_of(name, recurrent_scale=1.3)
    states = states_of(trial)

    def loss(t: int, nudge: Tensor) -> Tensor:
        h, *rest = states[t]
        state: State = (h + nudge, *rest)
        for frame in trial.share[t:]:
            state = trial.cell.step(frame, state, trial.weights)
        return (state[0] @ trial.slope).sum()

    small = 1e-6 * torch.eye(len(trial.slope), dtype=F64)
    expected = [
        torch.stack([(loss(t, row) - loss(t, -row)) / 2e-6 for row in small]).norm().item()
        for t in reversed(range(1, len(states)))
    ]
    assert flow_back(trial).state_norms == pytest.approx(expected, rel=1e-5, abs=1e-9)


@settings(max_examples=50)
@given(
    st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(0, 100),
)
def test_a_linear_layer_decays_by_its_eigenvalues(
    eigenvalues: list[float], frames: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    slope = torch.randn(len(eigenvalues), generator=random, dtype=F64)
    norms = flow_back(linear_trial(torch.diag(torch.tensor(eigenvalues)), slope, frames))
    rows = zip(slope.tolist(), torch.tensor(eigenvalues).double().tolist(), strict=True)
    pairs = list(rows)
    expected = [math.hypot(*(s * e**d for s, e in pairs)) for d in range(frames)]
    assert norms.state_norms == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_an_open_update_gate_alone_decays_by_its_opening() -> None:
    # Without recurrent weights h' = (1 - z) n + z h, with n and z the same in all frames.
    trial = trial_of("gru")
    x = torch.tensor([0.0, 3.0, 0.5], dtype=F64).repeat_interleave(6)
    share = x.expand(8, 1, 18)
    weights = {**trial.weights, "weight_hh": torch.zeros(18, 6, dtype=F64)}
    norms = flow_back(replace(trial, share=share, weights=weights)).state_norms
    opening = 1 / (1 + math.exp(-3.0))
    assert norms == pytest.approx([opening**d for d in range(8)], rel=1e-12)


def test_clipping_in_every_frame_by_hand() -> None:
    trial = linear_trial(torch.tensor([[2.0]]), torch.tensor([1.0]), 5)
    assert flow_back(trial).state_norms == (1, 2, 4, 8, 16)
    bounded = flow_back(trial, clip=3.0)
    assert bounded.state_norms == (1, 2, 3, 3, 3)
    # h is 0, 1, 3, 7, 15 before the five frames.
    assert flow_back(trial).weight_gradient.item() == 15 + 2 * 7 + 4 * 3 + 8 * 1
    assert bounded.weight_gradient.item() == 15 + 2 * 7 + 3 * 3 + 3 * 1
    assert flow_back(trial, clip=0.5).state_norms == (0.5,) * 5


@settings(max_examples=30)
@given(
    st.sampled_from(sorted(CELLS)), st.floats(0.1, 20), st.floats(1e-3, 10), st.integers(0, 1000)
)
def test_nothing_is_longer_than_the_clip(name: str, scale: float, clip: float, seed: int) -> None:
    trial = trial_of(name, seed, recurrent_scale=scale)
    free, bounded = flow_back(trial), flow_back(trial, clip)
    assert max(bounded.state_norms) <= clip * (1 + 1e-12)
    if max(free.state_norms) <= clip:
        assert bounded.state_norms == free.state_norms
        assert torch.equal(bounded.weight_gradient, free.weight_gradient)


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_clipping_keeps_the_direction(values: list[float], longest: float) -> None:
    gradient = torch.tensor(values, dtype=F64)
    got = clipped(gradient, longest)
    norm = gradient.norm().item()
    assert got.norm().item() == pytest.approx(min(norm, longest), rel=1e-12)
    torch.testing.assert_close(got * norm, gradient * got.norm())


def test_what_is_reported_of_the_weights() -> None:
    curve = CurveConfig(cell="rnn_tanh", recurrent_scale=3)
    config = GradientConfig(hidden=16, frames=30, seeds=2, clip=0.5, curves=(curve,))
    for seed, m in enumerate(measure(config).curves[0].measurements):
        trial = draw_trial(curve, config, seed)
        free, bounded = flow_back(trial).weight_gradient, flow_back(trial, 0.5).weight_gradient
        assert m.weights == free.norm().item() > 0.5
        assert m.weights_clipped_once == pytest.approx(0.5, rel=1e-12)
        assert m.weights_clipped_every_frame == bounded.norm().item() < m.weights
        cosine = torch.cosine_similarity(free.flatten(), bounded.flatten(), dim=0).item()
        assert m.cosine == pytest.approx(cosine, rel=1e-9)
        assert m.cosine < 0.99


def test_clipping_that_never_bites_changes_nothing() -> None:
    config = SMALL.model_copy(update={"clip": 1e9})
    for curve in measure(config).curves:
        (m,) = curve.measurements
        assert m.clipped == m.free
        assert m.weights_clipped_once == m.weights_clipped_every_frame == m.weights
        assert m.cosine == pytest.approx(1.0)


@cache
def measured() -> dict[str, Curve]:
    """The curves of the default configuration, smaller, and what a textbook says of each."""
    config = GradientConfig(hidden=32, frames=80, seeds=3)
    return {curve.config.label: curve for curve in measure(config).curves}


def test_the_gradient_vanishes_in_a_plain_rnn() -> None:
    for m in measured()["rnn_tanh"].measurements:
        assert m.free[0] == pytest.approx(1.0)
        assert m.free[40] < 1e-6
        assert m.free[79] < 1e-12
    assert measured()["rnn_tanh"].factor() < 0.75


def test_open_forget_gates_keep_it() -> None:
    for m in measured()["lstm, forget bias 5"].measurements:
        assert min(m.free) > 1e-3
        assert max(m.free) < 10
    kept = measured()["lstm, forget bias 5"].factor()
    assert 0.95 < kept < 1.05
    assert measured()["rnn_tanh"].factor() < measured()["lstm"].factor() < kept - 0.05


def test_it_explodes_without_clipping_and_is_bounded_with_it() -> None:
    curve = measured()["rnn_tanh, recurrent scale 3"]
    for m in curve.measurements:
        assert m.free[79] > 1e4
        assert max(m.clipped) <= 1 + 1e-12
        assert m.clipped[79] > 0.1
        assert m.weights > 1e3
        assert m.weights_clipped_once == pytest.approx(1.0)
        assert m.weights_clipped_every_frame < m.weights / 100
    assert curve.factor() > 1.1


def test_a_spectral_radius_above_one_is_not_enough_to_explode() -> None:
    # Saturated units shrink the gradient by more than the matrix stretches it.
    assert measured()["rnn_tanh, recurrent scale 1.5"].factor() < 0.95


def test_the_recurrent_matrix_has_the_spectral_radius_asked_for() -> None:
    for name in ("rnn_tanh", "lstm", "gru"):
        for gate in trial_of(name, recurrent_scale=2.5).weights["weight_hh"].split(6):
            radius = torch.linalg.eigvals(gate).abs().max().item()
            assert radius == pytest.approx(2.5, rel=1e-5)


def test_the_same_configuration_gives_the_same_numbers() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = measure(SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert measure(SMALL) == first


def test_files(tmp_path: Path) -> None:
    result = measure(SMALL.model_copy(update={"seeds": 2}))
    write(result, tmp_path / "new" / "out")
    names = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert names == {"gradients.json", "gradients.png"}
    picture = (tmp_path / "new" / "out" / "gradients.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert json.loads((tmp_path / "new" / "out" / "gradients.json").read_text()) == json.loads(
        json.dumps(to_json(result))
    )


def test_numbers_for_machines_and_for_people() -> None:
    result = measure(SMALL.model_copy(update={"seeds": 2}))
    numbers = json.loads(json.dumps(to_json(result), allow_nan=False))
    assert numbers["config"]["frames"] == 8
    for row, curve in zip(numbers["curves"], result.curves, strict=True):
        assert row["label"] == curve.config.label
        assert row["free"] == [list(m.free) for m in curve.measurements]
        assert row["weights"] == [m.weights for m in curve.measurements]
        assert np.shape(row["clipped"]) == (2, 8)
    table = to_text(result).splitlines()
    assert len(table) == 1 + len(result.curves)
    assert len({len(line) for line in table}) == 1
    assert table[-1].startswith("lstm, forget bias 5 ")
    assert f"{result.curves[-1].factor():.3f}" in table[-1]


def test_the_example_file_is_the_default() -> None:
    assert read_config(DOCS / "gradients.yaml") == read_config() == GradientConfig()


def test_overrides_go_on_top(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("frames: 20\ncurves: [{cell: gru}]\n")
    config = read_config(path, ["clip=2", "frames=30"])
    assert (config.frames, config.clip) == (30, 2.0)
    assert config.curves == (CurveConfig(cell="gru"),)
    assert read_config(None, ["curves=[{cell: coupled}]"]).curves[0].cell == "coupled"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("frame: 10", "unknown key 'frame': did you mean 'frames'"),
        ("frames: 1", "at frames: input should be greater than or equal to 2"),
        ("hidden: many", "at hidden: input should be a valid integer"),
        ("clip: 0", "at clip: input should be greater than 0"),
        ("clip: .inf", "inf, which is not a number"),
        ("seeds: 0", "at seeds"),
        ("curves: []", "at curves: "),
        ("curves: rnn_tanh", "at curves: "),
        ("curves: [{cell: lsm}]", "expected a cell among rnn_tanh, "),
        ("curves: [{recurrent_scale: 2}]", "at curves.0.cell: field required"),
        ("curves: [{cell: lstm, scale: 2}]", "unknown key 'curves.0.scale'"),
        ("curves: [{cell: lstm, recurrent_scale: .nan}]", "nan, which is not a number"),
        ("curves: [{cell: gru, forget_bias: 1}]", "forget_bias with lstm, peephole, layer_norm, "),
    ],
)
def test_a_bad_configuration_is_one_line(line: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(line + "\n")
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_overflow_is_one_line() -> None:
    curve = CurveConfig(cell="rnn_relu", recurrent_scale=100)
    config = GradientConfig(hidden=8, frames=400, seeds=1, curves=(curve,))
    with pytest.raises(ConfigError) as caught:
        measure(config)
    assert "got an overflow in 'rnn_relu, recurrent scale 100'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_takes_changes_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["frames=6", "hidden=4", "seeds=1"]
    monkeypatch.setattr(sys, "argv", ["asr", "gradients", *changes, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert (tmp_path / "gradients.png").is_file()
    first = json.loads((tmp_path / "gradients.json").read_text())
    assert '"frames": 6' in json.dumps(first)
