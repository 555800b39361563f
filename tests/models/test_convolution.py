"""The convolution of a GPU, on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from asr.models import convolution
from asr.models.convolution import _by_patches, convolved


@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (3, 2), (1, 1)])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("size", [(7, 10), (1, 1), (12, 9)])
def test_gradients_are_those_of_torch(
    stride: tuple[int, int], channels: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "PATCHES", 2 * 9 * channels * 8 * size[0] * size[1])
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 6, 3, stride, padding=1).double()
    plane = torch.randn(5, *size, channels, dtype=torch.float64).permute(0, 3, 1, 2)
    outcomes = []
    for function in (convolved, _by_patches):
        x = plane.clone().requires_grad_()
        layer.zero_grad()
        y = function(layer, x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
        outcomes.append([y, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for own, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(own, expected)


def test_low_precision_sums_in_float32() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 6, 3, (2, 2), padding=1)
    plane = torch.randn(40, 1, 30, 20)
    outcomes: list[list[Tensor | None]] = []
    for short in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            y = _by_patches(layer, plane)
        assert y.dtype == (torch.bfloat16 if short else torch.float32)
        y.float().sin().sum().backward()
        outcomes.append([parameter.grad for parameter in layer.parameters()])
    for expected, own in zip(*outcomes, strict=True):
        assert own is not None
        assert expected is not None
        assert own.dtype == torch.float32
        torch.testing.assert_close(own, expected, rtol=0.02, atol=0.02 * float(expected.norm()))
