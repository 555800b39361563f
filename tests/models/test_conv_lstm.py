from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from asr.errors import ConfigError
from asr.models.conv_lstm import CELL, ConvDirection, ConvLSTM, _Recurrence, neighbours
from asr.models.kernels import reference
from asr.padded import Padded
from tests.contracts import assert_contract, ragged, refilled

BANDS, CHANNELS_IN, CHANNELS_OUT = 5, 2, 3
Maps = list[list[float]]  # band by channel


def layer_of(kernel: int = 3, bidirectional: bool = True) -> ConvLSTM:
    torch.manual_seed(0)
    layer = ConvLSTM(CHANNELS_IN, CHANNELS_OUT, kernel, bidirectional)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # no peephole stays shut
    return layer


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def convolved(weight: Tensor, maps: Maps, kernel: int) -> Maps:
    """[rows, kernel * C] over [F][C] -> [F][rows], silence beyond the edges."""
    rows, taps = weight.tolist(), range(kernel)
    F, C = len(maps), len(maps[0])
    result = [[0.0] * len(rows) for _ in range(F)]
    for f in range(F):
        for r, row in enumerate(rows):
            for tap in taps:
                source = f + tap - kernel // 2
                if 0 <= source < F:
                    for c in range(C):
                        result[f][r] += row[tap * C + c] * maps[source][c]
    return result


def stepped(direction: ConvDirection, frames: list[Maps]) -> list[Maps]:
    """Equation 3 of Shi et al. 2015, number by number, in the order of the paper."""
    C = CHANNELS_OUT
    bias, peep = direction.bias.tolist(), direction.peephole.tolist()
    h, c = silence(), silence()
    outputs = []
    for frame in frames:
        from_x = convolved(direction.weight_ih, frame, direction.kernel)
        from_h = convolved(direction.weight_hh, h, direction.kernel)
        before, h, c = c, silence(), silence()
        for f in range(BANDS):
            for j in range(C):
                s = [
                    from_x[f][g * C + j] + from_h[f][g * C + j] + bias[g * C + j] for g in range(4)
                ]
                i = logistic(s[0] + peep[j] * before[f][j])
                forget = logistic(s[1] + peep[C + j] * before[f][j])
                c[f][j] = forget * before[f][j] + i * math.tanh(s[2])
                o = logistic(s[3] + peep[2 * C + j] * c[f][j])
                h[f][j] = o * math.tanh(c[f][j])
        outputs.append(h)
    return outputs


