from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from asr.errors import ConfigError
from asr.models.attention import (
    SHORTEST_BLOCK,
    AttentionPooling,
    SelfAttention,
    full_attention,
    windowed_attention,
)
from asr.padded import Padded, pad
from tests.contracts import assert_contract, assert_ignores_padding, ragged

SIZE, HEADS = 6, 2
LENGTHS = [7, 1, 12, 0]


def layer_of(window: int | None = None, dropout: float = 0.0, size: int = SIZE) -> SelfAttention:
    torch.manual_seed(0)
    layer = SelfAttention(size, HEADS, window, dropout)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # no bias stays zero
    return layer


def plainly(layer: SelfAttention, x: Tensor, window: int) -> Tensor:
    """One utterance alone, head after head, query after query. Shape: [T, F] -> [T, F]."""
    rows = layer.project(layer.norm(x)).split(SIZE // HEADS, dim=1)
    heads = []
    for n in range(HEADS):
        q, k, v = rows[n], rows[HEADS + n], rows[2 * HEADS + n]
        outputs = []
        for t in range(len(x)):
            near = slice(max(0, t - window), t + window + 1)
            weights = torch.softmax(k[near] @ q[t] / math.sqrt(SIZE // HEADS), dim=0)
            outputs.append(weights @ v[near])
        heads.append(torch.stack(outputs))
    return x + layer.output(torch.cat(heads, dim=1))


@pytest.mark.parametrize("window", [None, 0, 1, 3, 40])
def test_is_the_attention_of_the_paper(window: int | None) -> None:
    layer, x = layer_of(window).double(), ragged([7, 1, 75], SIZE)
    x = Padded(x.values.double(), x.lengths)
    y = layer(x)
    for row, output in zip(x.unpad(), y.unpad(), strict=True):
        expected = plainly(layer, row, len(row) if window is None else window)
        torch.testing.assert_close(output, expected)


def banded(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, window: int) -> Tensor:
    """Attention by the whole matrix of scores; zeros where a frame is padding."""
    t = torch.arange(q.shape[2])
    real = (t < lengths[:, None])[:, None, :, None]
    near = (t[:, None] - t).abs() <= window
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    scores = scores.masked_fill(~(near & real.transpose(2, 3)), -1e30)
    return torch.where(real, torch.softmax(scores, dim=3) @ v, 0.0)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 150), min_size=1, max_size=4), st.integers(0, 80), st.integers(0, 3))
def test_windowed_equals_full_attention_with_a_band(
    lengths: list[int], window: int, spare: int
) -> None:
    T = max(lengths) + spare
    random = torch.Generator().manual_seed(T)
    given = torch.randn(3, len(lengths), 2, T, 3, generator=random, dtype=torch.float64)
    slope = torch.randn(given.shape[1:], generator=random, dtype=torch.float64)
    ends = torch.tensor(lengths)
    real = Padded(given[0, :, 0], ends).mask()[:, None, :, None]
    results = []
    for attend in (windowed_attention, banded):
        qkv = given.clone().requires_grad_()
        q, k, v = qkv
        y = torch.where(real, attend(q, k, v, ends, window), 0.0)
        (y * slope).sum().backward()
        assert qkv.grad is not None
        results.append((y.detach(), qkv.grad))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_a_window_that_reaches_everywhere_is_full_attention() -> None:
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, HEADS, 50, 3, generator=random)
    lengths = torch.tensor([50, 20])
    full = full_attention(q, k, v, lengths)
    windowed = windowed_attention(q, k, v, lengths, 49)
    for i, length in enumerate(lengths):
        torch.testing.assert_close(windowed[i, :, :length], full[i, :, :length])


@pytest.mark.parametrize("window", [None, 0, 2, 11])
def test_contract(window: int | None) -> None:
    assert_contract(layer_of(window), ragged(LENGTHS, SIZE))


def test_contract_over_several_blocks() -> None:
    assert_contract(layer_of(3), ragged([2 * SHORTEST_BLOCK + 5, 9, SHORTEST_BLOCK, 0], SIZE))


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("frames", [0, 1, 9])
def test_utterances_without_frames_give_zeros_and_finite_gradients(
    window: int | None, frames: int
) -> None:
    layer = layer_of(window)
    values = torch.full((2, frames, SIZE), torch.nan, requires_grad=True)
    y = layer(Padded(values, torch.tensor([0, 0])))
    assert y.values.shape == values.shape
    assert not y.values.any()
    y.values.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


