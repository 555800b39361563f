"""Covers `asr/models/kernels/dense.py`."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from asr.errors import ConfigError
from asr.models.cells import CELLS
from asr.models.kernels import dense, reference
from asr.models.recurrent import Direction, RecurrentLayer, reversal_index, reverse
from asr.padded import Padded
from tests.contracts import assert_contract, assert_ignores_padding, ragged, refilled

INPUT, HIDDEN = 5, 4
NAMES = ["weight_ih", "weight_hh", "bias"]


def directions(layer: RecurrentLayer) -> dict[str, Direction]:
    """By the ending that torch's own layer gives to their weights."""
    assert layer.back is not None
    return {"_l0": layer.ahead, "_l0_reverse": layer.back}


def torch_twin(layer: RecurrentLayer, input_size: int, hidden: int) -> nn.LSTM:
    """torch's own bidirectional LSTM with the same weights; of its two biases one is zero."""
    twin = nn.LSTM(input_size, hidden, batch_first=True, bidirectional=True)
    twin.to(next(layer.parameters()).dtype)
    with torch.no_grad():
        for ending, direction in directions(layer).items():
            for name in NAMES:
                torch_name = name.replace("bias", "bias_ih") + ending
                getattr(twin, torch_name).copy_(getattr(direction, name))
            getattr(twin, "bias_hh" + ending).zero_()
    return twin


