"""Training that starts from another model."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from asr.dataset.manifest import read_manifest, write_manifest
from asr.errors import CheckpointError, ConfigError
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.models.encoder_folder import save_encoder
from asr.models.masked_prediction import SpeechEncoder
from asr.text.normalise import TextConfig
from asr.text.phones import Phones
from asr.text.tokens import TokenConfig, build_tokens
from asr.training.averaging import choose_weights
from asr.training.checkpoint import save_epoch
from asr.training.finetune import (
    InitConfig,
    freeze,
    initialise_from,
    layers_taken,
    preserved_tokens,
)
from asr.training.optimizer import build_optimizer, set_rate
from asr.training.prepare import datasets, identity
from asr.training.recipe import Recipe, TrainConfig, read_recipe
from tests.processes import NOBODY, left_by
from tests.tones import FEATURES, MODEL, run_quietly, tone_recipe, untrained_bundle

Tones = tuple[dict[str, Path], Path]


def below_output(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: t for n, t in model.state_dict().items() if not n.startswith("output.")}


def test_layers_are_copied_and_shared_units_keep_their_rows(tones: Tones) -> None:
    known = load_bundle(tones[1])
    tokens = build_tokens(["low elsewhere"], TokenConfig(kind="words", word_count=1))
    model = type(known.model)(FEATURES, MODEL, len(tokens))
    before = model.output.weight.clone()
    said = initialise_from(model, tokens, tones[1])
    shared = [unit for unit in tokens.units if unit in known.tokens.units]
    assert f"{len(shared)} of {len(tokens)} tokens" in said
    for name, tensor in below_output(known.model).items():
        assert torch.equal(model.state_dict()[name], tensor), name
    for place, unit in enumerate(tokens.units):
        if unit in shared:
            row = known.model.output.weight[known.tokens.units.index(unit)]
            assert torch.equal(model.output.weight[place], row)
        else:
            assert torch.equal(model.output.weight[place], before[place])


def test_an_attention_decoder_is_copied_with_the_rows_of_shared_units(tmp_path: Path) -> None:
    known, other = untrained_bundle().tokens, build_tokens(["low jazz"], TokenConfig())
    config = MODEL.model_copy(update={"attention_decoder": 8})
    theirs = AcousticModel(FEATURES, config, len(known))
    save_bundle(tmp_path / "known", Bundle(theirs, known, TextConfig()))
    given = theirs.state_dict()
    shared = [unit for unit in other.units if unit in known.units]
    assert 1 < len(shared) < len(other)
    for cells in (8, 4, 0):
        config = MODEL.model_copy(update={"attention_decoder": cells})
        model = AcousticModel(FEATURES, config, len(other))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        initialise_from(model, other, tmp_path / "known")
        for name, value in model.state_dict().items():
            if not name.startswith("attention_decoder."):
                continue
            if "output" in name or "embedding" in name:
                same_size = value.shape[1:] == given[name].shape[1:]
                for place, unit in enumerate(other.units):
                    copied = unit in known.units and same_size
                    row = given[name][known.units.index(unit)] if copied else before[name][place]
                    assert torch.equal(value[place], row), (name, unit)
            else:
                same_size = value.shape == given[name].shape
                assert torch.equal(value, given[name] if same_size else before[name]), name


def test_self_conditioning_may_be_new_and_shared_units_keep_their_columns(
    tones: Tones, tmp_path: Path
) -> None:
    settings = {"layers": 2, "intermediate_ctc": (1,), "self_conditioning": True}
    config = MODEL.model_copy(update=settings)
    tokens = build_tokens(["high", "low"], TokenConfig(kind="words", word_count=1))
    known = AcousticModel(FEATURES, config, len(tokens))
    assert known.conditioning is not None
    with torch.no_grad():
        known.conditioning.weight.normal_()
    save_bundle(tmp_path / "known", Bundle(known, tokens, TextConfig()))
    more = build_tokens(["down", "low"], TokenConfig(kind="words", word_count=1))
    model = AcousticModel(FEATURES, config, len(more))
    initialise_from(model, more, tmp_path / "known")
    assert model.conditioning is not None
    for place, unit in enumerate(more.units):
        column = model.conditioning.weight[:, place]
        if unit in tokens.units:
            assert torch.equal(column, known.conditioning.weight[:, tokens.units.index(unit)])
        else:
            assert not column.any()

    unconditioned = config.model_copy(update={"self_conditioning": False})
    plain = AcousticModel(FEATURES, unconditioned, len(tokens))
    with pytest.raises(ConfigError, match=r"model\.self_conditioning=true and .*ctc=.1. as in"):
        initialise_from(plain, tokens, tmp_path / "known")
    save_bundle(tmp_path / "plain", Bundle(plain, tokens, TextConfig()))
    initialise_from(model, more, tmp_path / "plain")


@pytest.mark.parametrize("frames", [0, 1, 4])
def test_a_lookahead_may_be_another(tmp_path: Path, frames: int) -> None:
    features = FEATURES.model_copy(update={"cmvn": "global"})
    one_way = MODEL.model_copy(update={"bidirectional": False})
    tokens = build_tokens(["low"], TokenConfig(kind="words", word_count=1))
    config = one_way.model_copy(update={"lookahead": 2})
    known = AcousticModel(features, config, len(tokens))
    assert known.encoder.lookahead is not None
    with torch.no_grad():
        known.encoder.lookahead.weight.copy_(torch.randn(3, MODEL.hidden))
    save_bundle(tmp_path / "known", Bundle(known, tokens, TextConfig()))
    config = one_way.model_copy(update={"lookahead": frames})
    model = AcousticModel(features, config, len(tokens))
    initialise_from(model, tokens, tmp_path / "known")
    if model.encoder.lookahead is not None:
        shared, own = known.encoder.lookahead.weight[: frames + 1], model.encoder.lookahead.weight
        assert torch.equal(own[: len(shared)], shared)
        assert not own[len(shared) :].any()


def test_half_of_an_encoders_layers_are_taken(tones: Tones, tmp_path: Path) -> None:
    config = MODEL.model_copy(update={"layers": 3})
    encoder = SpeechEncoder(FEATURES, config)
    save_encoder(tmp_path / "encoder", encoder, {})
    tokens = build_tokens(["low"], TokenConfig())
    for given, taken in ((None, 2), (1, 1), (3, 3)):
        init = InitConfig(model=tmp_path / "encoder", layers=given)
        model = AcousticModel(FEATURES, config, len(tokens))
        assert layers_taken(model, init) == taken
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        initialise_from(model, tokens, tmp_path / "encoder", taken)
        for name, weight in model.encoder.layers.named_parameters(prefix="encoder.layers"):
            source = encoder.state_dict() if int(name.split(".")[2]) < taken else before
            torch.testing.assert_close(weight.detach(), source[name], rtol=2e-3, atol=1e-4)
    for wrong in ({"layers": 4}, {"freeze_layers": 3}):
        with pytest.raises(ConfigError, match=rf"expected init\.{next(iter(wrong))} of at most"):
            layers_taken(model, InitConfig(model=tmp_path / "encoder", **wrong))
    with pytest.raises(ConfigError, match=r"expected an encoder of asr pretrain with init\.layers"):
        layers_taken(model, InitConfig(model=tones[1], layers=1))
    gone = InitConfig(model=tmp_path / "gone", layers=1)
    assert layers_taken(model, gone) == 3  # loading it says what is wrong


def test_other_shapes_are_named(tones: Tones, tmp_path: Path) -> None:
    bundle = untrained_bundle()
    other = MODEL.model_copy(update={"hidden": MODEL.hidden + 1, "dropout": 0.4})
    model = AcousticModel(FEATURES, other, len(bundle.tokens))
    with pytest.raises(
        ConfigError,
        match=rf"expected model\.hidden={MODEL.hidden} as in .*, got {MODEL.hidden + 1}:",
    ) as caught:
        initialise_from(model, bundle.tokens, tones[1])
    assert "dropout" not in str(caught.value)
    with pytest.raises(CheckpointError, match="expected a model folder"):
        initialise_from(bundle.model, bundle.tokens, tmp_path / "absent")


def test_frozen_layers_stay_and_slower_ones_move_less(tones: Tones, tmp_path: Path) -> None:
    manifests, model = tones
    known = below_output(load_bundle(model).model)
    moved = {}
    for name, start in {
        "all": InitConfig(model=model),
        "slow": InitConfig(model=model, lower_lr_factor=0.01),
        "frozen": InitConfig(
            model=model, freeze_layers=len(load_bundle(model).model.encoder.layers)
        ),
    }.items():
        recipe = tone_recipe(manifests, tmp_path / name, epochs=1).model_copy(
            update={"init": start}
        )
        folder, shown = run_quietly(recipe)
        assert "started from" in shown
        after = below_output(load_bundle(folder).model)
        moved[name] = sum(float((after[n] - t).abs().sum()) for n, t in known.items())
    assert moved["frozen"] == 0.0
    assert 0 < moved["slow"] < 0.2 * moved["all"]


def test_a_model_learns_new_words_faster_from_another(tones: Tones, tmp_path: Path) -> None:
    manifests, model = tones
    renamed = {}
    for part, path in manifests.items():
        rows = read_manifest(path)
        other = [
            type(u)(u.id, u.audio, u.text.replace("low", "other"), u.duration, u.speaker)
            for u in rows
        ]
        renamed[part] = tmp_path / f"{part}.jsonl"
        write_manifest(renamed[part], other)
    fresh = tone_recipe(renamed, tmp_path / "fresh", epochs=3)
    tuned = tone_recipe(renamed, tmp_path / "tuned", epochs=3).model_copy(
        update={"init": InitConfig(model=model)}
    )
    errors = {}
    for recipe in (fresh, tuned):
        folder, _ = run_quietly(recipe)
        errors[recipe.out.name] = load_bundle(folder).info["dev_errors"]
    assert errors["tuned"] < errors["fresh"]


def test_a_final_model_may_keep_a_share_of_what_it_started_from(
    tones: Tones, tmp_path: Path
) -> None:
    manifests, model = tones
    ends = {}
    for name, share in (("trained", 0.0), ("blended", 0.25)):
        recipe = tone_recipe(manifests, tmp_path / name, epochs=1, learning_rate=1e-4, average=1)
        start = InitConfig(model=model, interpolation=share)
        folder, shown = run_quietly(recipe.model_copy(update={"init": start}))
        assert ("0.25 of" in shown) == (name == "blended")
        ends[name] = load_bundle(folder).model.state_dict()
    for weight, began in load_bundle(model).model.state_dict().items():
        wanted = torch.lerp(ends["trained"][weight], began, 0.25)
        torch.testing.assert_close(ends["blended"][weight], wanted, rtol=2e-3, atol=1e-4)


def test_a_share_that_costs_errors_is_left_out(tones: Tones, tmp_path: Path) -> None:
    bad = untrained_bundle()
    save_bundle(tmp_path / "bad", bad)
    start = InitConfig(model=tmp_path / "bad", interpolation=0.999)
    recipe = tone_recipe(tones[0], tmp_path / "run").model_copy(update={"init": start})
    trained = load_bundle(tones[1]).model
    folder = tmp_path / "run" / "epochs"
    weights = save_epoch(folder, 1, load_bundle(tones[1]))
    history = [{"epoch": 1, "dev_errors": 3, "weights_sha256": weights}]
    model = load_bundle(tones[1]).model
    run: Any = SimpleNamespace(
        recipe=recipe,
        bundle=bad,
        model=model,
        epochs=folder,
        progress=SimpleNamespace(history=history),
    )
    errors = iter([3, 4])
    chosen = choose_weights(run, lambda: next(errors))
    assert chosen == ("epoch 1", 3)
    for name, weight in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_a_run_goes_on_where_it_stopped_and_not_where_it_started(
    tones: Tones, tmp_path: Path
) -> None:
    start = InitConfig(model=tones[1], lower_lr_factor=0.5)

    def recipe(epochs: int) -> Recipe:
        made = tone_recipe(tones[0], tmp_path / "run", epochs=epochs)
        return made.model_copy(update={"init": start})

    run_quietly(recipe(1))
    _, shown = run_quietly(recipe(2))
    assert "resumed at epoch 2" in shown
    assert "started from" not in shown


def test_a_run_is_not_resumed_from_another_model_in_the_same_place(
    tones: Tones, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    shutil.copytree(tones[1], given)
    recipe = tone_recipe(tones[0], tmp_path / "run", epochs=1)
    recipe = recipe.model_copy(update={"init": InitConfig(model=given)})
    run_quietly(recipe)
    bundle = load_bundle(given)
    with torch.no_grad():
        bundle.model.output.bias.add_(1)
    save_bundle(given, bundle)
    with pytest.raises(CheckpointError, match=r"weights of .*\(init\.model\)"):
        run_quietly(recipe)
    (given / "model.safetensors").unlink()
    run_quietly(recipe)
    shutil.rmtree(given)  # a run that has begun does not need it
    run_quietly(recipe)


def test_a_run_whose_checkpoint_was_being_replaced_goes_on(tones: Tones, tmp_path: Path) -> None:
    start = InitConfig(model=tones[1])
    made = tone_recipe(tones[0], tmp_path / "run", epochs=1).model_copy(update={"init": start})
    run_quietly(made)
    (tmp_path / "run" / "checkpoint").rename(
        tmp_path / "run" / f".checkpoint.{left_by(NOBODY)}.old"
    )
    _, shown = run_quietly(made)
    assert "already trained" in shown
    assert "started from" not in shown


def test_global_statistics_are_those_of_the_model_it_starts_from(
    tones: Tones, tmp_path: Path
) -> None:
    features = FEATURES.model_copy(update={"cmvn": "global"})

    def statistics(name: str, part: str, **changes: object) -> dict[str, torch.Tensor]:
        manifests = tones[0] | {"train": tones[0][part]}
        made = tone_recipe(manifests, tmp_path / name, epochs=1)
        model, _ = run_quietly(made.model_copy(update={"features": features, **changes}))
        state = load_bundle(model).model.features.state_dict()
        return {key: state[f"normalisation.{key}"] for key in ("frames", "sums", "squares")}

    first = statistics("first", "train")
    start = InitConfig(model=tmp_path / "first" / "model", freeze_layers=1)
    assert not torch.equal(statistics("other", "test")["sums"], first["sums"])
    then = statistics("then", "test", init=start)
    for key, value in first.items():
        assert torch.equal(then[key], value), key


def test_groups_have_their_own_rates() -> None:
    model = untrained_bundle().model
    optimizer = build_optimizer(model, TrainConfig(), {"": 0.1, "output.": 1.0})
    set_rate(optimizer, 1.0)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.output.weight)] == 1.0
    assert rates[id(model.encoder.layers[0].parameters().__next__())] == 0.1
    assert len(rates) == len(list(model.parameters()))
    freeze(model, 1)
    learning = build_optimizer(model, TrainConfig())
    count = sum(len(group["params"]) for group in learning.param_groups)
    assert count == sum(p.requires_grad for p in model.parameters()) < len(rates)
    with pytest.raises(ConfigError, match="of at most"):
        freeze(model, 30)


def preserving(tones: Tones, out: Path, **changes: object) -> Recipe:
    """A recipe that trains the model of the tones further, for an epoch."""
    made = tone_recipe(tones[0], out, **{"epochs": 1, **changes})
    return made.model_copy(update={"init": InitConfig(model=tones[1], preserve=True)})


def test_a_model_that_training_spoils_stays_as_it_was(tones: Tones, tmp_path: Path) -> None:
    given = load_bundle(tones[1])
    folder, shown = run_quietly(preserving(tones, tmp_path / "run", learning_rate=3.0))
    assert re.search(r"before training, .*: dev WER .*\(\d+/\d+\)", shown)
    assert "stays as it was" in shown
    kept = load_bundle(folder)
    assert kept.info["dev_errors"] == given.info["dev_errors"]
    assert kept.info["weights"] == "run/model as it was"
    assert kept.info["training_data"] == given.info["training_data"]
    assert kept.tokens == given.tokens
    for name, tensor in given.model.state_dict().items():
        assert torch.equal(kept.model.state_dict()[name], tensor), name
    # It is measured once, and not trained from when it is resumed.
    _, shown = run_quietly(preserving(tones, tmp_path / "run", learning_rate=3.0))
    assert "kept the model of these epochs" in shown
    assert "before training" not in shown


def test_a_model_that_training_improves_keeps_its_tokens(tones: Tones, tmp_path: Path) -> None:
    worse = load_bundle(tones[1])
    with torch.no_grad():
        worse.model.output.bias[worse.tokens.units.index("▁low")] -= 30
    save_bundle(tmp_path / "worse", worse)
    for part, path in tones[0].items():
        rows = [replace(u, text=u.text.replace("up", "élan")) for u in read_manifest(path)]
        write_manifest(tmp_path / f"{part}.jsonl", [u for u in rows if u.text != "down"])
    manifests = {part: tmp_path / f"{part}.jsonl" for part in tones[0]}
    start = (manifests, tmp_path / "worse")
    folder, shown = run_quietly(preserving(start, tmp_path / "run", epochs=8))
    trained = load_bundle(folder)
    assert trained.tokens.units == (*worse.tokens.units, "a", "é")
    before = int(re.findall(r"before training.*\((\d+)/", shown)[0])
    assert trained.info["dev_errors"] < before
    assert "stays as it was" not in shown


def test_what_cannot_be_preserved_is_refused(tones: Tones, tmp_path: Path) -> None:
    bundle = load_bundle(tones[1])
    phones = bundle.text.model_copy(update={"phones": Phones(words={"low": "l"})})
    save_bundle(tmp_path / "phones", Bundle(bundle.model, bundle.tokens, phones))
    with pytest.raises(ConfigError, match=r"which writes phones: set init\.preserve to false"):
        preserved_tokens(tmp_path / "phones", [])
    save_encoder(tmp_path / "encoder", SpeechEncoder(FEATURES, MODEL), {})
    with pytest.raises(ConfigError, match="an encoder, which writes nothing"):
        preserved_tokens(tmp_path / "encoder", [])
    (tmp_path / "recipe.yaml").write_text("data: {train: a, dev: b}\nout: out\n")
    for settings, expected in (
        (["init.preserve=true"], "expected init.model with init.preserve"),
        (
            ["init.preserve=true", "init.model=m", "tokens.kind=phones", "tokens.espeak=de"],
            "expected init.preserve false with tokens.kind phones",
        ),
    ):
        with pytest.raises(ConfigError, match=expected):
            read_recipe(tmp_path / "recipe.yaml", settings)


def test_runs_that_began_before_there_was_preserve_are_resumed(tones: Tones) -> None:
    recipe = tone_recipe(tones[0], Path("run"))
    tokens, _, train, dev = datasets(recipe, print)
    assert "init.preserve" not in identity(recipe, tokens, train, dev)
    assert identity(preserving(tones, Path("run")), tokens, train, dev)["init.preserve"] is True
