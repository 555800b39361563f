"""What `init` in a recipe accepts, and what is no model to start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.errors import CheckpointError, ConfigError
from asr.inference.transcribe import default_model
from asr.models.bundle import load_bundle
from asr.models.encoder_folder import save_encoder
from asr.models.masked_prediction import SpeechEncoder
from asr.training.finetune import InitConfig
from asr.training.recipe import read_recipe
from tests.tones import FEATURES, MODEL, run_quietly, tone_recipe

Tones = tuple[dict[str, Path], Path]


@pytest.mark.parametrize("setting", ["freeze_layers=2", "lower_lr_factor=0.1", "interpolation=0.5"])
def test_settings_of_a_model_need_one(tmp_path: Path, setting: str) -> None:
    (tmp_path / "recipe.yaml").write_text("data: {train: a, dev: b}\nout: out\n")
    key = setting.split("=")[0]
    with pytest.raises(ConfigError, match=rf"expected init\.model with init\.{key}, got none"):
        read_recipe(tmp_path / "recipe.yaml", [f"init.{setting}"])
    read_recipe(tmp_path / "recipe.yaml", [f"init.{setting}", "init.model=base"])


def test_no_model_is_blended_with_an_encoder(tones: Tones, tmp_path: Path) -> None:
    save_encoder(tmp_path / "encoder", SpeechEncoder(FEATURES, MODEL), {})
    init = InitConfig(model=tmp_path / "encoder", interpolation=0.3)
    recipe = tone_recipe(tones[0], tmp_path / "run").model_copy(update={"init": init})
    with pytest.raises(ConfigError, match=r"a recogniser with init\.interpolation, got .*encoder"):
        run_quietly(recipe)


def test_other_folders_are_named(tones: Tones, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the folder of a training: give model in it"):
        load_bundle(tones[1].parent)
    save_encoder(tmp_path / "p" / "encoder", SpeechEncoder(FEATURES, MODEL), {})
    (tmp_path / "p" / "pieces.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"of a pretraining: give encoder in it"):
        load_bundle(tmp_path / "p")
    with pytest.raises(CheckpointError, match=r"a model of asr train, got .*, an exported"):
        load_bundle(default_model())


def test_the_model_of_a_run_may_be_named_in_another_way(
    tones: Tones, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tone_recipe(tones[0], tmp_path / "run", epochs=1)
    init = InitConfig(model=tones[1])
    run_quietly(recipe.model_copy(update={"init": init}))
    monkeypatch.chdir(tones[1].parent)
    longer = recipe.train.model_copy(update={"epochs": 2})
    init = InitConfig(model=Path("../") / tones[1].parent.name / "model")
    _, shown = run_quietly(recipe.model_copy(update={"init": init, "train": longer}))
    assert "epoch   2" in shown
    other = InitConfig(model=tmp_path / "run" / "model")
    with pytest.raises(CheckpointError, match=r"expected init\.model="):
        run_quietly(recipe.model_copy(update={"init": other, "train": longer}))


def test_a_rate_above_a_pretrained_network_needs_no_model(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "data: {train: a, dev: b}\nout: out\ninit: {lower_lr_factor: 0.5}\n"
        "features: {kind: pretrained, pretrained: net, cmvn: none}\n"
        "model: {channels: [], strides: []}\n"
    )
    assert read_recipe(tmp_path / "recipe.yaml").init.lower_lr_factor == 0.5


def test_the_folder_is_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "data: {train: a, dev: b}\nout: out\ninit: {model: base/model, freeze_layers: 2}\n"
    )
    assert read_recipe(tmp_path / "recipe.yaml").init.model == tmp_path / "base" / "model"
