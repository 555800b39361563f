"""What every layer, loss and decoder promises about padding, as checks any test can call.

1. Garbage in the padding (NaN, infinity, huge numbers) changes no valid output, no gradient of a
   parameter or of a valid input, and no running statistic; gradients of the padding are zero.
2. An utterance gives the same alone, in a batch, and in a wider batch.
3. The padding of the output is zero where a layer says so.
4. Output lengths, and the width of the output, are those of `output_lengths()`.

The first check runs in training and in evaluation mode, the rest in evaluation mode.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asr.padded import Padded, pad

Layer = Callable[[Padded], Padded]
Lengths = Callable[[Tensor], Tensor]
Loss = Callable[[Padded, Padded], Tensor]
Decoder = Callable[[Padded], list[list[int]]]

GARBAGE = (math.nan, math.inf, -math.inf, 1e30)
SPARE = 5  # frames by which a batch is made wider than its longest utterance


class Chain(nn.Module):
    """Layers one after the other, as one layer."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Padded) -> Padded:
        for layer in self.layers:
            x = layer(x)
        return x


def ragged(lengths: Sequence[int], *shape: int, seed: int = 0) -> Padded:
    """Normally distributed sequences of these lengths. Shape: [B, T, *shape]."""
    random = torch.Generator().manual_seed(seed)
    return pad([torch.randn(length, *shape, generator=random) for length in lengths])


def refilled(x: Padded, garbage: float, spare: int = 0) -> Padded:
    """The same sequences with `spare` more frames of padding, and `garbage` in all of it."""
    B, _, *rest = x.values.shape
    wide = torch.cat([x.values, x.values.new_zeros(B, spare, *rest)], dim=1)
    mask = Padded(wide, x.lengths).mask().reshape(*wide.shape[:2], *(1 for _ in rest))
    return Padded(wide.masked_fill(~mask, garbage), x.lengths)


def assert_contract(
    layer: Layer,
    x: Padded,
    output_lengths: Lengths = lambda lengths: lengths,
    zero_padding: bool = True,
    tolerance: float = 1e-5,
) -> None:
    """All four promises of a layer without random numbers in evaluation mode."""
    assert_ignores_padding(layer, x)
    layer = _evaluating(layer, x)
    _assert_alone_as_in_a_batch(layer, x, tolerance)
    for garbage in (0.0, *GARBAGE):
        for spare in (0, SPARE):
            given = refilled(x, garbage, spare)
            with torch.no_grad():
                y = layer(given)
            frames = int(output_lengths(torch.tensor(given.values.shape[1])))
            assert y.lengths.tolist() == output_lengths(x.lengths).tolist()
            assert y.lengths.dtype == torch.int64
            assert y.values.shape[:2] == (len(x.lengths), frames)
            if zero_padding:
                assert not y.values[~y.mask()].any(), f"padding holds {garbage} or worse"


def assert_ignores_padding(layer: Layer, x: Padded) -> None:
    """Promise 1 alone; also for layers that draw random numbers."""
    modes = (True, False) if isinstance(layer, nn.Module) else (False,)
    for training in modes:
        if not training:
            layer = _evaluating(layer, x)
        expected = _outcome(layer, refilled(x, 0.0), training)
        for garbage in GARBAGE:
            where = f"padding of {garbage}, " + ("training" if training else "evaluation")
            _assert_same(_outcome(layer, refilled(x, garbage), training), expected, where)


