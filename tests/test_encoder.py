from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from asr.models.encoder import ConvolutionBlock, Encoder, locked_dropout, strided
from asr.padded import Padded
from tests.contracts import Chain, assert_contract, assert_ignores_padding, ragged

LENGTHS = [9, 1, 14, 0, 6]


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_strided_is_the_output_size_of_a_convolution(stride: int) -> None:
    convolution = nn.Conv1d(1, 1, 3, stride, padding=1)
    for size in range(1, 20):
        expected = convolution(torch.zeros(1, 1, size)).shape[2]
        assert strided(size, stride) == int(strided(torch.tensor(size), stride)) == expected
        assert expected == -(-size // stride)
    assert strided(0, stride) == 0


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolution_block_contract(stride: int) -> None:
    torch.manual_seed(0)
    block = ConvolutionBlock(2, 3, stride)
    x = ragged(LENGTHS, 7, 2)
    assert block(x).values.shape == (5, strided(14, stride), 4, 3)
    assert_contract(block, x, lambda lengths: strided(lengths, stride))


def test_convolution_block_is_convolution_norm_and_relu() -> None:
    torch.manual_seed(0)
    block = ConvolutionBlock(2, 3, 2).eval()
    norm = nn.BatchNorm2d(3).eval()
    with torch.no_grad():
        for name, value in [("running_mean", torch.randn(3)), ("weight", torch.randn(3))]:
            getattr(block.norm, name).copy_(value)
            getattr(norm, name).copy_(value)
    x = ragged([9], 7, 2)
    expected = norm(block.convolution(x.values.permute(0, 3, 1, 2))).relu().permute(0, 2, 3, 1)
    y = block(x).values
    torch.testing.assert_close(y, expected)
    assert (y > 0).any()


STACKS = [((4, 3), (2, 2), 2), ((3,), (3,), 1), ((2, 2, 2), (1, 2, 1), 1), ((), (), 2)]


@pytest.mark.parametrize(("channels", "strides", "layers"), STACKS)
def test_encoder_contract(channels: tuple[int, ...], strides: tuple[int, ...], layers: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(11, channels, strides, layers, 4, dropout=0.0)
    x = ragged(LENGTHS, 11)
    assert_contract(encoder, x, encoder.output_lengths, zero_padding=False)
    assert encoder(x).values.shape[2] == 8


def test_encoder_after_another_layer_contract() -> None:
    torch.manual_seed(0)
    encoder = Encoder(8, (3,), (2,), 1, 4, dropout=0.0)
    chain = Chain(Encoder(5, (2,), (2,), 1, 4, dropout=0.0), encoder)
    assert_contract(
        chain, ragged(LENGTHS, 5), lambda n: strided(strided(n, 2), 2), zero_padding=False
    )


def test_dropout_ignores_padding_and_works_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = Encoder(11, (3,), (2,), 2, 4, dropout=0.5)
    x = ragged(LENGTHS, 11)
    assert_ignores_padding(encoder, x)
    y = encoder(x)
    for row in filter(len, y.unpad()):
        dropped = row == 0
        assert torch.equal(dropped.any(dim=0), dropped.all(dim=0))  # the same in every frame
    dropped = (y.values == 0).all(dim=1)
    assert 0.2 < float(dropped.float().mean()) < 0.8
    assert not torch.equal(dropped[0], dropped[2])  # but not in every utterance
    encoder.eval()
    assert torch.equal(encoder(x).values, encoder(x).values)


def test_locked_dropout_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = Padded(torch.ones(400, 3, 50), torch.full((400,), 3))
    y = locked_dropout(x, 0.25).values
    torch.testing.assert_close(y.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert float(y.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(y[:, 0], y[:, 2])
    assert_ignores_padding(lambda x: locked_dropout(x, 0.25), ragged(LENGTHS, 6))


def test_every_output_hears_the_whole_utterance_and_no_other() -> None:
    torch.manual_seed(0)
    encoder = Encoder(6, (3,), (2,), 1, 4, dropout=0.0).eval()
    x = ragged([8, 12], 6)
    values = x.values.clone().requires_grad_()
    y = encoder(Padded(values, x.lengths)).unpad()
    for i, t in itertools.product((0, 1), (0, 3)):
        (slope,) = torch.autograd.grad(y[i][t].square().sum(), values, retain_graph=True)
        heard = slope.abs().sum(dim=2) > 0
        assert bool(heard[i, : x.lengths[i]].all())
        assert not heard[i, x.lengths[i] :].any()
        assert not heard[1 - i].any()