def plain_kernel(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """torch's kernel as its formula stands: NaN for a query that sees no key."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return torch.softmax(scores.masked_fill(~seen, -math.inf), dim=-1) @ v


@pytest.mark.parametrize("window", [None, 2])
def test_no_query_is_without_a_key(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some kernels of torch answer such a query with zeros; nothing here may depend on which runs.
    x, layer = ragged([70, 0, 9], SIZE), layer_of(window)
    expected = layer(x).values
    monkeypatch.setattr(functional, "scaled_dot_product_attention", plain_kernel)
    y = layer(x).values
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("window", [0, 2, 5])
def test_a_frame_reaches_just_its_window(window: int) -> None:
    layer, x = layer_of(window), ragged([100], SIZE)
    changed = x.values.clone()
    changed[0, 50, 0] += 1.0
    moved = (layer(x).values != layer(Padded(changed, x.lengths)).values).any(dim=2)[0]
    assert moved.nonzero().flatten().tolist() == list(range(50 - window, 51 + window))


def test_dropout_acts_on_what_is_added_and_in_training_only() -> None:
    x = ragged([60, 40], SIZE)
    layer = layer_of(4, dropout=0.5)
    assert_ignores_padding(layer, x)
    layer.eval()
    added = torch.cat(layer(x).unpad()) - torch.cat(x.unpad())
    layer.train()
    torch.manual_seed(1)
    drawn = torch.cat(layer(x).unpad()) - torch.cat(x.unpad())
    dropped = drawn == 0
    assert 0.4 < dropped.float().mean() < 0.6
    torch.testing.assert_close(drawn[~dropped], 2 * added[~dropped], rtol=1e-4, atol=1e-5)


class MadeBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are ever made: no less than what is held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor) and not function.is_view:
                self.total += tensor.nbytes
        return made


def made_bytes(layer: nn.Module, frames: int) -> int:
    """By one training step over an utterance of so many frames."""
    x = ragged([frames], SIZE)
    with MadeBytes() as made:
        layer(x).values.sum().backward()
    return made.total


def test_memory_of_a_window_grows_as_the_frames_do() -> None:
    frames, window = 20_000, 32
    layer = layer_of(window)
    total = made_bytes(layer, frames)
    # A matrix of frames by frames holds 1.6 GB in float32, and that once for each head.
    assert total < 150 * 2**20
    assert total < 2.2 * made_bytes(layer, frames // 2)
    # The gauge does see such a matrix.
    assert made_bytes(_WholeMatrix(layer, window), 2000) > 2 * 2000**2 * 4


class _WholeMatrix(nn.Module):
    """The same attention by `banded`."""

    def __init__(self, layer: SelfAttention, window: int) -> None:
        super().__init__()
        self.layer, self.window = layer, window

    def forward(self, x: Padded) -> Padded:
        projected = self.layer.project(x.values).unflatten(2, (3, HEADS, -1))
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        y = banded(q, k, v, x.lengths, self.window)
        return Padded(y.transpose(1, 2).flatten(2), x.lengths)


@pytest.mark.parametrize(
    ("size", "heads", "window", "dropout", "message"),
    [
        (6, 4, None, 0.0, "expected heads that divide the size, got 4 heads for a size of 6"),
        (6, 0, None, 0.0, "got 0 heads"),
        (0, 1, None, 0.0, "size of 0"),
        (6, 2, -1, 0.0, "expected a window of 0 frames or more, got -1"),
        (6, 2, None, 1.0, "expected dropout from 0 to below 1, got 1.0"),
    ],
)
def test_sizes_that_do_not_fit(
    size: int, heads: int, window: int | None, dropout: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        SelfAttention(size, heads, window, dropout)
    assert "\n" not in str(error.value)


# --- pooling ---


class Pooled(nn.Module):
    """Pooling as a layer that gives one frame, so that the contract can be put to it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pooling = AttentionPooling(SIZE)

    def forward(self, x: Padded) -> Padded:
        return Padded(self.pooling(x)[:, None], torch.ones_like(x.lengths))


def test_contract_of_pooling() -> None:
    assert_contract(Pooled(), ragged(LENGTHS, SIZE), torch.ones_like)


def test_pooling_is_the_attention_of_the_paper() -> None:
    pooling, x = Pooled().pooling, ragged(LENGTHS, SIZE)
    expected = []
    for row in x.unpad():
        u = torch.tanh(row @ pooling.hidden.weight.T + pooling.hidden.bias)
        weights = torch.softmax(u @ pooling.score.weight[0], dim=0)
        expected.append((weights[:, None] * row).sum(dim=0))
    y = pooling(x)
    torch.testing.assert_close(y, torch.stack(expected))
    assert not y[LENGTHS.index(0)].any()


def test_pooling_attends_to_what_scores_high_and_not_to_where_it_stands() -> None:
    pooling = Pooled().pooling
    with torch.no_grad():
        pooling.hidden.weight.copy_(torch.eye(SIZE))
        pooling.hidden.bias.zero_()
        pooling.score.weight.copy_(50.0 * torch.eye(SIZE)[:1])  # the first feature counts
    x = ragged([9], SIZE)
    loudest = x.values[0, x.values[0, :, 0].argmax()]
    torch.testing.assert_close(pooling(x)[0], loudest, rtol=0.05, atol=0.05)
    torch.testing.assert_close(pooling(pad([x.values[0].flip(0)])), pooling(x))


def test_pooling_of_a_batch_without_frames_is_zero() -> None:
    pooling = Pooled().pooling
    y = pooling(Padded(torch.full((2, 4, SIZE), torch.nan), torch.tensor([0, 0])))
    assert y.tolist() == [[0.0] * SIZE] * 2
    assert pooling(Padded(torch.zeros(2, 0, SIZE), torch.tensor([0, 0]))).shape == (2, SIZE)


def test_pooling_needs_a_size() -> None:
    with pytest.raises(ConfigError, match="expected a size of 1 or more, got 0"):
        AttentionPooling(0)
