"""CTC training that goes wrong says so, and a bad step does no damage."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr.augment.config import AugmentConfig
from asr.ctc.loss import required_frames
from asr.dataset.cuts import Corpus
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.sampler import plan_epoch
from asr.dataset.speech_dataset import Batch, SpeechDataset
from asr.errors import TrainingError
from asr.io.files import read_json
from asr.models.acoustic import AcousticModel
from asr.models.bundle import load_bundle
from asr.padded import Padded
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig, build_tokens
from asr.training import trainer
from asr.training.health import PLATEAU_ADVICE, PLATEAU_EPOCHS, Health, fastest_speeds, infeasible
from asr.training.loop import Loop, Loss, Task
from asr.training.prepare import training_corpus, without_infeasible
from asr.training.recipe import Recipe
from tests.hooks import watching, with_dev_errors
from tests.tones import (
    FEATURES,
    MODEL,
    RATE,
    run_quietly,
    tone_recipe,
    untrained_bundle,
    write_corpus,
)


@pytest.fixture
def manifests(tmp_path: Path) -> dict[str, Path]:
    return write_corpus(tmp_path / "corpus", {"train": 8, "dev": 2})


def rewrite(manifest: Path, texts: dict[str, str]) -> None:
    """Give some utterances another transcript."""
    utterances = read_manifest(manifest)
    write_manifest(manifest, [replace(u, text=texts.get(u.id, u.text)) for u in utterances])


# --- transcripts that cannot fit ---


def test_transcripts_that_cannot_fit_are_named_and_left_out(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    trained: set[str] = set()
    rewrite(manifests["train"], {"train03": "low " * 200})
    recipe = tone_recipe(manifests, tmp_path / "out", epochs=1)
    _, shown = run_quietly(recipe, watching(lambda batch, loss: trained.update(batch.ids)))
    lines = [line for line in shown.splitlines() if "does not fit" in line]
    assert len(lines) == 1
    assert "train03" in lines[0]
    assert "399 frames needed" in lines[0]  # 200 units, and a blank between equal neighbours
    assert trained == {f"train{i:02d}" for i in range(8)} - {"train03"}


def test_a_corpus_in_which_most_cannot_fit_is_refused(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    rewrite(manifests["train"], {f"train{i:02d}": "low " * 200 for i in range(5)})
    with pytest.raises(TrainingError, match="got 5 of 8 that cannot") as error:
        run_quietly(tone_recipe(manifests, tmp_path / "out", epochs=1))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "tensorboard").exists()


@pytest.mark.parametrize(("speed", "fits"), [(1.0, True), (1.25, False)])
def test_what_fits_depends_on_the_speed(speed: float, fits: bool) -> None:
    bundle = untrained_bundle()
    text = "low high " * 10
    needed = required_frames(bundle.tokens.encode(text))
    assert needed == 20
    samples = 80 * (2 * needed - 1)  # 10 ms a frame, halved by the stride: 20 frames exactly
    utterance = Utterance("tight", Path("tight.wav"), text, samples / RATE)
    data = SpeechDataset([utterance], bundle.tokens, TextConfig(), RATE)
    assert int(bundle.model.output_lengths(torch.tensor(samples))) == needed
    assert list(infeasible(bundle.model, data, speed)) == ([] if fits else ["tight"])
    assert fastest_speeds(bundle.model, data, [1.25, 0.9, 1.0, 1.1]) == [1.0]


def test_what_fits_without_a_tempo_is_trained_on(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 2, "dev": 1})
    recipe = tone_recipe(manifests, tmp_path / "run", epochs=1)
    bundle = untrained_bundle()
    text = "low high " * 10
    samples = 80 * (2 * required_frames(bundle.tokens.encode(text)) - 1)
    utterance = Utterance("tight", Path("tight.wav"), text, samples / RATE)
    data = SpeechDataset([utterance], bundle.tokens, TextConfig(), RATE)
    augment = AugmentConfig(speeds=[1.0], tempos=[1.1, 1.2], concatenate_prob=0)
    corpus = training_corpus(recipe.model_copy(update={"augment": augment}), bundle.model, data)
    for epoch in range(20):
        ((item,),) = plan_epoch(corpus, augment, 9.0, 1, epoch)
        assert not infeasible(bundle.model, data, item.speed * item.tempo)
    augment = AugmentConfig(speeds=[1.0], tempos=[0.8, 1.0])
    slow = recipe.model_copy(update={"augment": augment})
    fast = Utterance("fast", Path("fast.wav"), text, 0.85 * samples / RATE)
    data = SpeechDataset([fast], bundle.tokens, TextConfig(), RATE)
    assert len(without_infeasible(slow, bundle, data, pytest.fail)) == 1


def test_a_spelling_layer_needs_room_for_every_character() -> None:
    tokens = untrained_bundle().tokens
    config = MODEL.model_copy(update={"hierarchical_ctc_layer": 1})
    model = AcousticModel(FEATURES, config, len(tokens))
    needed = len("▁low▁high")
    seconds = [80 * (2 * frames - 1) / RATE for frames in (needed - 1, needed)]
    utterances = [Utterance(f"{s}", Path("x.wav"), "low high", s) for s in seconds]
    data = SpeechDataset(utterances, tokens, TextConfig(), RATE)
    assert list(infeasible(model, data, 1.0)) == [f"{seconds[0]}"]
    assert not infeasible(untrained_bundle().model, data, 1.0)
    assert fastest_speeds(model, data, [1.0, 0.5]) == [0.5, 1.0]
    # Pyramid layers above the spelling one have fewer frames, for words alone.
    words = build_tokens(["low high"] * 9, TokenConfig(kind="words", word_count=1))
    config = config.model_copy(update={"layers": 2, "pyramid": 1})
    pyramid = AcousticModel(FEATURES, config, len(words))
    data = SpeechDataset(utterances, words, TextConfig(), RATE)
    assert list(infeasible(pyramid, data, 1.0)) == [f"{seconds[0]}"]


# --- losses and gradients that are not finite ---


def test_infinite_losses_are_counted_for_each_utterance() -> None:
    health = Health()
    losses = torch.tensor([1.0, torch.inf, torch.nan])
    health.count_losses(["a", "b", "c"], losses)
    health.count_losses(["b", "a", "d"], losses)
    assert health.infinite_losses == {"b": 1, "c": 1, "a": 1, "d": 1}
    health.count_losses(["a", "b", "c"], losses)
    assert health.infinite_losses == {"b": 2, "c": 2, "a": 1, "d": 1}


def test_an_infinite_loss_neither_stops_nor_spoils_training(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    # A manifest that promises more audio than there is passes the check before training.
    utterances = [
        replace(u, text="low " * 200, duration=9.0) if u.id == "train05" else u
        for u in read_manifest(manifests["train"])
    ]
    write_manifest(manifests["train"], utterances)
    losses: list[float] = []
    units = 0

    def note(batch: Batch, loss: Loss) -> None:
        nonlocal units
        for value, length in zip(loss.items, batch.targets.lengths, strict=True):
            if torch.isfinite(value):
                losses.append(float(value))
                units += int(length)

    recipe = tone_recipe(manifests, tmp_path / "out", epochs=1, batch_seconds=30.0)
    model, _ = run_quietly(recipe, watching(note))
    bundle = load_bundle(model)
    assert bundle.info["infinite_losses"] == {"train05": 1}
    assert bundle.info["skipped_steps"] == 0
    assert all(torch.isfinite(weight).all() for weight in bundle.model.state_dict().values())
    # The loss that is shown is that of the utterances that have one, a unit of theirs.
    assert len(losses) == 7
    assert read_json(tmp_path / "out" / "history.json")[0]["loss"] == pytest.approx(
        sum(losses) / units, rel=1e-5
    )


def poisoned(task: Task[Batch], how: str) -> Task[Batch]:
    """Spoil the second step's gradient, by an infinite objective or by NaN among the samples."""
    calls = itertools.count(1)

    def spoiled(batch: Batch) -> Loss:
        if next(calls) != 2:
            return task.loss(batch)
        if how == "samples":
            waves = batch.waves
            values = waves.values.clone()
            values[0, 100] = torch.nan
            return task.loss(replace(batch, waves=Padded(values, waves.lengths)))
        loss = task.loss(batch)
        return replace(loss, objective=loss.objective * torch.inf)

    return replace(task, loss=spoiled)


