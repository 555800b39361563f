from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr.errors import CheckpointError, ConfigError
from asr.features.extractor import FeatureConfig
from asr.features.filterbank import Distortion
from asr.models.classifier import (
    Classifier,
    ClassifierBundle,
    checked_classes,
    load_classifier,
    normalise_level,
    save_classifier,
)
from asr.models.config import ModelConfig
from asr.padded import Padded, pad
from tests.contracts import assert_contract, assert_ignores_padding, ragged, refilled

LENGTHS = [9, 1, 14, 0, 6]
CLASSES = ("no", "perhaps", "yes")
FILES = ["config.json", "info.json", "model.safetensors"]


def config(**more: Any) -> ModelConfig:
    settings = {"channels": (2,), "strides": (2,), "layers": 1, "hidden": 4, "dropout": 0.0}
    return ModelConfig(**(settings | more))


class AsLayer(torch.nn.Module):
    """A classifier as the contracts want it: its scores are one frame."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        # Without the extractor, which `forward` has no use for.
        self.encoder, self.pooling = model.encoder, model.pooling
        self.dropout, self.output = model.dropout, model.output

    def forward(self, features: Padded) -> Padded:
        scores = Classifier.forward(self, features)  # type: ignore[arg-type]
        return Padded(scores[:, None], torch.ones_like(features.lengths))


def make_bundle(inputs: FeatureConfig | int) -> ClassifierBundle:
    """A small model with statistics of its own."""
    torch.manual_seed(0)
    model = Classifier(inputs, config(), len(CLASSES), level_db=-35.0)
    x = ragged([3000, 1000]) if model.extractor else ragged(LENGTHS, 11)
    if model.extractor is not None:
        model.extractor.observe(x)
    model(model.extract(x))
    return ClassifierBundle(model.eval(), CLASSES, {"corpus": "toy"})


RECORDINGS = FeatureConfig(sample_rate=8000, bands=12, cmvn="global", deltas=1)


@pytest.fixture(params=[RECORDINGS, 11], ids=["recordings", "sequences"])
def bundle(request: pytest.FixtureRequest) -> ClassifierBundle:
    return make_bundle(request.param)


@pytest.fixture
def folder(bundle: ClassifierBundle, tmp_path: Path) -> Path:
    save_classifier(tmp_path / "model", bundle)
    return tmp_path / "model"


def example(bundle: ClassifierBundle) -> Padded:
    return ragged([2500, 900], seed=2) if bundle.model.extractor else ragged([9, 4], 11, seed=2)


@pytest.mark.parametrize("more", [{}, {"cell": "gru", "bidirectional": False, "layers": 2}])
def test_classifier_contract(more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Classifier(11, config(**more), 3)
    assert model(ragged(LENGTHS, 11)).shape == (5, 3)
    assert_contract(AsLayer(model), ragged(LENGTHS, 11), torch.ones_like)


def test_dropout_ignores_padding_and_works_in_training_only() -> None:
    torch.manual_seed(0)
    model = Classifier(11, config(dropout=0.5), 3)
    x = ragged(LENGTHS, 11)
    assert_ignores_padding(AsLayer(model), x)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_every_frame_is_heard_and_no_other_sequence() -> None:
    torch.manual_seed(0)
    model = Classifier(6, config(bidirectional=False, channels=(), strides=()), 3).eval()
    x = ragged([8, 12], 6)
    values = x.values.clone().requires_grad_()
    for i in (0, 1):
        scores = model(Padded(values, x.lengths))
        (slope,) = torch.autograd.grad(scores[i].square().sum(), values)
        heard = slope.abs().sum(dim=2) > 0
        assert bool(heard[i, : x.lengths[i]].all())
        assert not heard[i, x.lengths[i] :].any()
        assert not heard[1 - i].any()


def test_recordings_become_features_and_features_stay() -> None:
    recordings, sequences = make_bundle(RECORDINGS).model, make_bundle(11).model
    waves, features = ragged([3000, 800]), ragged([9, 4], 11)
    assert recordings.extract(waves).values.shape == (2, 1 + 3000 // 80, 24)
    warped = recordings.extract(waves, Distortion(torch.tensor([1.1, 1.0]))).unpad()
    plain = recordings.extract(waves).unpad()
    assert not torch.equal(warped[0], plain[0])
    assert torch.equal(warped[1], plain[1])
    assert sequences.extract(features) is features


def test_recordings_of_any_level_give_the_same() -> None:
    model = make_bundle(RECORDINGS).model
    waves = ragged([3000, 800, 1000])
    waves.values[2] = 0.0
    expected = normalise_level(waves, -40.0)
    assert not expected.values[2].any()
    for row in expected.unpad()[:2]:
        assert float(row.square().mean().sqrt()) == pytest.approx(0.01)
    gains = torch.tensor([0.01, 30.0, 1.0])
    louder = Padded(waves.values * gains[:, None], waves.lengths)
    torch.testing.assert_close(model.extract(louder).values, model.extract(waves).values)
    louder = normalise_level(refilled(louder, math.nan, 9), -40.0)
    torch.testing.assert_close(louder.values[:, :3000], expected.values)
    assert not louder.values[~louder.mask()].any()


def test_probabilities_are_those_of_evaluation_and_leave_the_mode(
    bundle: ClassifierBundle,
) -> None:
    x = example(bundle)
    expected = bundle.log_probs(x)
    torch.testing.assert_close(expected.exp().sum(dim=1), torch.ones(2))
    assert not expected.requires_grad
    bundle.model.train()
    assert torch.equal(bundle.log_probs(refilled(x, math.nan)), expected)
    assert bundle.model.training
    alone = [name for row in x.unpad() for name in bundle.classify(pad([row]))]
    assert bundle.classify(x) == alone == [CLASSES[i] for i in expected.argmax(dim=1)]


@pytest.mark.parametrize("classes", [[], ["yes"], ["yes", "no", "yes"]])
def test_too_few_or_equal_classes_are_refused(classes: list[str]) -> None:
    with pytest.raises(ConfigError, match="different names"):
        checked_classes(classes)


# --- on disk ---


def test_what_was_saved_comes_back(bundle: ClassifierBundle, folder: Path) -> None:
    loaded = load_classifier(folder)
    assert (loaded.classes, loaded.info) == (CLASSES, {"corpus": "toy"})
    assert loaded.model.inputs == bundle.model.inputs
    assert loaded.model.config == bundle.model.config
    assert not loaded.model.training
    assert torch.equal(loaded.log_probs(example(bundle)), bundle.log_probs(example(bundle)))
    assert sorted(path.name for path in folder.iterdir()) == FILES


@pytest.mark.parametrize("name", FILES)
def test_missing_and_broken_files_are_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for broken in (content[: len(content) // 2], b"", b"[1]", b"\xff\xfe\x80"):
        (folder / name).write_bytes(broken)
        assert name in refused(folder)
    (folder / name).unlink()
    assert name in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"classes": ["yes"]},
        {"classes": ["a", "b"]},
        {"inputs": 0},
        {"inputs": "mel"},
        {"inputs": 10**30},
        {"model": {"hidden": 8192, "layers": 32}},
        {"model": {"hidden": 0}},
        {"surprise": 1},
    ],
)
def test_a_configuration_that_does_not_fit_is_one_line(
    folder: Path, change: dict[str, Any]
) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | change))
    assert str(folder) in refused(folder)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["output.bias"] = torch.zeros(7)
    save_file(weights, folder / "model.safetensors")
    assert "output.bias" in refused(folder)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused(tmp_path / "none")
    for name in ("config.json", "info.json"):
        (tmp_path / name).write_text('{"format": 1, "text": {}}')
    assert "expected a classifier" in refused(tmp_path)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_classifier(folder)
    message = str(error.value)
    assert "\n" not in message
    return message
