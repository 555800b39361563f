"""Covers `asr/models/config.py`."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from asr.models.config import ModelConfig
from asr.models.encoder import (
    WHOLE_SHARE,
    ConvolutionBlock,
    Encoder,
    LookaheadConvolution,
    draw_chunk,
    locked_dropout,
    split_chunks,
    stack_pairs,
    strided,
)
from asr.padded import Padded, pad
from tests.contracts import Chain, assert_contract, assert_ignores_padding, ragged

LENGTHS = [9, 1, 14, 0, 6]


def config(
    channels: tuple[int, ...], strides: tuple[int, ...], layers: int, **more: Any
) -> ModelConfig:
    settings = {"hidden": 4, "dropout": 0.0} | more
    return ModelConfig(channels=channels, strides=strides, layers=layers, **settings)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_strided_is_the_output_size_of_a_convolution(stride: int) -> None:
    convolution = nn.Conv1d(1, 1, 3, stride, padding=1)
    for size in range(1, 20):
        expected = convolution(torch.zeros(1, 1, size)).shape[2]
        assert strided(size, stride) == int(strided(torch.tensor(size), stride)) == expected
        assert expected == -(-size // stride)
    assert strided(0, stride) == 0


@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolution_block_contract(stride: int, pooling: bool) -> None:
    torch.manual_seed(0)
    block = ConvolutionBlock(2, 3, stride, pooling)
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
    encoder = Encoder(11, config(channels, strides, layers))
    x = ragged(LENGTHS, 11)
    assert_contract(encoder, x, encoder.output_lengths, zero_padding=False)
    assert encoder(x).values.shape[2] == 8


@pytest.mark.parametrize(
    "more",
    [
        {"cell": "gru", "residual": True, "dense": 8},
        {"cell": "projected", "projection": 3, "pyramid": 2},
        {"cell": "layer_norm", "bidirectional": False},
        {"cell": "light_gru", "pooling": True},
        {"cell": "peephole", "zoneout": 0.3, "weight_dropout": 0.2},
        {"chunk": 3, "right_context": 2},
        {"conv_lstm": 2, "attention_heads": 2},
        {"attention_heads": 4, "attention_window": 2, "pyramid": 1},
        {"chunk": 4, "cell": "peephole"},
        {"bidirectional": False, "lookahead": 3},
        {"directions": "alternating"},
    ],
)
def test_contract_of_other_encoders(more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = Encoder(11, config((3,), (2,), 3, **more))
    assert_contract(encoder, ragged(LENGTHS, 11), encoder.output_lengths, zero_padding=False)


def test_alternating_layers_see_the_whole_utterance_in_one_direction_each() -> None:
    encoder = Encoder(4, config((), (), 3, directions="alternating")).eval()
    assert [layer.backward for layer in encoder.layers] == [False, True, False]
    assert encoder.output_size == 4
    values = torch.randn(1, 5, 4, requires_grad=True)
    outputs = encoder.layer_outputs(Padded(values, torch.tensor([5])))
    for output, frames in zip(outputs, ([0, 1, 2], [0, 1, 2, 3, 4]), strict=False):
        (gradient,) = torch.autograd.grad(output.values[0, 2].sum(), values, retain_graph=True)
        assert gradient[0].abs().sum(1).nonzero().flatten().tolist() == frames


@pytest.mark.parametrize("more", [{"chunk": 2}, {"bidirectional": False}])
def test_alternating_directions_need_both_and_the_whole(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="alternating directions only with two directions"):
        config((), (), 3, directions="alternating", **more)


def test_pairs_are_joined_and_an_odd_frame_is_joined_to_silence() -> None:
    x = pad([torch.arange(1.0, 7.0).reshape(3, 2), torch.tensor([[8.0, 9.0]])])
    y = stack_pairs(x)
    assert y.lengths.tolist() == [2, 1]
    assert y.values.tolist() == [[[1, 2, 3, 4], [5, 6, 0, 0]], [[8, 9, 0, 0], [0, 0, 0, 0]]]
    assert_contract(stack_pairs, ragged(LENGTHS, 3), lambda lengths: strided(lengths, 2))


def test_a_residual_connection_adds_the_input_of_layers_of_equal_width() -> None:
    torch.manual_seed(0)
    plain = Encoder(8, config((), (), 2)).eval()
    residual = Encoder(8, config((), (), 2, residual=True)).eval()
    residual.load_state_dict(plain.state_dict())
    x = ragged(LENGTHS, 8)
    with torch.no_grad():
        first = plain.layers[0](plain.norms[0](x))
        first = Padded(x.values + first.values, x.lengths)
        second = plain.layers[1](plain.norms[1](first))
        expected = Padded(first.values + second.values, x.lengths)
        for row, wanted in zip(residual(x).unpad(), expected.unpad(), strict=True):
            torch.testing.assert_close(row, wanted)


def test_sizes_of_chunks_are_drawn_by_octave() -> None:
    torch.manual_seed(0)
    drawn = torch.tensor([draw_chunk(4, 31) for _ in range(3000)])
    assert set(drawn.tolist()) == {0, *range(4, 32)}
    octaves = [((drawn >= low) & (drawn < 2 * low)).double().mean() for low in (4, 8, 16)]
    shares = torch.stack([*octaves, (drawn == 0).double().mean()])
    expected = torch.tensor([(1 - WHOLE_SHARE) / 3] * 3 + [WHOLE_SHARE]).double()
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.03)
    assert {draw_chunk(5, 5) for _ in range(50)} == {0, 5}


def test_a_range_draws_the_chunks_of_each_batch_in_training_only() -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"right_context": 1, "residual": True}
    ranged = Encoder(8, config((), (), 2, chunk=(2, 20), **settings))
    fixed = {size: Encoder(8, config((), (), 2, chunk=size, **settings)) for size in range(2, 14)}
    fixed[0] = Encoder(8, config((), (), 2, residual=True))
    for other in fixed.values():
        other.load_state_dict(ranged.state_dict())
    x, seen = ragged(LENGTHS, 8), set()
    for seed in range(40):
        torch.manual_seed(seed)
        size = draw_chunk(2, 20)
        size = size if size < 14 else 0  # the longest utterance has 14 frames
        torch.manual_seed(seed)
        with torch.no_grad():
            found = ranged.train()(x).unpad()
            before = torch.get_rng_state()
            expected = fixed[size].train()(x).unpad()
            assert torch.equal(before, torch.get_rng_state())  # one size: nothing is drawn
        torch.testing.assert_close(found, expected)
        seen.add(size)
    assert len(seen) > 6
    for part in (ranged, fixed[0]):
        part.load_state_dict(ranged.state_dict())
    before = torch.get_rng_state()
    with torch.no_grad():
        torch.testing.assert_close(ranged.eval()(x).unpad(), fixed[0].eval()(x).unpad())
    assert torch.equal(before, torch.get_rng_state())


def test_encoder_after_another_layer_contract() -> None:
    torch.manual_seed(0)
    encoder = Encoder(8, config((3,), (2,), 1))
    chain = Chain(Encoder(5, config((2,), (2,), 1)), encoder)
    assert_contract(
        chain, ragged(LENGTHS, 5), lambda n: strided(strided(n, 2), 2), zero_padding=False
    )


def test_dropout_ignores_padding_and_works_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = Encoder(11, config((3,), (2,), 2, dropout=0.5))
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


@pytest.mark.parametrize("chunk", [0, 4])
def test_running_statistics_are_those_of_all_frames(chunk: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(5, config((), (), 1, chunk=chunk, dropout=0.5))
    x = ragged([40, 31], 5)
    ends = torch.arange(40)[None, :, None] > 35  # the last frames are others
    x = Padded(x.values + 3 * ends, x.lengths)
    for _ in range(80):
        encoder(x)
    rows = torch.cat(x.unpad())
    torch.testing.assert_close(
        encoder.norms[0].running_mean, rows.mean(dim=0), rtol=1e-2, atol=1e-2
    )


def test_dropout_is_the_same_in_every_chunk() -> None:
    torch.manual_seed(0)
    more = {"chunk": 4, "right_context": 2, "dropout": 0.5, "weight_dropout": 0.3, "zoneout": 0.0}
    encoder = Encoder(5, config((), (), 1, **more))
    y = encoder(ragged([11, 9], 5))
    for row in y.unpad():
        dropped = row == 0
        assert torch.equal(dropped.any(dim=0), dropped.all(dim=0))
    assert not torch.equal(y.values[0, 0] == 0, y.values[1, 0] == 0)


def test_chunks_overlap_by_their_context() -> None:
    x = pad([torch.arange(1.0, 8.0)[:, None], torch.arange(11.0, 14.0)[:, None]])
    pieces, count = split_chunks(x, 3, 2)
    assert count == 3
    assert pieces.values[:, :, 0].tolist() == [
        [1, 2, 3, 4, 5],
        [11, 12, 13, 0, 0],
        [4, 5, 6, 7, 0],
        [0, 0, 0, 0, 0],
        [7, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    assert pieces.lengths.tolist() == [5, 3, 4, 0, 1, 0]


def test_lookahead_is_the_weighted_sum_of_coming_frames() -> None:
    torch.manual_seed(0)
    layer = LookaheadConvolution(3, 2)
    nn.init.normal_(layer.weight)
    x = ragged([6, 4], 3)
    y = layer(x)
    for values, mixed in zip(x.unpad(), y.unpad(), strict=True):
        for t in range(len(values)):
            coming = values[t : t + 3]
            expected = (coming * layer.weight[: len(coming)]).sum(dim=0)
            torch.testing.assert_close(mixed[t], expected)


def test_a_conv_lstm_of_one_direction_does_not_hear_what_comes() -> None:
    torch.manual_seed(0)
    encoder = Encoder(6, config((), (), 1, conv_lstm=2, bidirectional=False))
    values = ragged([9], 6).values.requires_grad_()
    encoder.eval()(Padded(values, torch.tensor([9]))).values[0, 4].square().sum().backward()
    assert values.grad is not None
    heard = values.grad[0].abs().sum(dim=1) > 0
    assert heard.tolist() == [True] * 5 + [False] * 4


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
    encoder = Encoder(6, config((3,), (2,), 1)).eval()
    x = ragged([8, 12], 6)
    values = x.values.clone().requires_grad_()
    y = encoder(Padded(values, x.lengths)).unpad()
    for i, t in itertools.product((0, 1), (0, 3)):
        (slope,) = torch.autograd.grad(y[i][t].square().sum(), values, retain_graph=True)
        heard = slope.abs().sum(dim=2) > 0
        assert bool(heard[i, : x.lengths[i]].all())
        assert not heard[i, x.lengths[i] :].any()
        assert not heard[1 - i].any()
