"""The loop on a corpus of tones: it learns, it repeats itself, and it says what went wrong."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from asr.dataset.cuts import Corpus
from asr.dataset.manifest import read_manifest, write_manifest
from asr.dataset.sampler import plan_epoch
from asr.errors import AudioError, CheckpointError, ConfigError, TrainingError
from asr.evaluation.evaluate import evaluate
from asr.features.extractor import FeatureConfig
from asr.io.files import read_json
from asr.models.acoustic import AcousticModel
from asr.models.bundle import load_bundle
from asr.models.kernels.dense import trains_lstm_in
from asr.training import prepare
from asr.training.checkpoint import average_weights
from asr.training.display import Display
from asr.training.optimizer import learning_rate
from asr.training.recipe import Recipe
from tests.hooks import before_step, watching, with_dev_errors
from tests.tones import (
    FEATURES,
    MODEL,
    RATE,
    run_quietly,
    tone_recipe,
    trained_tones,
    write_corpus,
)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 12, "dev": 4})


def changed(recipe: Recipe, **sections: Any) -> Recipe:
    return recipe.model_copy(update=sections)


def assert_same(shipped: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """What is shipped is these weights, in half precision or as they are."""
    assert shipped.keys() == weights.keys()
    for name, weight in shipped.items():
        assert torch.equal(weight, weights[name].to(weight.dtype)), name


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# --- a whole run ---


def test_tones_are_learnt(tmp_path_factory: pytest.TempPathFactory) -> None:
    manifests, model = trained_tones(tmp_path_factory.getbasetemp())
    words = evaluate(model, manifests["test"]).report.scores.words
    assert words.reference_length > 50
    assert words.rate <= 0.1


def test_a_run_leaves_history_curves_and_facts(tmp_path_factory: pytest.TempPathFactory) -> None:
    _, model = trained_tones(tmp_path_factory.getbasetemp())
    out = model.parent
    history = read_json(out / "history.json")
    recipe = Recipe.model_validate(read_json(out / "recipe.json"))
    assert [row["epoch"] for row in history] == list(range(1, recipe.train.epochs + 1))
    assert history[-1]["loss"] < history[0]["loss"] / 4
    assert history[-1]["learning_rate"] == learning_rate(1.0, recipe.train)
    assert 0.5 < history[-1]["fill_share"] <= 1
    info = load_bundle(model).info
    assert info["dev_errors"] <= min(row["dev_errors"] for row in history)
    assert (info["seed"], info["epochs"]) == (recipe.train.seed, recipe.train.epochs)
    curves = EventAccumulator(str(out / "tensorboard"))
    curves.Reload()
    assert {"loss", "dev_wer", "learning_rate", "hours_per_hour"} <= set(curves.Tags()["scalars"])
    written = [event.value for event in curves.Scalars("loss")]
    assert written == pytest.approx([row["loss"] for row in history])


def test_only_the_best_epochs_are_kept_and_their_mean_is_the_model(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    _, model = trained_tones(tmp_path_factory.getbasetemp())
    kept = sorted((model.parent / "epochs").iterdir())
    weights = load_bundle(model).info["weights"]
    assert weights == f"average of epochs {', '.join(str(int(p.name[-4:])) for p in kept)}"
    assert len(kept) == 2
    assert_same(load_file(model / "model.safetensors"), average_weights(kept))


def test_no_epoch_is_removed_that_the_last_checkpoint_may_come_back_to(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    # Every epoch is better than the one before, and the third ends without a checkpoint of its own.
    rarely = {"average": 1, "save_seconds": 1000.0}
    recipe = tone_recipe(manifests, tmp_path, epochs=3, **rarely)
    with pytest.raises(TrainingError, match="expected room in memory"):
        run_quietly(recipe, with_dev_errors([3, 2, MemoryError()]))
    assert not (tmp_path / "checkpoint").exists()
    kept = sorted(path.name for path in (tmp_path / "epochs").iterdir())
    assert kept == ["epoch-0001", "epoch-0002"]


def test_the_best_epoch_alone_is_kept_where_the_average_is_worse(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    # Scores in order: two epochs, then their average.
    model, shown = run_quietly(tone_recipe(manifests, tmp_path), with_dev_errors([3, 2, 4]))
    assert "final model: epoch 2, dev 2/" in shown
    info = load_bundle(model).info
    assert (info["weights"], info["dev_errors"]) == ("epoch 2", 2)
    best = load_file(tmp_path / "epochs" / "epoch-0002" / "model.safetensors")
    assert_same(load_file(model / "model.safetensors"), best)


def test_the_seed_decides_the_weights(manifests: dict[str, Path], tmp_path: Path) -> None:
    runs = {
        name: load_file(
            run_quietly(tone_recipe(manifests, tmp_path / name, epochs=1, seed=seed))[0]
            / "model.safetensors"
        )
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    }
    for name, weight in runs["first"].items():
        assert torch.equal(weight, runs["again"][name]), name
    assert not torch.equal(runs["first"]["output.weight"], runs["other"]["output.weight"])


def test_a_finished_run_is_not_trained_again(manifests: dict[str, Path], tmp_path: Path) -> None:
    recipe = tone_recipe(manifests, tmp_path)
    before = load_file(run_quietly(recipe)[0] / "model.safetensors")
    model, shown = run_quietly(recipe, watching(lambda *_: pytest.fail("trained again")))
    assert "already trained for 2 epochs" in shown
    after = load_file(model / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_finished_run_goes_on_when_it_is_given_more_epochs(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    run_quietly(tone_recipe(manifests, tmp_path, epochs=1))
    longer = tone_recipe(manifests, tmp_path, epochs=3, patience=50)
    model, shown = run_quietly(longer)
    assert "resumed at epoch 2" in shown
    assert load_bundle(model).info["epochs"] == 3


def test_a_run_is_not_gone_on_with_under_other_settings(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    run_quietly(tone_recipe(manifests, tmp_path, epochs=1))
    with pytest.raises(CheckpointError) as error:
        run_quietly(tone_recipe(manifests, tmp_path, epochs=2, batch_seconds=3.0))
    assert "expected train.batch_seconds=2.0" in one_line(error)
    assert "got 3.0: choose another out" in one_line(error)


def test_a_run_is_not_gone_on_with_on_other_data(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2})
    run_quietly(tone_recipe(manifests, tmp_path / "out", epochs=1))
    write_manifest(manifests["train"], read_manifest(manifests["train"])[::-1])
    with pytest.raises(CheckpointError, match="expected the training data"):
        run_quietly(tone_recipe(manifests, tmp_path / "out", epochs=2))


def test_global_statistics_are_those_of_the_training_set(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    recipe = changed(
        tone_recipe(manifests, tmp_path),
        features=FeatureConfig(sample_rate=RATE, bands=16, cmvn="global"),
    )
    model, _ = run_quietly(recipe)
    bundle = load_bundle(model)
    samples = [round(u.duration * RATE) for u in read_manifest(manifests["train"])]
    frames = sum(bundle.model.features.output_lengths(torch.tensor(samples)).tolist())
    assert bundle.model.features.normalisation is not None
    assert bundle.model.features.normalisation.frames.item() == frames
    # Nor does going on with a run count them twice.
    assert (
        load_bundle(run_quietly(recipe)[0]).model.state_dict()["features.normalisation.frames"]
        == frames
    )


def test_gradients_are_clipped_and_the_rate_follows_the_schedule(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    norms: list[float] = []
    rates: list[float] = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad.flatten() for p in parameters if p.grad is not None]
        norms.append(float(torch.linalg.vector_norm(torch.cat(gradients))))
        rates.append(optimizer.param_groups[0]["lr"])

    recipe = tone_recipe(manifests, tmp_path, clip_norm=0.25)
    handle = register_optimizer_step_pre_hook(note)
    try:
        run_quietly(recipe)
    finally:
        handle.remove()
    assert norms
    assert max(norms) == pytest.approx(0.25, rel=1e-3)
    steps = len(rates)
    expected = [learning_rate(i / steps, recipe.train) for i in range(steps)]
    assert rates == pytest.approx(expected)


@pytest.mark.skipif(not trains_lstm_in(torch.bfloat16), reason="no bfloat16 in this processor")
def test_precision_may_change_between_two_runs_of_one_process(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    for precision in ("fp32", "bf16"):
        model, shown = run_quietly(
            tone_recipe(manifests, tmp_path / precision, epochs=1, precision=precision)
        )
        assert {"fp32": "cpu, fp32", "bf16": "cpu, bf16"}[precision] in shown
        weights = load_file(model / "model.safetensors")
        assert all(torch.isfinite(weight).all() for weight in weights.values())


# --- what is refused ---


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which has fp16")
def test_fp16_without_a_gpu_is_refused(manifests: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises((TrainingError, ConfigError)) as error:
        run_quietly(tone_recipe(manifests, tmp_path, epochs=1, precision="fp16"))
    assert "fp16" in one_line(error)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in bf16 or refuses it")
def test_bf16_without_its_lstm_is_refused_and_auto_is_fp32(
    manifests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "trains_lstm_in", lambda dtype: False)
    with pytest.raises(TrainingError) as error:
        run_quietly(tone_recipe(manifests, tmp_path, epochs=1, precision="bf16"))
    assert one_line(error).startswith("expected a processor that trains an LSTM in bf16, got one")
    said: list[str] = []
    if torch.cpu._is_avx512_bf16_supported():
        # The probe decides where the processor has the instructions and oneDNN does not use them.
        assert prepare.precision("auto", said.append) == "no"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    said.clear()
    assert prepare.precision("auto", said.append) == "no"
    assert said == ["precision: fp32, because this processor does not compute LSTMs in bf16"]


def test_speakers_in_both_parts_are_refused(manifests: dict[str, Path], tmp_path: Path) -> None:
    recipe = tone_recipe({"train": manifests["train"], "dev": manifests["train"]}, tmp_path)
    with pytest.raises(TrainingError, match="train speaker"):
        run_quietly(recipe)


def test_a_dev_set_without_words_is_refused(manifests: dict[str, Path], tmp_path: Path) -> None:
    silent = [replace(u, text="") for u in read_manifest(manifests["dev"])]
    write_manifest(tmp_path / "dev.jsonl", silent)
    recipe = tone_recipe({**manifests, "dev": tmp_path / "dev.jsonl"}, tmp_path / "out")
    with pytest.raises(TrainingError, match=r"words in the transcripts of .*dev\.jsonl, got none"):
        run_quietly(recipe)


def test_a_recording_that_vanished_is_named(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2})
    lost = read_manifest(manifests["train"])[2].audio
    lost.unlink()
    with pytest.raises(TrainingError, match=r"got 1 of 4 files missing, first .*train02") as error:
        run_quietly(tone_recipe(manifests, tmp_path / "out", epochs=1))
    assert lost.name in one_line(error)
    assert not (tmp_path / "out" / "history.json").exists()


def test_a_recording_that_broke_is_named(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2})
    broken = read_manifest(manifests["train"])[2].audio
    broken.write_bytes(b"no audio")
    with pytest.raises(AudioError) as error:
        run_quietly(tone_recipe(manifests, tmp_path / "out", epochs=1))
    assert broken.name in one_line(error)


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_running_out_of_memory_comes_with_advice(
    manifests: dict[str, Path], tmp_path: Path, where: str
) -> None:
    def exhaust() -> None:
        if where == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        torch.empty(1 << 60)  # what a processor's allocator raises is an error of another class

    with pytest.raises(TrainingError, match=r"lower train\.batch_seconds \(now 2\)") as error:
        run_quietly(tone_recipe(manifests, tmp_path), before_step(1, exhaust))
    one_line(error)


# --- what is displayed ---


def test_the_display_shows_loss_dev_wer_pace_and_time_left(tmp_path: Path) -> None:
    shown = io.StringIO()
    row = {"epoch": 1, "loss": 1.25, "seconds": 2.0, "dev_errors": 3}
    with Display(4, Console(file=shown, force_terminal=True, width=200), tmp_path) as display:
        display.epoch(row, "dev WER  37.50 % (3/8)")
        display.step(1.5, 0.875, 120.0)
    text = shown.getvalue()
    assert "dev WER  37.50 % (3/8)" in text
    assert "epoch 2/4  loss 0.875  120 h/h  dev WER  37.50 %" in text
    assert "left" in text


# --- what goes into a step ---


def test_batches_of_an_epoch_are_those_of_the_plan(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    seen: list[list[str]] = []
    recipe = tone_recipe(manifests, tmp_path)
    run_quietly(recipe, watching(lambda batch, loss: seen.append(batch.ids)))
    utterances = read_manifest(manifests["train"])
    durations = [u.duration for u in utterances]
    seconds = float(recipe.train.batch_seconds)
    plans = [
        plan_epoch(Corpus(durations), recipe.augment, seconds, recipe.train.seed, epoch)
        for epoch in range(2)
    ]
    planned = [
        [utterances[item.indices[0]].id for item in batch] for plan in plans for batch in plan
    ]
    assert seen == planned
    assert seen[: len(plans[0])] != seen[len(plans[0]) :]


def test_transcripts_are_normalised_before_training(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 4, "dev": 2})
    for part, path in manifests.items():
        shouted = [
            type(u)(u.id, u.audio, u.text.upper(), u.duration, part) for u in read_manifest(path)
        ]
        write_manifest(path, shouted)
    model, _ = run_quietly(tone_recipe(manifests, tmp_path / "out", epochs=1))
    units = load_bundle(model).tokens.units
    assert not any(unit.isupper() for unit in units)


def test_every_weight_is_trained(manifests: dict[str, Path], tmp_path: Path) -> None:
    model, _ = run_quietly(tone_recipe(manifests, tmp_path, epochs=1))
    trained = load_file(tmp_path / "epochs" / "epoch-0001" / "model.safetensors")
    torch.manual_seed(1)
    fresh = AcousticModel(FEATURES, MODEL, len(load_bundle(model).tokens)).state_dict()
    assert [name for name in fresh if torch.equal(fresh[name], trained[name])] == []
