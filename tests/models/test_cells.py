"""The reference cells against torch's own, and against their equations by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.models.cells import CELLS, State

B, H = 3, 4
F64 = torch.float64


def drawn(name: str, R: int = H, seed: int = 0) -> tuple[Tensor, State, dict[str, Tensor]]:
    """An input projection, a state and weights for a cell, all random."""
    random = torch.Generator().manual_seed(seed)
    cell = CELLS[name]

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=F64)

    weights = {"weight_hh": draw(cell.gates * H, R)}
    weights |= {vector: draw(times * H) for vector, (times, _) in cell.vectors.items()}
    if cell.projects:
        weights["weight_hr"] = draw(R, H)
    state = (draw(B, R), draw(B, H)) if cell.memory else (draw(B, R),)
    return draw(B, cell.gates * H), state, weights


def step(name: str, x: Tensor, state: State, weights: dict[str, Tensor]) -> State:
    return CELLS[name].step(x, state, weights)


def load(twin: nn.Module, **weights: Tensor) -> None:
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(weights.get(name, torch.zeros_like(parameter)))


@pytest.mark.parametrize("name", CELLS)
def test_a_step_keeps_the_shape_of_the_state(name: str) -> None:
    R = 2 if CELLS[name].projects else H
    x, state, weights = drawn(name, R)
    after = step(name, x, state, weights)
    assert [part.shape for part in after] == [part.shape for part in state]


@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_rnn_is_torchs(kind: str) -> None:
    x, state, weights = drawn(f"rnn_{kind}")
    twin = nn.RNNCell(4, H, nonlinearity=kind, dtype=F64)
    load(twin, weight_ih=torch.eye(4, dtype=F64), weight_hh=weights["weight_hh"])
    (h,) = step(f"rnn_{kind}", x, state, weights)
    torch.testing.assert_close(h, twin(x, state[0]))


def test_lstm_is_torchs() -> None:
    x, state, weights = drawn("lstm")
    twin = nn.LSTMCell(4 * H, H, dtype=F64)
    load(twin, weight_ih=torch.eye(4 * H, dtype=F64), weight_hh=weights["weight_hh"])
    for ours, theirs in zip(step("lstm", x, state, weights), twin(x, state), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gru_is_torchs() -> None:
    x, state, weights = drawn("gru")
    twin = nn.GRUCell(3 * H, H, dtype=F64)
    bias = torch.cat([torch.zeros(2 * H, dtype=F64), weights["bias_n"]])
    eye = torch.eye(3 * H, dtype=F64)
    load(twin, weight_ih=eye, weight_hh=weights["weight_hh"], bias_hh=bias)
    torch.testing.assert_close(step("gru", x, state, weights)[0], twin(x, state[0]))


def test_projected_is_torchs() -> None:
    x, (h, c), weights = drawn("projected", R=2)
    twin = nn.LSTM(4 * H, H, proj_size=2, dtype=F64)
    load(
        twin,
        weight_ih_l0=torch.eye(4 * H, dtype=F64),
        weight_hh_l0=weights["weight_hh"],
        weight_hr_l0=weights["weight_hr"],
    )
    _, after = twin(x[None], (h[None], c[None]))
    for ours, theirs in zip(step("projected", x, (h, c), weights), after, strict=True):
        torch.testing.assert_close(ours, theirs[0])


def test_an_lstm_is_a_peephole_lstm_that_cannot_peep() -> None:
    x, state, weights = drawn("peephole")
    blind = weights | {"peephole": torch.zeros(3 * H, dtype=F64)}
    for ours, lstm in zip(
        step("peephole", x, state, blind), step("lstm", x, state, weights), strict=True
    ):
        torch.testing.assert_close(ours, lstm)


def logistic(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def test_peephole_by_hand() -> None:
    x = torch.tensor([[0.1, -0.2, 0.3, 0.4]], dtype=F64)
    h, c = torch.tensor([[0.5]], dtype=F64), torch.tensor([[-0.7]], dtype=F64)
    weights = {
        "weight_hh": torch.tensor([[0.2], [0.3], [-0.4], [0.6]], dtype=F64),
        "peephole": torch.tensor([1.1, -0.8, 0.9], dtype=F64),
    }
    i = logistic(0.1 + 0.2 * 0.5 + 1.1 * -0.7)
    f = logistic(-0.2 + 0.3 * 0.5 - 0.8 * -0.7)
    g = math.tanh(0.3 - 0.4 * 0.5)
    memory = f * -0.7 + i * g
    o = logistic(0.4 + 0.6 * 0.5 + 0.9 * memory)
    after = step("peephole", x, (h, c), weights)
    assert [part.item() for part in after] == pytest.approx([o * math.tanh(memory), memory])


def test_coupled_by_hand() -> None:
    x = torch.tensor([[0.1, 0.3, 0.4]], dtype=F64)
    h, c = torch.tensor([[0.5]], dtype=F64), torch.tensor([[-0.7]], dtype=F64)
    weights = {"weight_hh": torch.tensor([[0.2], [-0.4], [0.6]], dtype=F64)}
    i = logistic(0.1 + 0.2 * 0.5)
    memory = (1 - i) * -0.7 + i * math.tanh(0.3 - 0.4 * 0.5)
    output = logistic(0.4 + 0.6 * 0.5) * math.tanh(memory)
    after = step("coupled", x, (h, c), weights)
    assert [part.item() for part in after] == pytest.approx([output, memory])


def test_light_gru_by_hand() -> None:
    x, h = torch.tensor([[0.1, 0.3]], dtype=F64), torch.tensor([[0.5]], dtype=F64)
    weights = {"weight_hh": torch.tensor([[0.2], [-0.4]], dtype=F64)}
    z = logistic(0.1 + 0.2 * 0.5)
    (after,) = step("light_gru", x, (h,), weights)
    assert after.item() == pytest.approx(z * 0.5 + (1 - z) * (0.3 - 0.4 * 0.5))
    (after,) = step("light_gru", -x, (h,), weights)  # below zero the candidate is silent
    assert after.item() == pytest.approx(logistic(-0.1 + 0.2 * 0.5) * 0.5)


def test_layer_norm_lstm_is_an_lstm_of_normalised_sums() -> None:
    x, (h, c), weights = drawn("layer_norm")
    u = functional.layer_norm(h @ weights["weight_hh"].T, (4 * H,), weights["gain_h"])
    # The same sums given to an LSTM as its input, with nothing recurrent.
    still = {"weight_hh": torch.zeros(4 * H, H, dtype=F64)}
    _, memory = step("lstm", x + u, (h, c), still)
    h_after, c_after = step("layer_norm", x, (h, c), weights)
    torch.testing.assert_close(c_after, memory)
    o = torch.sigmoid((x + u)[:, 3 * H :])
    shown = functional.layer_norm(memory, (H,), weights["gain_c"], weights["bias_c"])
    torch.testing.assert_close(h_after, o * torch.tanh(shown))
