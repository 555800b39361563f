"""`asr new --from`: a project that trains a model further, and never ends with a worse one."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.config import Config
from asr.errors import CheckpointError, ConfigError
from asr.features.extractor import FeatureConfig
from asr.inference.transcribe import trained_model
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.models.config import ModelConfig
from asr.models.encoder_folder import save_encoder
from asr.models.masked_prediction import SpeechEncoder
from asr.project.defaults import Texts, examine, propose
from asr.project.initial import Initial, propose_from, proposed_recipe, read_initial
from asr.project.notes import text_notes
from asr.text.normalise import TextConfig
from asr.text.phones import Phones
from asr.text.tokens import TokenConfig, build_tokens
from asr.training.recipe import Recipe, read_recipe
from tests.commands import Command
from tests.project.test_new import FIVE, spoken
from tests.tones import FEATURES, MODEL, write_recordings

Tones = tuple[dict[str, Path], Path]
TEXTS = examine(["open the door"], TextConfig())


def recipe_from(folder: Path, initial: Initial, texts: Texts = TEXTS) -> Recipe:
    text, _ = proposed_recipe("a folder", spoken(["a", "b"] * 3), texts, initial)
    (folder / "recipe.yaml").write_text(text)
    return read_recipe(folder / "recipe.yaml")


def test_a_project_from_a_model_is_trained(run: Command, tones: Tones, tmp_path: Path) -> None:
    write_recordings(tmp_path / "rec", FIVE)
    for path in (tmp_path / "rec").rglob("*.txt"):
        path.write_text(path.read_text().replace("low", "zoë"))
    ended = run("new", tmp_path / "p", tmp_path / "rec", "--from", tones[1])
    assert ended.status == 0, ended.err
    assert f"proposal: train further from {tones[1]}" in ended.out
    assert "too little" not in ended.out
    ended = run("train", tmp_path / "p" / "recipe.yaml", "train.epochs=1")
    assert ended.status == 0, ended.err
    assert "before training" in ended.err
    given, made = load_bundle(tones[1]), load_bundle(tmp_path / "p" / "run" / "model")
    assert made.tokens.units in (given.tokens.units, (*given.tokens.units, "z", "ë"))


def test_what_the_model_can_write_need_not_be_learnt() -> None:
    parts = {"train": spoken(["a"]), "dev": [], "test": []}
    learnt, texts = (examine([text], TextConfig()) for text in ("low", "löw"))
    assert any("train lacks: ö" in note for note in text_notes(parts, learnt, texts))
    assert not text_notes(parts, learnt, texts, frozenset("ö"))


@pytest.mark.parametrize(
    ("features", "model"),
    [
        (FEATURES, MODEL),
        (
            FeatureConfig(cmvn="global", kind="mfcc"),
            ModelConfig(hidden=8, cell="projected", projection=4, lookahead=2, bidirectional=False),
        ),
        (FEATURES, ModelConfig(channels=(4,), strides=(2,), hidden=8, attention_heads=4)),
        (FeatureConfig(kind="nemo"), ModelConfig(layers=2, hidden=8, channels=(), strides=())),
    ],
)
def test_features_network_and_text_are_those_of_the_model(
    tmp_path: Path, features: FeatureConfig, model: ModelConfig
) -> None:
    text = TextConfig(case="upper", language="tr", punctuation="remove")
    tokens = build_tokens(["AB"], TokenConfig())
    bundle = Bundle(AcousticModel(features, model, len(tokens)), tokens, text)
    save_bundle(tmp_path / 'a "model 𠮷"', bundle)
    initial = read_initial(str(tmp_path / 'a "model 𠮷"'))
    recipe = recipe_from(tmp_path, initial)
    assert (recipe.features, recipe.text) == (features, text)
    assert without_dropout(recipe.model) == without_dropout(model)
    assert recipe.init.model == tmp_path / 'a "model 𠮷"'
    assert recipe.init.preserve


def test_a_model_with_attention_is_trained_further(
    run: Command, tones: Tones, tmp_path: Path
) -> None:
    given = load_bundle(tones[1])
    network = ModelConfig(channels=(4,), strides=(2,), hidden=8, attention_heads=4)
    model = AcousticModel(FEATURES, network, len(given.tokens))
    save_bundle(tmp_path / "model", Bundle(model, given.tokens, given.text))
    write_recordings(tmp_path / "rec", FIVE)
    ended = run("new", tmp_path / "p", tmp_path / "rec", "--from", tmp_path / "model")
    assert ended.status == 0, ended.err
    assert read_recipe(tmp_path / "p" / "recipe.yaml").model.attention_heads == 4


def test_an_encoder_that_no_training_can_use_is_refused(tmp_path: Path) -> None:
    chunked = MODEL.model_copy(update={"chunk": 4})
    save_encoder(tmp_path / "encoder", SpeechEncoder(FEATURES, chunked), {})
    with pytest.raises(ConfigError, match=r"encoder: expected features\.cmvn none or global"):
        read_initial(str(tmp_path / "encoder"))


def without_dropout(config: Config) -> dict[str, object]:
    return config.model_dump(exclude={"dropout"})


def test_an_encoder_has_new_tokens(tmp_path: Path) -> None:
    save_encoder(tmp_path / "encoder", SpeechEncoder(FEATURES, MODEL), {})
    commands = examine(["yes no"] * 30, TextConfig())
    recipe = recipe_from(tmp_path, read_initial(str(tmp_path / "encoder")), commands)
    assert recipe.features == FEATURES
    assert without_dropout(recipe.model) == without_dropout(MODEL)
    assert recipe.tokens.kind == "words"
    assert not recipe.init.preserve


def test_default_is_the_model_of_the_package() -> None:
    assert read_initial("default").folder == trained_model()


def test_more_hours_need_fewer_and_smaller_steps(tones: Tones) -> None:
    initial = read_initial(str(tones[1]))
    epochs, rates = [], []
    for hours in (1 / 60, 0.25, 2, 50, 500):
        proposal = propose(spoken(["a", "b"] * 3, 600 * hours), TEXTS)
        found, init = propose_from(proposal, hours, initial)
        epochs.append(found.epochs)
        rates.append(found.learning_rate)
        assert init.freeze_layers == 0
        assert found.epochs < proposal.epochs
    assert epochs == sorted(epochs, reverse=True)
    assert rates == sorted(rates, reverse=True)


def test_models_that_cannot_be_trained_further_are_refused(
    run: Command, tones: Tones, tmp_path: Path
) -> None:
    write_recordings(tmp_path / "rec", FIVE)
    absent = run("new", tmp_path / "p", tmp_path / "rec", "--from", tmp_path / "absent").error()
    assert "expected a model folder" in absent
    assert not (tmp_path / "p").exists()
    bundle = load_bundle(tones[1])
    phones = bundle.text.model_copy(update={"phones": Phones(words={"low": "l"})})
    save_bundle(tmp_path / "phones", Bundle(bundle.model, bundle.tokens, phones))
    with pytest.raises(ConfigError, match="which writes phones: start without --from"):
        read_initial(str(tmp_path / "phones"))
    (tmp_path / "phones" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        read_initial(str(tmp_path / "phones"))
