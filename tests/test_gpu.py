"""What only a GPU can show: the same layers there, and a whole training in half precision."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from asr.ctc.loss import ctc_loss
from asr.evaluation.run import evaluate
from asr.features.extractor import FeatureConfig, FeatureExtractor
from asr.models.recurrent import RecurrentLayer
from asr.padded import Padded
from tests.contracts import ragged
from tests.tones import run_quietly, tone_recipe, write_corpus

pytestmark = pytest.mark.gpu

LENGTHS = [7, 30, 1, 19]


def test_a_layer_gives_the_same_there() -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(12, 16)
    x = ragged(LENGTHS, 12)
    expected = layer(x).zeroed().values
    there = copy.deepcopy(layer).cuda()(x.to("cuda")).zeroed().values
    assert torch.allclose(there.cpu(), expected, atol=1e-4)


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
