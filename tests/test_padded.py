from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr import padded
from asr.padded import Padded, pad, pad_in_parts, pad_on
from tests.contracts import GARBAGE, ragged, refilled


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.sampled_from([(), (1,), (2, 3)]))
def test_pad_and_unpad_are_inverse(lengths: list[int], shape: tuple[int, ...]) -> None:
    rows = [torch.full((length, *shape), float(i + 1)) for i, length in enumerate(lengths)]
    padded = pad(rows)
    assert padded.values.shape == (len(lengths), max(lengths), *shape)
    assert padded.lengths.tolist() == lengths
    assert padded.lengths.dtype == torch.int64
    assert padded.mask().sum(dim=1).tolist() == lengths
    assert not padded.values[~padded.mask()].any()
    for row, expected in zip(padded.unpad(), rows, strict=True):
        assert torch.equal(row, expected)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_zeroed_keeps_frames_and_removes_garbage(shape: tuple[int, ...], garbage: float) -> None:
    x = ragged([2, 4, 0], *shape)
    cleaned = refilled(x, garbage, spare=2).zeroed()
    assert torch.equal(cleaned.values[:, :4], x.values)
    assert not cleaned.values[:, 4:].any()
    assert torch.equal(cleaned.lengths, x.lengths)


def test_zeroed_of_integers_stays_integer() -> None:
    units = Padded(torch.full((2, 2), 7), torch.tensor([1, 2])).zeroed().values
    assert units.tolist() == [[7, 0], [7, 7]]
    assert units.dtype == torch.int64


def test_no_gradient_leaves_or_enters_the_padding() -> None:
    values = torch.full((1, 3), math.nan)
    values[0, 0] = 2.0
    values.requires_grad_()
    Padded(values, torch.tensor([1])).zeroed().values.square().sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[4.0, 0.0, 0.0]]


def test_to_moves_values_and_lengths() -> None:
    moved = ragged([1, 2]).to("meta")
    assert moved.values.device.type == moved.lengths.device.type == "meta"


@pytest.mark.parametrize(
    ("lengths", "message"),
    [([2, 4], "from 0 to 3, got .2, 4."), ([-1, 3], "from 0 to 3"), ([2], "expected 2 lengths")],
)
def test_lengths_that_do_not_fit_are_refused(lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Padded(torch.zeros(2, 3, 5), torch.tensor(lengths))


def test_no_utterances_at_all_are_fine() -> None:
    assert not Padded(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).mask().any()


@pytest.mark.parametrize("lengths", [[5, 0, 3, 9, 1], [0, 0], [4], []])
def test_parts_are_padded_as_the_whole(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padded, "PINNED", 2 * 4 * 9)  # two rows
    rows = [torch.randn(length) for length in lengths]
    sizes: list[tuple[int, int]] = []

    def empty(*size: int) -> torch.Tensor:
        sizes.append((size[0], size[1]))
        return torch.full(size, torch.nan)

    found = pad_in_parts(rows, "cpu", empty)
    if rows:
        expected = pad(rows)
        assert torch.equal(found.values, expected.values)
        assert torch.equal(found.lengths, expected.lengths)
    assert found.lengths.dtype == torch.int64
    if len(lengths) == 5:
        assert sizes == [(2, 9), (2, 9), (1, 9)]


@pytest.mark.gpu
def test_pinned_parts_arrive_there() -> None:
    rows = [torch.randn(100_000 + i) for i in range(300)]
    there, expected = pad_on(rows, "cuda"), pad(rows)
    assert torch.equal(there.values.cpu(), expected.values)
    assert torch.equal(there.lengths.cpu(), expected.lengths)
    again = expected.pinned()
    assert again.values.is_pinned()
    assert torch.equal(again.to("cuda").values.cpu(), expected.values)
