"""Training with a pretrained network: fixed, fine-tuned, resumed, and used elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from asr.augment.config import AugmentConfig
from asr.config import parse
from asr.errors import AsrError, ConfigError, TrainingError
from asr.export.onnx_folder import build_graph
from asr.export.sherpa import choose_slot
from asr.features.extractor import FeatureConfig
from asr.features.pretrained_files import load_network, read_network
from asr.features.pretrained_network import build
from asr.inference.streaming import Stream
from asr.io import caches
from asr.io.tensors import read_tensors
from asr.models.bundle import load_bundle
from asr.models.classifier import Classifier
from asr.models.config import ModelConfig
from asr.sharing.card import rows
from asr.sharing.facts import read_facts
from asr.training import distributed, loop
from asr.training.pretrained_features import with_network
from asr.training.recipe import Recipe, read_recipe
from asr.training.trainer import train
from tests.pretrained import write_network
from tests.tones import one_thread, tone_recipe, write_corpus

NETWORK = ModelConfig(channels=(), strides=(), layers=1, hidden=8)
START = "features.pretrained."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Manifests, a pretrained network, and caches of their own."""
    folder = tmp_path_factory.mktemp("pretrained")
    write_corpus(folder, {"train": 6, "dev": 3})
    write_network(folder / "network", conv_stride=[5, 16])
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setenv("XDG_CACHE_HOME", str(folder / "caches"))
        caches.private_folder.cache_clear()
        yield folder
    caches.private_folder.cache_clear()


def recipe_of(place: Path, out: str, **features: object) -> Recipe:
    settings = {"kind": "pretrained", "sample_rate": 8000, "pretrained": str(place / "network")}
    manifests = {part: place / f"{part}.jsonl" for part in ("train", "dev")}
    base = tone_recipe(manifests, place / out, epochs=2)
    return base.model_copy(
        update={
            "features": FeatureConfig.model_validate(settings | features),
            "model": NETWORK,
        }
    )


def run(recipe: Recipe, hook: loop.Hook = lambda task: task) -> tuple[dict[str, Tensor], str]:
    """The weights of the last epoch, and what was said."""
    said = StringIO()
    train(recipe, Console(file=said, width=1000), hook=hook)
    return epoch_of(recipe, 2), said.getvalue()


def epoch_of(recipe: Recipe, number: int) -> dict[str, Tensor]:
    return read_tensors(recipe.out / "epochs" / f"epoch-000{number}" / "model.safetensors")