@pytest.mark.parametrize("how", ["objective", "samples"])
def test_a_step_with_a_bad_gradient_is_skipped_and_counted(
    manifests: dict[str, Path], tmp_path: Path, how: str
) -> None:
    snapshots: list[dict[str, torch.Tensor]] = []

    def watched(task: Task[Batch]) -> Task[Batch]:
        def stepped(loop: Loop, batch: Batch, loss: Loss) -> None:
            moments = loop.optimizer.optimizer.state_dict()["state"]
            snapshot = {name: p.detach().clone() for name, p in loop.model.named_parameters()}
            snapshot |= {f"{i}.{k}": v.clone() for i, e in moments.items() for k, v in e.items()}
            snapshots.append(snapshot)
            task.stepped(loop, batch, loss)

        return replace(poisoned(task, how), stepped=stepped)

    model, _ = run_quietly(tone_recipe(manifests, tmp_path / "out", epochs=1), watched)
    first, second, third = snapshots[:3]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(second["output.weight"], third["output.weight"])
    bundle = load_bundle(model)
    assert bundle.info["skipped_steps"] == 1
    # Running statistics are part of the model too: one bad batch must not live on in them.
    for name, weight in bundle.model.state_dict().items():
        assert torch.isfinite(weight).all(), name


# --- a model that writes nothing ---