def assert_loss_contract(loss: Loss, scores: Padded, targets: Padded) -> None:
    """Padding of scores and of targets changes no loss and no gradient; nor does the batch.

    Infinite losses are compared like any other, and must leave finite gradients.
    """
    expected, gradient = _loss_and_gradient(loss, scores, targets)
    for garbage in GARBAGE:
        for unit in (-1, 1, 10**9):
            losses, got = _loss_and_gradient(
                loss, refilled(scores, garbage, SPARE), refilled(targets, unit, SPARE)
            )
            torch.testing.assert_close(losses, expected)
            torch.testing.assert_close(got[:, : gradient.shape[1]], gradient)
            assert not got[:, gradient.shape[1] :].any()
    rows = zip(scores.unpad(), targets.unpad(), expected, gradient, strict=True)
    for row, target, one, slope in rows:
        if len(row):
            losses, alone = _loss_and_gradient(loss, pad([row]), pad([target]))
            torch.testing.assert_close(losses[0], one, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(alone[0], slope[: len(row)], rtol=1e-5, atol=1e-5)
            assert not slope[len(row) :].any()


def assert_decoder_contract(decoder: Decoder, scores: Padded) -> None:
    """Padding changes no hypothesis, nor does the batch."""
    expected = decoder(scores)
    for garbage in GARBAGE:
        assert decoder(refilled(scores, garbage, SPARE)) == expected
    # Equal scores decode to blanks wherever they stand: the padding must also shout a unit.
    for unit in range(scores.values.shape[2]):
        loud = refilled(scores, 0.0, SPARE)
        loud.values[:, :, unit].masked_fill_(~loud.mask(), math.inf)
        assert decoder(loud) == expected
    for row, hypothesis in zip(scores.unpad(), expected, strict=True):
        assert decoder(pad([row])) == [hypothesis]


@dataclass(frozen=True)
class _Outcome:
    outputs: list[Tensor]
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]


def _outcome(layer: Layer, x: Padded, training: bool) -> _Outcome:
    layer = copy.deepcopy(layer)
    if isinstance(layer, nn.Module):
        layer.train(training)
    values = x.values.clone().requires_grad_()
    torch.manual_seed(0)
    outputs = layer(Padded(values, x.lengths)).unpad()
    # A different weight for each output, so that no wrong gradient can cancel out.
    random = torch.Generator().manual_seed(1)
    weighted = [(y * torch.randn(y.shape, generator=random)).sum() for y in outputs]
    torch.stack(weighted).sum().backward()
    assert values.grad is not None
    gradients = {"its input": values.grad}
    if isinstance(layer, nn.Module):
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            gradients[name] = parameter.grad
    buffers = dict(layer.named_buffers()) if isinstance(layer, nn.Module) else {}
    return _Outcome([y.detach() for y in outputs], gradients, buffers)


def _assert_same(got: _Outcome, expected: _Outcome, where: str) -> None:
    for i, (y, wanted) in enumerate(zip(got.outputs, expected.outputs, strict=True)):
        _assert_close(y, wanted, f"output {i} depends on a {where}")
    for name, wanted in expected.gradients.items():
        assert wanted.isfinite().all()
        _assert_close(got.gradients[name], wanted, f"gradient of {name} depends on a {where}")
    for name, wanted in expected.buffers.items():
        _assert_close(got.buffers[name], wanted, f"{name} depends on a {where}")


def _assert_close(got: Tensor, expected: Tensor, message: str) -> None:
    torch.testing.assert_close(got, expected, msg=lambda details: f"{message}\n{details}")


def _evaluating(layer: Layer, x: Padded) -> Layer:
    """The layer in evaluation mode, with statistics that it has learnt from `x`."""
    if not isinstance(layer, nn.Module):
        return layer
    layer = copy.deepcopy(layer).train()
    with torch.no_grad():
        layer(x)
    return layer.eval()


def _assert_alone_as_in_a_batch(layer: Layer, x: Padded, tolerance: float) -> None:
    with torch.no_grad():
        together = layer(x).unpad()
        wider = layer(refilled(x, math.nan, SPARE)).unpad()
        for row, y, z in zip(x.unpad(), together, wider, strict=True):
            torch.testing.assert_close(y, z, rtol=tolerance, atol=tolerance)
            if len(row):
                alone = layer(pad([row])).unpad()[0]
                torch.testing.assert_close(alone, y, rtol=tolerance, atol=tolerance)


def _loss_and_gradient(loss: Loss, scores: Padded, targets: Padded) -> tuple[Tensor, Tensor]:
    values = scores.values.clone().requires_grad_()
    losses = loss(Padded(values, scores.lengths), targets)
    losses.sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    return losses.detach(), values.grad
