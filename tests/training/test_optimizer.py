"""What decays, and how the learning rate rises and falls."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.training.optimizer import build_optimizer, learning_rate
from asr.training.recipe import TrainConfig
from tests.tones import untrained_bundle

shares = st.floats(0, 1)
warmups = st.floats(0, 0.99)


def test_matrices_decay_and_biases_and_scales_do_not() -> None:
    model = untrained_bundle().model
    optimizer = build_optimizer(model, TrainConfig(weight_decay=0.25, learning_rate=0.5))
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    names = dict(model.named_parameters())
    assert decay.keys() == {id(p) for p in names.values()}
    assert decay[id(names["output.weight"])] == 0.25
    assert decay[id(names["encoder.layers.0.ahead.weight_hh"])] == 0.25
    assert decay[id(names["encoder.front_end.0.convolution.weight"])] == 0.25
    assert decay[id(names["output.bias"])] == 0
    assert decay[id(names["encoder.layers.0.back.bias"])] == 0
    assert decay[id(names["encoder.norms.0.weight"])] == 0


def test_a_step_goes_downhill_by_about_the_learning_rate() -> None:
    model = untrained_bundle().model
    config = TrainConfig(weight_decay=0.0, learning_rate=1e-3)
    optimizer = build_optimizer(model, config)
    before = model.output.weight.detach().clone()
    model.output.weight.sum().backward()
    optimizer.step()
    # Adam's first step is the learning rate against the gradient's sign.
    torch.testing.assert_close(model.output.weight.detach(), before - 1e-3, rtol=0, atol=1e-6)


@given(shares, warmups)
def test_the_rate_stays_between_zero_and_the_highest(done: float, warmup: float) -> None:
    rate = learning_rate(done, TrainConfig(learning_rate=0.5, warmup=warmup))
    assert 0 <= rate <= 0.5 + 1e-12


@given(shares, shares, warmups)
def test_the_rate_rises_until_the_warm_up_ends_and_falls_after(
    first: float, second: float, warmup: float
) -> None:
    config = TrainConfig(learning_rate=1.0, warmup=warmup)
    early, late = sorted((first, second))
    if late < warmup:
        assert learning_rate(early, config) <= learning_rate(late, config)
    if early >= warmup:
        assert learning_rate(early, config) >= learning_rate(late, config)


@given(warmups.filter(lambda warmup: warmup > 0.01))
def test_the_rate_has_no_jump_and_reaches_its_ends(warmup: float) -> None:
    config = TrainConfig(learning_rate=1.0, warmup=warmup)
    assert learning_rate(0.0, config) == 0
    assert learning_rate(warmup, config) == 1
    assert math.isclose(learning_rate(warmup - 1e-9, config), 1, abs_tol=1e-6)
    assert math.isclose(learning_rate(1.0, config), 0, abs_tol=1e-12)
    assert math.isclose(learning_rate(warmup / 2, config), 0.5)
    assert math.isclose(learning_rate((1 + warmup) / 2, config), 0.5)


def test_without_warm_up_the_rate_starts_at_its_highest() -> None:
    assert learning_rate(0.0, TrainConfig(learning_rate=0.5, warmup=0.0)) == 0.5