def test_a_blank_plateau_brings_advice_once() -> None:
    health = Health()
    blank, written = {"a": "", "b": ""}, {"a": "", "b": "low"}
    advice = [health.observe_hypotheses(blank) for _ in range(PLATEAU_EPOCHS + 3)]
    assert [i for i, given in enumerate(advice, start=1) if given] == [PLATEAU_EPOCHS]
    assert health.observe_hypotheses(written) is None
    assert health.blank_epochs == 0
    again = [health.observe_hypotheses(blank) for _ in range(PLATEAU_EPOCHS)]
    assert again[-1] == PLATEAU_ADVICE


def test_the_advice_names_what_to_try() -> None:
    known = Recipe.model_json_schema()["$defs"]
    for section, key in (("TrainConfig", "batch_seconds"), ("TrainConfig", "learning_rate")):
        assert key in known[section]["properties"]
        assert f"train.{key}" in PLATEAU_ADVICE
    assert "layers" in known["ModelConfig"]["properties"]
    assert "model.layers" in PLATEAU_ADVICE
    assert "asr check" in PLATEAU_ADVICE


def test_a_training_that_writes_nothing_shows_the_advice(
    manifests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_nothing(
        model: object, dataset: SpeechDataset, tokens: object, progress: object
    ) -> dict[str, str]:
        return {utterance.id: "" for utterance in dataset.utterances}

    monkeypatch.setattr(trainer, "decode_dataset", write_nothing)
    recipe = tone_recipe(manifests, tmp_path / "out", epochs=PLATEAU_EPOCHS + 2, patience=99)
    _, shown = run_quietly(recipe)
    assert shown.count("nearly empty") == 1


# --- stopping early, and the largest batch first ---


@pytest.mark.parametrize(
    ("errors", "epochs"),
    [
        ([9, 8, 7, 6, 5, 4], 6),  # better every time
        ([9, 5, 6, 7, 4, 4], 4),  # two epochs without a better one
        ([9, 5, 5, 5, 4, 4], 4),  # as good is not better
    ],
)
def test_training_stops_when_the_dev_set_gets_no_better(
    manifests: dict[str, Path], tmp_path: Path, errors: list[int], epochs: int
) -> None:
    recipe = tone_recipe(manifests, tmp_path / "out", epochs=6, patience=2)
    run_quietly(recipe, with_dev_errors([*errors, 0]))
    assert len(read_json(tmp_path / "out" / "history.json")) == epochs


def test_the_batch_with_the_most_memory_comes_first(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    sizes: list[int] = []
    recipe = tone_recipe(manifests, tmp_path / "out", epochs=1, batch_seconds=1.5)
    run_quietly(recipe, watching(lambda batch, loss: sizes.append(batch.waves.values.numel())))
    assert len(sizes) > 2
    assert sizes[0] == max(sizes)
    assert sizes[0] <= float(recipe.train.batch_seconds) * RATE


def test_the_first_batch_is_the_largest_whatever_the_lengths() -> None:
    random = torch.Generator().manual_seed(0)
    for seed in range(20):
        durations = (0.3 + 20 * torch.rand(60, generator=random)).tolist()
        sizes = [
            len(batch) * max(item.seconds(durations) for item in batch)
            for batch in plan_epoch(Corpus(durations), AugmentConfig(), 48.0, seed, epoch=0)
        ]
        assert sizes[0] == max(sizes)
