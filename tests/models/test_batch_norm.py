from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from asr.models.batch_norm import MaskedBatchNorm
from asr.padded import Padded, pad
from tests.contracts import assert_contract, assert_ignores_padding, ragged, refilled

LENGTHS = [7, 1, 12, 0]


def scaled(seed: int) -> Padded:
    x = ragged(LENGTHS, 3, seed=seed)
    return Padded(
        x.values * torch.tensor([0.5, 2.0, 9.0]) + torch.tensor([0.0, 3.0, -7.0]), x.lengths
    )


def norm_pair() -> tuple[MaskedBatchNorm, nn.BatchNorm1d]:
    ours, theirs = MaskedBatchNorm(3, momentum=0.2), nn.BatchNorm1d(3, momentum=0.2)
    with torch.no_grad():
        for a, b in [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]:
            a.copy_(torch.randn(3, generator=torch.Generator().manual_seed(1)))
            b.copy_(a)
    return ours, theirs


def test_training_is_batch_norm_of_the_real_frames() -> None:
    ours, theirs = norm_pair()
    for seed in (1, 2, 3):
        x = scaled(seed)
        values = x.values.clone().requires_grad_()
        frames = torch.cat(x.unpad()).requires_grad_()
        y = torch.cat(ours(Padded(values, x.lengths)).unpad())
        expected = theirs(frames)
        torch.testing.assert_close(y, expected)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
        for norm, output in ((ours, y), (theirs, expected)):
            norm.zero_grad()
            (output * weights).sum().backward()
        assert values.grad is not None
        torch.testing.assert_close(
            torch.cat(Padded(values.grad, x.lengths).unpad()), frames.grad, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_variance, theirs.running_var)


def test_running_statistics_move_by_the_momentum() -> None:
    ours, _ = norm_pair()
    frames = torch.cat(scaled(1).unpad())
    ours(scaled(1))
    torch.testing.assert_close(ours.running_mean, 0.2 * frames.mean(0))
    torch.testing.assert_close(ours.running_variance, 0.8 + 0.2 * frames.var(0))


def test_evaluation_uses_the_running_statistics_and_keeps_them() -> None:
    ours, _ = norm_pair()
    ours(scaled(1))
    ours.eval()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    x = scaled(2)
    y = torch.cat(ours(x).unpad())
    frames = torch.cat(x.unpad())
    expected = (frames - ours.running_mean) / (ours.running_variance + 1e-5).sqrt()
    torch.testing.assert_close(y, expected * ours.weight + ours.bias, rtol=1e-5, atol=1e-5)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name])


def test_contract() -> None:
    assert_contract(norm_pair()[0], scaled(1))


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_without_frames_stays_finite(training: bool) -> None:
    norm = MaskedBatchNorm(3).train(training)
    y = norm(Padded(torch.full((2, 4, 3), torch.nan), torch.tensor([0, 0])))
    assert not y.values.any()
    assert all(value.isfinite().all() for value in norm.state_dict().values())


def test_one_frame_has_no_variance_and_takes_the_running_statistics() -> None:
    ours, _ = norm_pair()
    x = pad([torch.ones(1, 3), torch.ones(0, 3)])
    assert_ignores_padding(ours, x)
    trained = ours.train()(x).values
    assert torch.equal(trained, ours.eval()(x).values)
    assert ours.running_mean.tolist() == [0.0] * 3


def test_every_dimension_but_the_last_is_averaged() -> None:
    torch.manual_seed(0)
    ours, x = MaskedBatchNorm(3), ragged(LENGTHS, 5, 3)
    y = torch.cat(ours(x).unpad())
    torch.testing.assert_close(y.mean(dim=(0, 1)), torch.zeros(3), rtol=0, atol=1e-5)
    assert_contract(ours, x)


def test_low_precision_input_is_normalised_in_float32() -> None:
    x = scaled(1)
    ours, _ = norm_pair()
    y = ours(Padded(x.values.bfloat16(), x.lengths)).values
    assert y.dtype == torch.float32


def on_a_device(norm: MaskedBatchNorm, x: Padded) -> Padded:
    """What a GPU computes, on the CPU."""
    return Padded(norm._of_masked(x.values.to(norm.weight.dtype), x), x.lengths)


@pytest.mark.parametrize("lengths", [LENGTHS, [2, 2], [0, 1, 0], [0, 0]])
@pytest.mark.parametrize("shape", [(3,), (5, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_masked_sums_give_what_gathered_frames_give(
    lengths: list[int], shape: tuple[int, ...], training: bool
) -> None:
    outcomes = []
    for device in (MaskedBatchNorm.__call__, on_a_device):
        norm = norm_pair()[0].train(training)
        norm.running_mean += 0.5
        for seed in (1, 2):
            x = refilled(ragged(lengths, *shape, seed=seed), torch.nan, spare=2)
            values = (3 * x.values + 7).requires_grad_()
            y = device(norm, Padded(values, x.lengths)).values
            weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
            (y * weights).sum().backward()
            outcomes.append([y, values.grad])
        outcomes[-1] += [norm.weight.grad, norm.bias.grad, *norm.buffers()]
    for own, expected in zip(outcomes[2:], outcomes[:2], strict=True):
        for a, b in zip(own, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_stay_exactly_where_one_frame_has_no_variance() -> None:
    norm = norm_pair()[0]
    norm(scaled(1))
    before = [buffer.clone() for buffer in norm.buffers()]
    on_a_device(norm, pad([torch.ones(1, 3), torch.ones(0, 3)]))
    assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))


@pytest.mark.parametrize("lengths", [[4, 1, 0], [1, 0]])
def test_the_gradient_of_masked_sums_is_that_of_differences(lengths: list[int]) -> None:
    norm = norm_pair()[0].double()
    x = ragged(lengths, 3)
    real = x.mask()[:, :, None]

    def normalised(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        values = values.where(real, torch.nan)
        parameters = {"weight": weight, "bias": bias}
        return torch.func.functional_call(norm, parameters, (Padded(values, x.lengths),)).values

    norm._of_gathered = norm._of_masked  # type: ignore[method-assign]
    inputs = [x.values.double(), norm.weight.detach(), norm.bias.detach()]
    assert torch.autograd.gradcheck(normalised, [value.requires_grad_() for value in inputs])