def silence() -> Maps:
    return [[0.0] * CHANNELS_OUT for _ in range(BANDS)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_is_the_layer_of_the_paper(kernel: int, dtype: torch.dtype, tolerance: float) -> None:
    layer, x = layer_of(kernel).to(dtype), ragged([6, 1, 4], BANDS, CHANNELS_IN)
    x = Padded(x.values.to(dtype), x.lengths)
    y = layer(x)
    assert layer.back is not None
    for row, output in zip(x.unpad(), y.unpad(), strict=True):
        frames = row.tolist()
        ahead = torch.tensor(stepped(layer.ahead, frames), dtype=dtype)
        back = torch.tensor(stepped(layer.back, frames[::-1]), dtype=dtype).flip(0)
        expected = torch.cat([ahead, back], dim=2)
        torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernel", [1, 3, 5, 9])
def test_neighbours_make_a_convolution_of_a_product(kernel: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(4, BANDS, CHANNELS_IN)
    weight = torch.randn(7, CHANNELS_IN, kernel)
    expected = functional.conv1d(values.transpose(1, 2), weight, padding=kernel // 2)
    rows = weight.transpose(1, 2).flatten(1)
    torch.testing.assert_close(neighbours(values, kernel) @ rows.T, expected.transpose(1, 2))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_contract(bidirectional: bool) -> None:
    layer = layer_of(bidirectional=bidirectional)
    x = ragged([6, 1, 9, 0, 9], BANDS, CHANNELS_IN)
    assert_contract(layer, x, zero_padding=False)
    y = layer(refilled(x, torch.nan, spare=3)).values
    assert y.isfinite().all()
    assert y.shape[2:] == (BANDS, layer.output_channels)


def test_contract_without_any_frames() -> None:
    values = torch.full((2, 3, BANDS, CHANNELS_IN), torch.nan)
    assert layer_of()(Padded(values, torch.tensor([0, 0]))).values.isfinite().all()


@pytest.mark.parametrize("kernel", [1, 3])
def test_gradients_in_float64(kernel: int) -> None:
    torch.manual_seed(0)
    layer = ConvLSTM(1, 2, kernel).double()
    for parameter in layer.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    names = [name for name, _ in layer.named_parameters()]
    x = ragged([3, 2], 3, 1)

    def outputs(values: Tensor, *weights: Tensor) -> Tensor:
        given = (Padded(values, x.lengths),)
        y = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), given)
        assert isinstance(y, Padded)
        return y.zeroed().values

    values = x.values.double().requires_grad_()
    assert torch.autograd.gradcheck(outputs, (values, *layer.parameters()))


def outcome(fast: bool, given: list[Tensor], slope: Tensor) -> list[Tensor]:
    """Outputs, and the gradients of the input projection, recurrent kernel and peepholes."""
    dtype = torch.float32 if fast else torch.float64
    x, weight, peephole = (v.to(dtype, copy=True).requires_grad_() for v in given)
    if fast:
        y = _Recurrence.apply(x, weight, peephole)
    else:
        start = x.new_zeros(*x.shape[1:3], weight.shape[0] // 4)
        weights = {"weight_hh": weight, "peephole": peephole}
        y = reference.run(CELL, x, (start, start), weights)[0]
    (y * slope.to(dtype)).sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    assert peephole.grad is not None
    return [v.double() for v in (y.detach(), x.grad, weight.grad, peephole.grad)]


@settings(max_examples=30)
@given(
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 7),
    st.integers(1, 9),
    st.sampled_from([1, 3, 5, 7]),
)
def test_compiled_loop_equals_the_plain_one(T: int, B: int, F: int, C: int, kernel: int) -> None:
    random = torch.Generator().manual_seed(T + 13 * B)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    weight = draw(4 * C, kernel * C) / (kernel * C) ** 0.5
    given = [draw(T, B, F, 4 * C), weight, 0.3 * draw(3 * C)]
    slope = draw(T, B, F, C)
    pairs = zip(outcome(True, given, slope), outcome(False, given, slope), strict=True)
    for ours, expected in pairs:
        assert ours.shape == expected.shape
        scale = max(1.0, float(expected.abs().max()))
        assert float((ours - expected).abs().max()) <= 2e-5 * scale


def test_float32_runs_the_compiled_loop_and_float64_the_plain_one() -> None:
    x = ragged([4], BANDS, CHANNELS_IN)
    layer = layer_of(bidirectional=False)
    assert uses_compiled_loop(layer(x).values)
    assert not uses_compiled_loop(layer.double()(Padded(x.values.double(), x.lengths)).values)


def uses_compiled_loop(values: Tensor) -> bool:
    nodes, seen = [values.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [following for following, _ in node.next_functions]
    return any("_Recurrence" in type(node).__name__ for node in seen)


def test_under_autocast_the_recurrence_stays_in_float32() -> None:
    layer, x = layer_of().eval(), ragged([9, 4], BANDS, CHANNELS_IN)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.values.dtype == torch.float32
    assert uses_compiled_loop(y.values)
    for ours, expected in zip(y.unpad(), layer(x).unpad(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0.05, atol=0.05)


def test_the_first_output_half_hears_the_past_and_the_second_the_future() -> None:
    layer, x = layer_of(), ragged([8, 5], BANDS, CHANNELS_IN)
    changed = x.values.clone()
    changed[:, 3] += 1.0
    for before, after in zip(
        layer(x).unpad(), layer(Padded(changed, x.lengths)).unpad(), strict=True
    ):
        moved = (before != after).any(dim=1)  # in any band
        assert moved[3:, :CHANNELS_OUT].all()
        assert not moved[:3, :CHANNELS_OUT].any()
        assert moved[:4, CHANNELS_OUT:].all()
        assert not moved[4:, CHANNELS_OUT:].any()


def test_a_band_spreads_by_half_a_kernel_a_frame() -> None:
    layer = layer_of(bidirectional=False)
    x = ragged([4], 9, CHANNELS_IN)
    changed = x.values.clone()
    changed[0, 1, 4] += 1.0
    moved = (layer(x).values != layer(Padded(changed, x.lengths)).values).any(dim=3)[0]
    reached = [moved[t].nonzero().flatten().tolist() for t in range(4)]
    assert reached == [[], [3, 4, 5], [2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]]


def test_any_number_of_bands_will_do() -> None:
    layer = layer_of()
    for bands in (1, 2, 40):
        y = layer(ragged([3], bands, CHANNELS_IN))
        assert y.values.shape == (1, 3, bands, 2 * CHANNELS_OUT)


def test_forget_gates_start_open_and_peepholes_shut() -> None:
    layer = ConvLSTM(CHANNELS_IN, CHANNELS_OUT)
    assert layer.back is not None
    for direction in (layer.ahead, layer.back):
        # input, forget, cell, output
        gates = direction.bias.reshape(4, CHANNELS_OUT).sum(dim=1).tolist()
        assert gates == [0.0, CHANNELS_OUT, 0.0, 0.0]
        assert not direction.peephole.any()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 3, 3), "expected one channel or more, got 0 in and 3 out"),
        ((2, 0, 3), "expected one channel or more, got 2 in and 0 out"),
        ((2, 3, 4), "expected a kernel of an odd number of bands, got 4"),
        ((2, 3, -1), "expected a kernel of an odd number of bands, got -1"),
    ],
)
def test_sizes_that_do_not_fit(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        ConvLSTM(*sizes)
    assert "\n" not in str(error.value)
