from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from asr.features.transforms import (
    VARIANCE_FLOOR,
    GlobalNormalisation,
    append_deltas,
    normalise_utterance,
    stack_frames,
    stacked_lengths,
)
from asr.padded import Padded, pad
from tests.contracts import assert_contract, ragged

LENGTHS = [7, 1, 12, 0, 5]


def test_deltas_are_those_of_librosa() -> None:
    x = ragged([9, 5, 30], 4)
    once = append_deltas(x, 1).unpad()
    twice = append_deltas(x, 2).unpad()
    for row, one, two in zip(x.unpad(), once, twice, strict=True):
        delta = librosa.feature.delta(row.numpy(), width=5, axis=0, mode="nearest")
        delta_delta = librosa.feature.delta(delta, width=5, axis=0, mode="nearest")
        expected = np.concatenate([row.numpy(), delta, delta_delta], axis=1)
        np.testing.assert_allclose(two.numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one.numpy(), expected[:, :8], rtol=1e-4, atol=1e-5)


def test_the_delta_of_a_slope_is_the_slope_and_of_one_frame_zero() -> None:
    slope = 3.0 * torch.arange(10.0)[:, None]
    deltas = append_deltas(pad([slope, torch.ones(1, 1)]), 1).values[:, :, 1]
    torch.testing.assert_close(deltas[0, 2:-2], torch.full((6,), 3.0))
    # By hand at the first frame, with frame 0 repeated: (1 * (3 - 0) + 2 * (6 - 0)) / 10.
    torch.testing.assert_close(deltas[0, 0], torch.tensor(1.5))
    assert not deltas[1].any()


@pytest.mark.parametrize("order", [0, 1, 2])
def test_deltas_contract(order: int) -> None:
    # The first block is the input, its padding included: only the deltas promise zeros.
    assert_contract(lambda x: append_deltas(x, order), ragged(LENGTHS, 3), zero_padding=False)
    deltas = append_deltas(ragged(LENGTHS, 3), order)
    assert not deltas.values[~deltas.mask()].any()


def test_utterance_normalisation_by_hand() -> None:
    x = pad([torch.tensor([[1.0, 5.0], [3.0, 5.0]]), torch.tensor([[4.0, 2.0]])])
    y = normalise_utterance(x).values
    one = 1 / (1 + VARIANCE_FLOOR) ** 0.5
    expected = torch.tensor([[[-one, 0.0], [one, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(y, expected)


def test_utterance_normalisation_uses_each_utterances_own_frames() -> None:
    x = ragged([50, 30, 2], 3)
    shifted = Padded(x.values * torch.tensor([0.5, 2.0, 9.0])[:, None, None] + 7.0, x.lengths)
    for row in normalise_utterance(shifted).unpad():
        torch.testing.assert_close(row.mean(dim=0), torch.zeros(3), rtol=0, atol=1e-5)
        torch.testing.assert_close(row.var(dim=0, correction=0), torch.ones(3), rtol=0, atol=1e-3)


def test_utterance_normalisation_contract() -> None:
    assert_contract(normalise_utterance, ragged(LENGTHS, 3))


def test_global_statistics_by_hand() -> None:
    batches = [ragged([7, 1, 12], 3, seed=1), ragged([4, 0], 3, seed=2)]
    norm = GlobalNormalisation(3)
    for batch in batches:
        norm.observe(Padded(batch.values * 2 + 5, batch.lengths))
    frames = torch.cat([row * 2 + 5 for batch in batches for row in batch.unpad()])
    assert int(norm.frames) == len(frames) == 24
    y = norm(pad([frames])).values[0]
    expected = (frames - frames.mean(0)) / (frames.var(0, correction=0) + VARIANCE_FLOOR).sqrt()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_global_statistics_do_not_depend_on_batches_or_padding() -> None:
    x = ragged([7, 1, 12], 3)
    together, alone = GlobalNormalisation(3), GlobalNormalisation(3)
    together.observe(Padded(torch.where(x.mask()[:, :, None], x.values, torch.nan), x.lengths))
    for row in x.unpad():
        alone.observe(pad([row]))
    for name, value in together.state_dict().items():
        torch.testing.assert_close(value, alone.state_dict()[name])
        assert value.isfinite().all()


def test_global_statistics_of_a_large_mean_keep_their_precision() -> None:
    norm = GlobalNormalisation(1)
    values = 1e4 + torch.tensor([-1.0, 1.0] * 500)[:, None]
    norm.observe(pad([values]))
    one = 1 / (1 + VARIANCE_FLOOR) ** 0.5
    torch.testing.assert_close(norm(pad([values])).values[0], (values - 1e4) * one)


def test_before_any_observation_features_pass() -> None:
    x = ragged([3, 2], 4)
    assert torch.equal(GlobalNormalisation(4)(x).values, x.values)


def test_global_normalisation_contract() -> None:
    norm = GlobalNormalisation(3)
    norm.observe(ragged([20, 9], 3, seed=5))
    assert_contract(norm, ragged(LENGTHS, 3))


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (1, 3), (3, 2), (2, 5), (4, 4)])
def test_stacking(size: int, stride: int) -> None:
    x = ragged(LENGTHS, 2)
    y = stack_frames(x, size, stride)
    assert torch.equal(y.lengths, stacked_lengths(x.lengths, stride))
    for row, stacked in zip(x.unpad(), y.unpad(), strict=True):
        followed = torch.cat([row, torch.zeros(size, 2)])
        expected = [followed[t : t + size].flatten() for t in range(0, len(row), stride)]
        assert len(stacked) == len(expected)
        for frame, wanted in zip(stacked, expected, strict=True):
            assert torch.equal(frame, wanted)
    assert_contract(
        lambda x: stack_frames(x, size, stride), x, lambda lengths: stacked_lengths(lengths, stride)
    )