def network_of(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, under their names in a model."""
    network = build(read_network(folder, ""))
    load_network(network, folder)
    return {f"{START}network.{name}": tensor for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def fixed(place: Path) -> tuple[dict[str, Tensor], str]:
    return run(recipe_of(place, "fixed"))


def test_a_fixed_network_stays_and_its_mix_is_learnt(
    place: Path, fixed: tuple[dict[str, Tensor], str]
) -> None:
    weights, said = fixed
    model = load_bundle(place / "fixed" / "model").model.state_dict()
    for name, tensor in network_of(place / "network").items():
        assert torch.equal(model[name], tensor.half().float()), name
        assert name not in weights  # it is not in checkpoints
    assert weights[START + "mix"].abs().max() > 1e-3
    assert "hidden states of 0.00 hours take 0.0 GB; at most 20 GB" in said
    stored = list((place / "caches" / "asr" / "hidden-states").iterdir())
    assert len(stored) == 9  # each recording of train and dev once


def test_the_cache_changes_nothing(place: Path, fixed: tuple[dict[str, Tensor], str]) -> None:
    stored = place / "caches" / "asr" / "hidden-states"
    again, _ = run(recipe_of(place, "again"))
    for name, tensor in fixed[0].items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-4, atol=1e-5)
    assert len(list(stored.iterdir())) == 9
    changed = recipe_of(place, "changed", cache_gb=0)
    without, said = run(changed)
    assert "hidden states" not in said
    for name, tensor in fixed[0].items():
        torch.testing.assert_close(without[name], tensor, rtol=1e-4, atol=1e-5)


def test_augmented_recordings_are_not_cached(place: Path) -> None:
    recipe = recipe_of(place, "augmented")
    augment = recipe.augment.model_copy(update={"speeds": [0.9, 1.1]})
    stored = place / "caches" / "asr" / "hidden-states"
    shutil.rmtree(stored, ignore_errors=True)
    _, said = run(recipe.model_copy(update={"augment": augment}))
    assert "computed in every epoch, because augment changes" in said
    assert len(list(stored.iterdir())) == 3  # dev


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({}, True),
        ({"speeds": [1.0]}, True),
        ({"speeds": [1.0], "concatenate_prob": 0}, False),
        ({"speeds": [1.0], "concatenate_prob": 0, "tempos": [0.9, 1.0]}, True),
        ({"speeds": [1.0], "concatenate_prob": 0, "reverb": {"prob": 0.1}}, True),
        ({"speeds": [1.0], "concatenate_prob": 0, "noise": {"folder": "x"}}, True),
        ({"speeds": [1.0], "concatenate_prob": 0, "codec_prob": 0.1}, True),
    ],
)
def test_what_changes_recordings(settings: dict[str, Any], changes: bool) -> None:
    augment = AugmentConfig.model_validate(settings)
    assert augment.changes_waveforms(level=False) == changes
    assert augment.changes_waveforms(level=True)  # gain_db


def test_fine_tuning_begins_when_asked_and_resumes(
    place: Path,
) -> None:
    recipe = recipe_of(place, "tuned", finetune_from=0.5, finetune_lr_factor=0.5)
    weights, said = run(recipe)
    before, after = said.split("fine-tuning the network of ")
    assert "epoch   1" in before
    assert "epoch   2" in after
    epochs = [epoch_of(recipe, number) for number in (1, 2)]
    original = network_of(place / "network")
    moved = {name for name in original if not torch.equal(epochs[1][name], original[name])}
    assert all(torch.equal(epochs[0][name], original[name]) for name in original)
    assert moved
    assert all(".network.encoder." in name for name in moved)  # not the convolutions

    class StoppedError(Exception):
        pass

    def stop_in_epoch(number: int) -> loop.Hook:
        def hook(task: loop.Task[Any]) -> loop.Task[Any]:
            def stepped(state: loop.Loop, batch: Any, loss: loop.Loss) -> None:
                task.stepped(state, batch, loss)
                if state.progress.epoch == number - 1 and state.progress.batch == 1:
                    task.save(state)
                    raise StoppedError

            return replace(task, stepped=stepped)

        return hook

    parts = recipe.model_copy(update={"out": place / "in-parts"})
    for number in (1, 2):  # before and after the network has moments
        with pytest.raises(StoppedError):
            train(parts, Console(quiet=True), hook=stop_in_epoch(number))
    resumed, said = run(parts)
    assert "resumed at epoch 2" in said
    for name, tensor in weights.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_model_works_without_the_network_and_says_what_it_has(
    place: Path, fixed: tuple[dict[str, Tensor], str], tmp_path: Path
) -> None:
    model = shutil.copytree(place / "fixed" / "model", tmp_path / "elsewhere")
    (place / "network").rename(place / "away")
    try:
        bundle = load_bundle(model)
    finally:
        (place / "away").rename(place / "network")
    waves = [np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in (9000, 300)]
    together = bundle.score(waves)[0].unpad()
    for wave, scores in zip(waves, together, strict=True):
        torch.testing.assert_close(bundle.score([wave])[0].unpad()[0], scores, rtol=0, atol=1e-4)
    stored = json.loads((model / "config.json").read_text())["features"]
    assert stored["network"]["name"] == "network"
    assert not {"pretrained", "bands", "cache_gb"} & stored.keys()
    assert str(place) not in (model / "config.json").read_text()
    shown = rows(read_facts(model))["features"]
    assert shown == "network (wav2vec2): 16 hidden features of 2 layers every 10 ms at 8000 Hz"
    for refused in (lambda: choose_slot(bundle), lambda: build_graph(bundle),
                    lambda: build_graph(bundle, waveform=False)):  # fmt: skip
        with pytest.raises(ConfigError, match=r"got features\.kind pretrained, which is not exp"):
            refused()
    with pytest.raises(ConfigError, match=r"lacks features\.kind other than pretrained"):
        Stream(bundle.model)


def test_another_network_does_not_resume(
    place: Path, fixed: tuple[dict[str, Tensor], str], tmp_path: Path
) -> None:
    moved = shutil.copytree(place / "network", tmp_path / "moved")
    recipe = recipe_of(place, "fixed", pretrained=str(moved))
    _, said = run(recipe)
    assert "already trained" in said
    other = json.loads((moved / "preprocessor_config.json").read_text()) | {"do_normalize": False}
    (moved / "preprocessor_config.json").write_text(json.dumps(other))
    with pytest.raises(AsrError, match=r"features\.network"):
        run(recipe)


def test_a_model_with_a_network_begins_another(
    place: Path, fixed: tuple[dict[str, Tensor], str], tmp_path: Path
) -> None:
    renamed = shutil.copytree(place / "network", tmp_path / "renamed")
    recipe = recipe_of(place, "begun", pretrained=str(renamed))
    start = recipe.init.model_copy(update={"model": place / "fixed" / "model", "freeze_layers": 1})
    weights, said = run(recipe.model_copy(update={"init": start}))
    assert "16 of 16 tokens are its own" in said
    model = load_bundle(place / "fixed" / "model").model.state_dict()
    frozen = [name for name in weights if not name.startswith("output.")]
    assert START + "mix" in frozen
    for name in frozen:
        assert torch.equal(weights[name], model[name]), name
    larger = write_network(tmp_path / "larger", conv_stride=[5, 16], num_hidden_layers=3)
    other = recipe_of(place, "other", pretrained=str(larger))
    with pytest.raises(ConfigError, match=r"features\.pretrained with a network of wav2vec2"):
        run(other.model_copy(update={"init": start}))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"sample_rate": 16000}, "sample_rate 8000, the rate of .*, got 16000: set it; recordings"),
        ({"pretrained": "no/such/folder"}, "a folder or NAME/MODEL of the hub"),
        ({"pretrained": "../x"}, "a folder or NAME/MODEL of the hub"),
    ],
)
def test_networks_that_do_not_fit(place: Path, features: dict[str, Any], message: str) -> None:
    with pytest.raises(AsrError, match=message):
        with_network(recipe_of(place, "bad", **features))


def test_several_processes_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_joined", lambda: True)
    with pytest.raises(TrainingError, match=r"one process with features\.kind pretrained"):
        with_network(recipe_of(place, "bad"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features.kind": "mel", "features.finetune_from": 0.1}, "only with kind pretrained"),
        ({"features.pretrained": ""}, "a folder or a name on the hub"),
        ({"features.bands": 40}, "no bands with kind pretrained"),
        ({"features.cmvn": "global"}, "cmvn none or utterance"),
        ({"features.finetune_from": 1.0}, "finetune_from"),
        ({"model.channels": [8], "model.strides": [3]}, "model.channels"),
        ({"model.chunk": 16, "features.cmvn": "none"}, "kind other than pretrained"),
        ({"features.finetune_from": 0.5, "init.freeze_layers": 1}, "init.freeze_layers 0"),
    ],
)
def test_settings_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    sections: dict[str, Any] = {
        "data": {"train": "a", "dev": "b"},
        "out": "c",
        "features": {"kind": "pretrained", "pretrained": "ann/network"},
        "model": {"channels": [], "strides": []},
        "init": {},
    }
    for key, value in values.items():
        section, name = key.split(".")
        sections[section][name] = value
    if sections["features"]["kind"] == "mel":
        del sections["features"]["pretrained"]
    with pytest.raises(ConfigError, match=message):
        parse(Recipe, sections, "recipe.yaml")


def test_no_recipe_states_the_structure(place: Path) -> None:
    known, _ = with_network(recipe_of(place, "x"))
    with pytest.raises(ConfigError, match=r"no features\.network"):
        parse(Recipe, json.loads(known.model_dump_json()), "recipe.yaml")


def test_a_folder_is_relative_to_the_recipe_and_a_name_is_not(tmp_path: Path) -> None:
    text = "data: {train: a, dev: b}\nout: c\nmodel: {channels: [], strides: []}\nfeatures: "
    path = tmp_path / "recipe.yaml"
    (tmp_path / "ann" / "network").mkdir(parents=True)
    path.write_text(text + "{kind: pretrained, pretrained: ann/network}\n")
    assert read_recipe(path).features.pretrained == str(tmp_path / "ann" / "network")
    path.write_text(text + "{kind: pretrained, pretrained: bob/network}\n")
    assert read_recipe(path).features.pretrained == "bob/network"


def test_classifiers_have_other_features() -> None:
    features = FeatureConfig(kind="pretrained", pretrained="ann/network")
    with pytest.raises(ConfigError, match=r"another features\.kind here, got pretrained"):
        Classifier(features, NETWORK, 2)


def test_no_network_needs_the_compiler_of_torch(
    place: Path, fixed: tuple[dict[str, Tensor], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch._dynamo", "torch.fx.experimental.symbolic_shapes"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it takes seconds
    read_network(place / "network", "x")
    load_bundle(place / "fixed" / "model")
