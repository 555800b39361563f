"""Recognition in half precision, as on a GPU.

Covers `asr/models/bundle.py`, with `test_bundle.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asr.models.bundle import Bundle, in_half
from asr.padded import pad
from tests.contracts import ragged
from tests.models.test_bundle import make_bundle, outputs


@pytest.fixture
def bundle() -> Bundle:
    return make_bundle()


@pytest.mark.filterwarnings("ignore:LSTM layers run in float32")
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_half_precision_gives_nearly_the_same_in_float32(bundle: Bundle, kind: torch.dtype) -> None:
    features = bundle.model.features(ragged([2500, 900], seed=2))
    scores, spelled = in_half(bundle.model, features, kind)
    expected = outputs(bundle)
    assert spelled is None
    assert scores.values.dtype == torch.float32
    assert torch.equal(scores.lengths, expected.lengths)
    differences = (scores.zeroed().values - expected.zeroed().values).abs()
    assert 0 < differences.max() < 0.05


@pytest.mark.filterwarnings("ignore:LSTM layers run in float32")
@torch.inference_mode()
def test_numbers_too_large_for_half_precision_are_computed_in_float32() -> None:
    bundle = make_bundle()
    bundle.model.output.weight.mul_(1e6)
    features = bundle.model.features(ragged([2500, 900], seed=2))
    scores, _ = in_half(bundle.model, features)
    assert torch.equal(scores.values, outputs(bundle).values)


@pytest.mark.gpu
def test_a_gpu_gives_nearly_the_scores_of_a_processor(bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    waves = [random.normal(0, 0.1, count).astype(np.float32) for count in (9000, 2500, 900)]
    found, _ = bundle.score(waves)
    bundle.model.cpu()
    expected = bundle.model(bundle.model.features(pad([torch.from_numpy(wave) for wave in waves])))
    assert found.values.is_cuda
    differences = found.to("cpu").zeroed().values - expected.zeroed().values
    assert differences.abs().max() < 0.05
