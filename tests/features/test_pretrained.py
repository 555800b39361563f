"""Features from a pretrained network. The contract is in `test_pretrained_network.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import asr.features.pretrained as module
from asr.features.pretrained import PretrainedFeatures
from asr.features.pretrained_files import load_network, read_network
from asr.features.pretrained_network import hidden_states
from asr.features.state_cache import StateCache
from asr.padded import Padded
from tests.contracts import ragged
from tests.pretrained import write_network

WAVES = ragged([900, 400, 44, 0])


@pytest.fixture
def layer(tmp_path: Path) -> PretrainedFeatures:
    folder = write_network(tmp_path / "network")
    made = PretrainedFeatures(read_network(folder, ""))
    load_network(made.network, folder)
    with torch.no_grad():
        made.mix.copy_(torch.tensor([0.0, 1.0, 2.0]))
    return made


def test_features_are_the_weighted_sum(layer: PretrainedFeatures) -> None:
    states = hidden_states(layer.network, layer.description, WAVES).values
    shares = torch.tensor([0.0, 1.0, 2.0]).exp()
    shares /= shares.sum()
    expected = sum(share * states[:, :, i] for i, share in enumerate(shares))
    torch.testing.assert_close(layer(WAVES).values, expected)


@pytest.mark.parametrize("fine_tuned", [False, True])
def test_gradients_reach_what_is_trained(layer: PretrainedFeatures, fine_tuned: bool) -> None:
    layer.freeze(fine_tuned)
    layer.fine_tunes = fine_tuned
    layer(WAVES).values.square().sum().backward()
    assert layer.mix.grad is not None
    reached = {name for name, p in layer.network.named_parameters() if p.grad is not None}
    assert reached == {name for name in dict(layer.network.named_parameters())
                       if fine_tuned and name.startswith("encoder.")}  # fmt: skip


def test_batches_in_pieces_are_the_same(
    layer: PretrainedFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = layer(WAVES).values
    monkeypatch.setattr(module, "MOST_SECONDS", 0.2)  # a row at a time
    torch.testing.assert_close(layer(WAVES).values, whole)


def test_cached_states_are_the_same(layer: PretrainedFeatures, tmp_path: Path) -> None:
    expected = layer(WAVES).values
    layer.cache = StateCache(tmp_path / "states", "x", 10**6)
    layer.train()
    torch.testing.assert_close(layer(WAVES).values, expected)
    assert not list(layer.cache.folder.iterdir())  # waveforms may change in training
    layer.eval()
    first = layer(Padded(WAVES.values[:2], WAVES.lengths[:2])).values
    assert len(list(layer.cache.folder.iterdir())) == 2
    torch.testing.assert_close(first, expected[:2])
    # Two of four come from the disk, then all; other files would change the result.
    torch.testing.assert_close(layer(WAVES).values, expected)
    layer.network.requires_grad_(False).encoder.transformer.layers[0].layer_norm.weight.zero_()
    torch.testing.assert_close(layer(WAVES).values, expected)
    layer.cache_in_training = True
    torch.testing.assert_close(layer.train()(WAVES).values, expected)
    layer.cache = None
    assert not torch.allclose(layer(WAVES).values, expected)
