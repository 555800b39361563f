"""What only a GPU can show: the same layers there, and a whole training in half precision."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asr.ctc.loss import ctc_loss
from asr.evaluation.evaluate import evaluate
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.models import recurrent
from asr.models.recurrent import RecurrentLayer
from asr.padded import Padded
from tests.contracts import Chain, ragged
from tests.tones import run_quietly, tone_recipe, write_corpus

pytestmark = pytest.mark.gpu

LENGTHS = [7, 30, 1, 19]


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN otherwise rounds what it multiplies to ten bits (TF32)."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("cell", ["lstm", "gru", "layer_norm"])
def test_a_layer_gives_the_same_there(cell: str) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(12, 16, cell)
    x = ragged(LENGTHS, 12)
    expected = layer(x).zeroed().values
    there = copy.deepcopy(layer).cuda()(x.to("cuda")).zeroed().values
    assert torch.allclose(there.cpu(), expected, atol=1e-4)


@pytest.mark.usefixtures("full_precision")
def test_directions_side_by_side_give_what_they_give_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Large enough that both are at work at once, and that freed memory is soon wanted again.
    torch.manual_seed(0)
    layers = Chain(*(RecurrentLayer(512, 256) for _ in range(4))).cuda()
    batches = [ragged([90 + (7 * i + n) % 60 for i in range(64)], 512).to("cuda") for n in range(4)]

    def outcomes() -> list[Tensor]:
        results = []
        for x in batches:
            y = layers(x).zeroed().values
            layers.zero_grad()
            y.square().mean().backward()
            results.append(y.detach())
            results += [p.grad.clone() for p in layers.parameters() if p.grad is not None]
        return results

    together = outcomes()
    monkeypatch.setattr(
        recurrent, "side_by_side", lambda first, second, shared: (first(), second())
    )
    for got, wanted in zip(together, outcomes(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-7)


def test_features_are_the_same_there() -> None:
    waves = ragged([16000, 4000, 900], 1)
    waves = Padded(0.1 * waves.values[:, :, 0], waves.lengths)
    extractor = FeatureExtractor(FeatureConfig())
    expected = extractor(waves).zeroed().values
    there = extractor.cuda()(waves.to("cuda")).zeroed().values
    assert torch.allclose(there.cpu(), expected, atol=1e-2)


def test_the_loss_is_the_same_there() -> None:
    torch.manual_seed(0)
    scores = Padded(torch.randn(2, 9, 5).log_softmax(2), torch.tensor([9, 6]))
    targets = Padded(torch.tensor([[1, 1, 4], [2, 0, 0]]), torch.tensor([3, 1]))
    there = ctc_loss(scores.to("cuda"), targets.to("cuda"))
    assert torch.allclose(there.cpu(), ctc_loss(scores, targets), atol=1e-4)


def test_tones_are_learnt_in_half_precision(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 40, "dev": 10, "test": 20})
    recipe = tone_recipe(
        manifests, tmp_path / "out", epochs=15, learning_rate=0.02, precision="auto"
    )
    model, shown = run_quietly(recipe)
    assert "cuda, fp16" in shown
    assert evaluate(model, manifests["test"]).report.scores.words.rate <= 0.1