def outputs_and_gradients(
    layer: RecurrentLayer, x: Padded, packed: nn.LSTM | None
) -> dict[str, Tensor]:
    """Of our layer, or of torch's where one is given."""
    values = x.values.clone().requires_grad_()
    if packed is None:
        y = layer(Padded(values, x.lengths)).zeroed().values
        parameters = {
            name + ending: getattr(direction, name)
            for ending, direction in directions(layer).items()
            for name in NAMES
        }
    else:
        sequence = pack_padded_sequence(values, x.lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(packed(sequence)[0], batch_first=True)
        parameters = {
            name.replace("bias_ih", "bias"): weight
            for name, weight in packed.named_parameters()
            if not name.startswith("bias_hh")
        }
    random = torch.Generator().manual_seed(3)
    (y * torch.randn(y.shape, generator=random, dtype=y.dtype)).sum().backward()
    assert values.grad is not None
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    return {"output": y.detach(), "input": values.grad, **gradients}


def assert_equal_to_packed(
    lengths: list[int], size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(len(lengths))
    layer = RecurrentLayer(*size).to(dtype)
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


@settings(max_examples=40)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_equal_to_packed_lstm_in_float64(lengths: list[int]) -> None:
    assert_equal_to_packed(lengths, (INPUT, HIDDEN), torch.float64, 1e-11)


@pytest.mark.parametrize("lengths", [[1], [7, 7, 7], [1, 1], [3, 1, 9, 9, 2], [40, 31, 24]])
def test_equal_to_packed_lstm_in_float32(lengths: list[int]) -> None:
    assert_equal_to_packed(lengths, (INPUT, HIDDEN), torch.float32, 1e-5)


def test_equal_to_packed_lstm_at_a_larger_size() -> None:
    assert_equal_to_packed([60, 50, 37, 1], (48, 32), torch.float32, 1e-5)


@settings(max_examples=30)
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
    layer, x = RecurrentLayer(INPUT, HIDDEN), ragged([6, 1, 9, 0, 9], INPUT)
    assert_contract(layer, x, zero_padding=False)
    assert layer(refilled(x, torch.nan, spare=3)).values.isfinite().all()


def test_contract_without_any_frames() -> None:
    layer = RecurrentLayer(INPUT, HIDDEN)
    y = layer(Padded(torch.full((2, 3, INPUT), torch.nan), torch.tensor([0, 0])))
    assert y.values.isfinite().all()


def test_the_first_output_half_hears_the_past_and_the_second_the_future() -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(INPUT, HIDDEN)
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
    layer = RecurrentLayer(INPUT, HIDDEN)
    for direction in directions(layer).values():
        # input, forget, cell, output
        assert direction.bias.reshape(4, HIDDEN).sum(dim=1).tolist() == [0.0, HIDDEN, 0.0, 0.0]
        for gate in direction.weight_hh.split(HIDDEN):
            torch.testing.assert_close(gate @ gate.T, torch.eye(HIDDEN))


# --- every cell ---


def layer_of(name: str, bidirectional: bool = True, **options: Any) -> RecurrentLayer:
    torch.manual_seed(0)
    projection = 3 if name == "projected" else None
    return RecurrentLayer(
        INPUT, HIDDEN, name, bidirectional=bidirectional, projection=projection, **options
    )


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_contract_of_every_cell(name: str, bidirectional: bool) -> None:
    layer, x = layer_of(name, bidirectional), ragged([6, 1, 9, 0, 9], INPUT)
    assert_contract(layer, x, zero_padding=False)
    assert layer(x).values.shape[2] == layer.output_size


@pytest.mark.parametrize("name", CELLS)
def test_a_backward_layer_runs_from_the_last_frame_to_the_first(name: str) -> None:
    layer = layer_of(name, bidirectional=False, backward=True).eval()
    forward = layer_of(name, bidirectional=False).eval()  # with the same weights
    x = ragged([6, 1, 9], INPUT)
    assert_contract(layer, x, zero_padding=False)
    for row, y in zip(x.unpad(), layer(x).unpad(), strict=True):
        alone = forward(Padded(row.flip(0)[None], torch.tensor([len(row)]))).values[0].flip(0)
        torch.testing.assert_close(y, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("name", CELLS)
def test_states_in_and_out_continue_an_utterance(name: str, bidirectional: bool) -> None:
    layer = layer_of(name, bidirectional).eval()
    x = ragged([9, 6, 4], INPUT)
    whole, after = layer.run(x)
    first, middle = layer.ahead(Padded(x.values[:, :4], x.lengths.clamp(max=4)), None, True)
    rest, last = layer.ahead(Padded(x.values[:, 4:], (x.lengths - 4).clamp(min=0)), middle, True)
    together = torch.cat([first.values, rest.values], dim=1)
    for row, wanted in zip(Padded(together, x.lengths).unpad(), whole.unpad(), strict=True):
        torch.testing.assert_close(row, wanted[:, : row.shape[1]], rtol=1e-5, atol=1e-5)
    for ours, wanted in zip(last, after[0], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    for i, length in enumerate(x.lengths.tolist()):
        ends = whole.values[i, length - 1, : layer.ahead.output_size]
        torch.testing.assert_close(after[0][0][i], ends, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_no_frames_give_no_outputs_and_leave_the_state(name: str) -> None:
    layer, x = layer_of(name), ragged([0, 0], INPUT)
    before = tuple(torch.randn_like(part) for part in layer.ahead.initial_state(2))
    y, after = layer.run(x, [before, before])
    assert y.values.shape == (2, 0, layer.output_size)
    for direction in after:
        assert all(torch.equal(a, b) for a, b in zip(direction, before, strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_both_directions_are_the_reference_utterance_by_utterance(name: str) -> None:
    layer = layer_of(name).eval()
    x = ragged([7, 1, 12, 4], INPUT)
    before = [
        tuple(torch.randn_like(part) for part in direction.initial_state(4))
        for direction in (layer.ahead, layer.back)
        if direction is not None
    ]
    y, after = layer.run(x, before)
    twin = copy.deepcopy(layer).double()
    for i, (values, got) in enumerate(zip(x.unpad(), y.unpad(), strict=True)):
        outputs = []
        for number, direction in enumerate([twin.ahead, twin.back]):
            assert direction is not None
            turned = values.flip(0) if number else values
            share = direction.input_projection(
                Padded(turned[None].double(), torch.tensor([len(values)]))
            )
            state = tuple(part[i : i + 1].double() for part in before[number])
            weights = dict(direction.named_parameters(recurse=False))
            states = reference.run(direction.cell, share.transpose(0, 1), state, weights)
            outputs.append(states[0][:, 0].flip(0) if number else states[0][:, 0])
            for part, expected in zip(after[number], states, strict=True):
                torch.testing.assert_close(part[i].double(), expected[-1, 0], rtol=1e-4, atol=1e-5)
        expected = torch.cat(outputs, dim=1)
        torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_sizes_that_do_not_fit_are_refused(name: str) -> None:
    layer, x = layer_of(name), ragged([4, 2], INPUT)
    few = layer.ahead.initial_state(1)
    with pytest.raises(ValueError, match=r"expected a state of shapes \[\[2, "):
        layer.run(x, [few, few])
    with pytest.raises(ValueError, match="expected 5 features, got 6"):
        layer(ragged([4, 2], INPUT + 1))


@pytest.mark.parametrize("name", CELLS)
def test_autocast_does_not_leave_the_fast_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of(name), ragged([6, 1, 9], INPUT)
    monkeypatch.setattr(reference, "run", None)
    expected = layer(x).zeroed().values
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x).zeroed().values
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


def test_an_lstm_that_the_processor_cannot_run_in_bfloat16_runs_in_float32(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    layer, x = layer_of("lstm"), ragged([6, 1, 9], INPUT)
    expected = outputs_and_gradients(layer, x, None)
    monkeypatch.setattr(dense, "trains_lstm_in", lambda dtype: False)
    dense._say_float32.cache_clear()
    for _ in range(2):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            got = outputs_and_gradients(layer, x, None)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
        short = Padded(x.values.bfloat16(), x.lengths)  # as a linear layer before it would give
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(short).values.dtype == torch.float32
    said = [str(warning.message) for warning in recwarn]
    assert said == ["LSTM layers run in float32: this processor cannot run them in torch.bfloat16"]


@pytest.mark.slow
def test_the_bfloat16_lstm_is_missed_without_avx_512() -> None:
    program = (
        "import torch; from asr.models.kernels.dense import trains_lstm_in\n"
        "before = torch.get_rng_state()\n"
        "with torch.inference_mode(): print(trains_lstm_in(torch.bfloat16))\n"
        "assert torch.equal(before, torch.get_rng_state())\n"
    )
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | limits, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr


def test_a_slow_path_says_so_once(recwarn: pytest.WarningsRecorder) -> None:
    reference.warn_slow.cache_clear()
    for _ in range(2):
        layer_of("gru", zoneout=0.4)(ragged([3], INPUT))
        layer_of("gru").double()(Padded(torch.zeros(1, 2, INPUT).double(), torch.tensor([2])))
    said = [str(warning.message) for warning in recwarn]
    assert len(said) == 2
    assert "gru run as a plain loop" in said[0]
    assert "zoneout" in said[0]
    assert "torch.float64 on cpu" in said[1]


def test_dropped_recurrent_weights_are_the_same_in_every_frame() -> None:
    layer = layer_of("rnn_relu", bidirectional=False, weight_dropout=0.5)
    x = ragged([5, 5], INPUT)
    torch.manual_seed(1)
    y = layer(x).values
    torch.manual_seed(1)
    kept = torch.nn.functional.dropout(layer.ahead.weight_hh, 0.5)
    (h,) = layer.ahead.initial_state(2)
    for t in range(5):
        h = torch.relu(x.values[:, t] @ layer.ahead.weight_ih.T + layer.ahead.bias + h @ kept.T)
        torch.testing.assert_close(y[:, t], h)
    layer.eval()
    assert torch.equal(layer(x).values, layer(x).values)


def test_zoneout_ignores_padding() -> None:
    assert_ignores_padding(layer_of("lstm", zoneout=0.4), ragged([6, 1, 9], INPUT))


@pytest.mark.parametrize(
    ("name", "projection", "message"),
    [
        ("lstn", None, "expected a cell among rnn_tanh"),
        ("lstm", 3, "no projection but for the projected cell"),
        ("projected", None, "expected a projection for the projected cell"),
    ],
)
def test_cells_that_cannot_be_built(name: str, projection: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        RecurrentLayer(INPUT, HIDDEN, name, projection=projection)
    assert "\n" not in str(error.value)
