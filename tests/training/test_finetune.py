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
from asr.models.bundle import Bundle, load_bundle, save_bundle
from asr.models.encoder_folder import save_encoder
from asr.models.masked_prediction import SpeechEncoder
from asr.text.phones import Phones
from asr.training.averaging import choose_weights
from asr.training.checkpoint import save_epoch
from asr.training.finetune import InitConfig, freeze, preserved_tokens
from asr.training.optimizer import build_optimizer, set_rate
from asr.training.prepare import datasets, identity
from asr.training.recipe import Recipe, TrainConfig, read_recipe
from tests.processes import NOBODY, left_by
from tests.tones import FEATURES, MODEL, run_quietly, tone_recipe, untrained_bundle

Tones = tuple[dict[str, Path], Path]


def below_output(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: t for n, t in model.state_dict().items() if not n.startswith("output.")}


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
