"""What the shares of a batch draw is what the whole batch draws."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr import shares
from asr.augment.config import AugmentConfig, NoiseConfig, ReverbConfig
from asr.augment.noise import Sounds, degrade
from asr.augment.specaugment import spec_augment, warp_time
from asr.augment.waveform import perturb_gain
from asr.models.encoder import locked_dropout
from asr.padded import Padded

CPU = torch.device("cpu")
SIZE = 3


def of_whole_and_shares(compute: Callable[[Padded], Tensor], batch: Padded) -> None:
    """Check that the shares of a batch give the rows of the whole batch."""
    torch.manual_seed(1)
    whole = compute(batch)
    total = len(batch.lengths)
    for rank in range(SIZE):
        share = shares.share_of(total, rank, SIZE)
        with shares.sharing(share):
            torch.manual_seed(1)
            part = compute(Padded(batch.values[share.rows], batch.lengths[share.rows]))
        torch.testing.assert_close(part, whole[share.rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("total", [1, 2, 7])
def test_every_utterance_counts_in_one_share(total: int) -> None:
    places = torch.arange(total)
    found = [shares.share_of(total, rank, SIZE) for rank in range(SIZE)]
    counted = [i for share in found if share.real for i in places[share.rows].tolist()]
    assert sorted(counted) == places.tolist()
    assert all(len(places[share.rows]) == share.count > 0 for share in found)


@pytest.mark.parametrize("total", [1, 2, 7])
def test_augmentation_does_not_depend_on_the_share(total: int) -> None:
    torch.manual_seed(0)
    waves = Padded(torch.randn(total, 4000), torch.full((total,), 4000))
    features = Padded(torch.randn(total, 60, 8), torch.full((total,), 60))
    augment = AugmentConfig(
        noise=NoiseConfig(prob=0.5),
        reverb=ReverbConfig(prob=0.5, rt60=(0.1, 0.2)),
        telephone_prob=0.5,
        lower_rate_prob=0.5,
        time_mask_frames=9,
        frequency_mask_bands=3,
    )
    noise = (1000 * torch.randn(5000)).to(torch.int16)
    for responses in ((), (torch.randn(30), torch.randn(40))):
        sounds = Sounds(8000, noise, responses)
        of_whole_and_shares(lambda x, s=sounds: degrade(x, augment, s).values, waves)  # type: ignore[misc]
    of_whole_and_shares(lambda x: perturb_gain(x, 6.0).values, waves)
    of_whole_and_shares(lambda x: warp_time(x, 5).values, features)
    of_whole_and_shares(lambda x: spec_augment(x, augment).values, features)


def test_dropout_does_not_depend_on_the_share() -> None:
    torch.manual_seed(0)
    features = Padded(torch.randn(5, 20, 8), torch.full((5,), 20))
    of_whole_and_shares(lambda x: locked_dropout(x, 0.5).values, features)
    of_whole_and_shares(lambda x: shares.dropout(x.values, 0.5, training=True), features)

    def two_views(x: Padded) -> Tensor:
        twice = Padded(x.values.repeat(2, 1, 1), x.lengths.repeat(2))
        return locked_dropout(twice, 0.5).values.unflatten(0, (2, -1)).transpose(0, 1)

    of_whole_and_shares(two_views, features)


def test_no_exchange_of_a_step_is_hidden() -> None:
    """A process that has failed makes up for exchanges that `shares.make` knows."""
    asr = Path(shares.__file__).parent
    own = {"shares.py", "training/gradients.py", "training/distributed.py"}
    users = {
        path.relative_to(asr).as_posix()
        for path in asr.rglob("*.py")
        if "torch.distributed" in path.read_text("utf-8")
    }
    assert users == own
    made = inspect.getsource(shares)[inspect.getsource(shares).index("def make(") :]
    calls = [line for line in made.splitlines() if re.search(r"dist\.all_", line)]
    assert calls
    assert all("lambda" in line for line in calls)


def test_without_a_share_all_is_plain() -> None:
    torch.manual_seed(1)
    plain = torch.rand(4, 2)
    torch.manual_seed(1)
    assert shares.rand(4, 2, device=CPU).equal(plain)
    values = torch.tensor([1.0, 2.0])
    assert shares.gather_batch(values) is values
    assert shares.objective(values) is values
    assert shares.current() is None
