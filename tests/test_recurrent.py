from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.models.recurrent import BidirectionalLSTM, reversal_index, reverse
from asr.padded import Padded
from tests.contracts import assert_contract, ragged, refilled

INPUT, HIDDEN = 5, 4
NAMES = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]


def torch_twin(layer: BidirectionalLSTM, input_size: int, hidden: int) -> nn.LSTM:
    """torch's own bidirectional LSTM with the same weights."""
    twin = nn.LSTM(input_size, hidden, batch_first=True, bidirectional=True)
    twin.to(next(layer.parameters()).dtype)
    with torch.no_grad():
        for name in NAMES:
            getattr(twin, name).copy_(getattr(layer.forward_lstm, name))
            getattr(twin, name + "_reverse").copy_(getattr(layer.backward_lstm, name))
    return twin


def outputs_and_gradients(
    layer: BidirectionalLSTM, x: Padded, packed: nn.LSTM | None
) -> dict[str, Tensor]:
    """Of our layer, or of torch's where one is given, by the names of torch's parameters."""
    values = x.values.clone().requires_grad_()
    if packed is None:
        y = layer(Padded(values, x.lengths)).zeroed().values
        sources = [(layer.forward_lstm, ""), (layer.backward_lstm, "_reverse")]
        parameters = {name + suffix: getattr(m, name) for m, suffix in sources for name in NAMES}
    else:
        sequence = pack_padded_sequence(values, x.lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(packed(sequence)[0], batch_first=True)
        parameters = dict(packed.named_parameters())
    random = torch.Generator().manual_seed(3)
    (y * torch.randn(y.shape, generator=random, dtype=y.dtype)).sum().backward()
    assert values.grad is not None
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    return {"output": y.detach(), "input": values.grad, **gradients}


def assert_equal_to_packed(
    lengths: list[int], size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(len(lengths))
    layer = BidirectionalLSTM(*size).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # no two biases alike
    x = ragged(lengths, size[0])
    x = Padded(x.values.to(dtype), x.lengths)
    ours = outputs_and_gradients(layer, x, None)
    theirs = outputs_and_gradients(layer, x, torch_twin(layer, *size))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(
            ours[name], expected, rtol=tolerance, atol=tolerance, msg=partial(_named, name)
        )


def _named(name: str, difference: str) -> str:
    return f"{name}: {difference}"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_equal_to_packed_lstm_in_float64(lengths: list[int]) -> None:
    assert_equal_to_packed(lengths, (INPUT, HIDDEN), torch.float64, 1e-11)


@pytest.mark.parametrize("lengths", [[1], [7, 7, 7], [1, 1], [3, 1, 9, 9, 2], [40, 31, 24]])
def test_equal_to_packed_lstm_in_float32(lengths: list[int]) -> None:
    assert_equal_to_packed(lengths, (INPUT, HIDDEN), torch.float32, 1e-5)


def test_equal_to_packed_lstm_at_a_larger_size() -> None:
    assert_equal_to_packed([60, 50, 37, 1], (48, 32), torch.float32, 1e-5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 3))
def test_reversal_is_its_own_inverse_and_keeps_padding(lengths: list[int], spare: int) -> None:
    T = max(lengths) + spare
    values = torch.arange(len(lengths) * T).reshape(len(lengths), T, 1)
    index = reversal_index(torch.tensor(lengths), T)
    once = reverse(values, index)
    assert torch.equal(reverse(once, index), values)
    for row, source, length in zip(once, values, lengths, strict=True):
        assert torch.equal(row[:length], source[:length].flip(0))
        assert torch.equal(row[length:], source[length:])


def test_contract() -> None:
    torch.manual_seed(0)
    layer, x = BidirectionalLSTM(INPUT, HIDDEN), ragged([6, 1, 9, 0, 9], INPUT)
    assert_contract(layer, x, zero_padding=False)
    assert layer(refilled(x, torch.nan, spare=3)).values.isfinite().all()


def test_contract_without_any_frames() -> None:
    layer = BidirectionalLSTM(INPUT, HIDDEN)
    y = layer(Padded(torch.full((2, 3, INPUT), torch.nan), torch.tensor([0, 0])))
    assert y.values.isfinite().all()


def test_the_first_output_half_hears_the_past_and_the_second_the_future() -> None:
    torch.manual_seed(0)
    layer = BidirectionalLSTM(INPUT, HIDDEN)
    x = ragged([8, 5], INPUT)
    changed = x.values.clone()
    changed[:, 3] += 1.0
    for before, after in zip(
        layer(x).unpad(), layer(Padded(changed, x.lengths)).unpad(), strict=True
    ):
        moved = before != after
        assert moved[3:, :HIDDEN].all()
        assert not moved[:3, :HIDDEN].any()
        assert moved[:4, HIDDEN:].all()
        assert not moved[4:, HIDDEN:].any()


def test_forget_gates_start_open_and_recurrences_orthogonal() -> None:
    layer = BidirectionalLSTM(INPUT, HIDDEN)
    for lstm in (layer.forward_lstm, layer.backward_lstm):
        weights = dict(lstm.named_parameters())
        gates = (weights["bias_ih_l0"] + weights["bias_hh_l0"]).reshape(4, HIDDEN)
        assert gates.sum(dim=1).tolist() == [0.0, HIDDEN, 0.0, 0.0]  # input, forget, cell, output
        for gate in weights["weight_hh_l0"].split(HIDDEN):
            torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN))
