from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from asr.augment.config import AugmentConfig
from asr.dataset.cuts import whole
from asr.dataset.manifest import Utterance
from asr.errors import AsrError, TrainingError
from asr.features.extractor import FeatureConfig
from asr.models.classifier import ClassifierBundle
from asr.models.config import ModelConfig
from asr.padded import Padded
from asr.training import train_classifier as training
from asr.training.train_classifier import (
    NO_AUGMENT,
    ClassifyConfig,
    Recordings,
    Sequences,
    augmented,
    chosen_epoch,
    class_scores,
    predict,
    train_classifier,
)

RATE = 8000
PITCHES = {"high": 1800.0, "low": 500.0}
MODEL = ModelConfig(channels=(), strides=(), layers=1, hidden=8, dropout=0.1)
QUIET = Console(quiet=True)


def rising_or_falling(count: int, seed: int) -> tuple[list[torch.Tensor], list[str]]:
    """Noisy slopes of different lengths: no single frame tells the class. Shape: each [T, 1]."""
    random = torch.Generator().manual_seed(seed)
    sequences, names = [], []
    for i in range(count):
        T = int(torch.randint(6, 14, (), generator=random))
        slope = torch.linspace(-1, 1, T) * (1 if i % 2 else -1)
        sequences.append(slope[:, None] + 0.3 * torch.randn(T, 1, generator=random))
        names.append("rising" if i % 2 else "falling")
    return sequences, names


def slopes(count: int, seed: int) -> Sequences:
    return Sequences(*rising_or_falling(count, seed), classes=("falling", "rising"))


def tones(folder: Path, count: int, seed: int) -> list[Utterance]:
    random = np.random.default_rng(seed)
    utterances = []
    for i in range(count):
        name = sorted(PITCHES)[i % 2]
        time = np.arange(int(RATE * random.uniform(0.1, 0.3))) / RATE
        samples = 0.2 * np.sin(2 * np.pi * PITCHES[name] * random.uniform(0.9, 1.1) * time)
        path = folder / f"{seed}-{i}.wav"
        soundfile.write(path, samples + 0.01 * random.standard_normal(len(time)), RATE)
        utterances.append(Utterance(path.stem, path, name, len(time) / RATE))
    return utterances


def trained(seed: int = 1, **more: float) -> ClassifierBundle:
    config = ClassifyConfig(epochs=4, batch_seconds=100, learning_rate=0.02, seed=seed)
    config = config.model_copy(update=more)
    train, dev = slopes(80, 0), slopes(20, 1)
    return train_classifier(1, MODEL, ("falling", "rising"), train, dev, config, console=QUIET)


def test_sequences_are_learnt() -> None:
    bundle = trained()
    sequences, names = rising_or_falling(50, seed=2)
    test = Sequences(sequences, names, bundle.classes)
    said = predict(bundle, test)
    assert sum(a == b for a, b in zip(said, names, strict=True)) >= 48
    # In the order of the examples, and as the bundle says on its own.
    assert [bundle.classify(Padded(x[None], torch.tensor([len(x)])))[0] for x in sequences] == said


def test_recordings_are_learnt(tmp_path: Path) -> None:
    classes = sorted(PITCHES)
    parts = [
        Recordings(tones(tmp_path, count, seed), classes, RATE)
        for count, seed in [(40, 0), (10, 1), (20, 2)]
    ]
    features = FeatureConfig(sample_rate=RATE, bands=16, cmvn="global")
    augment = AugmentConfig(
        speeds=[0.95, 1.0, 1.05], vtlp=0.05, time_mask_frames=3, frequency_mask_bands=3, gain_db=3
    )
    config = ClassifyConfig(epochs=6, batch_seconds=2, learning_rate=0.02)
    bundle = train_classifier(features, MODEL, classes, parts[0], parts[1], config, augment, QUIET)
    right = [
        name == classes[label]
        for name, label in zip(predict(bundle, parts[2]), parts[2].labels, strict=True)
    ]
    assert sum(right) >= 19
    # The statistics of the training set were taken before the first step.
    assert bundle.model.extractor is not None
    assert bundle.model.extractor.normalisation is not None
    assert int(bundle.model.extractor.normalisation.frames) > 0


def test_the_same_seed_gives_the_same_model_and_another_another() -> None:
    first, again, other = trained(), trained(), trained(seed=2)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert not torch.equal(first.model.output.weight, other.model.output.weight)


def test_the_model_is_that_of_its_best_epoch() -> None:
    # At this rate the later epochs may well be worse; whichever is kept must be the one reported.
    bundle = trained(learning_rate=0.3)
    dev = slopes(20, 1)
    hits = class_scores(bundle.model, dev, 100).argmax(dim=1) == torch.tensor(dev.labels)
    rows = bundle.info["history"]
    assert int(hits.sum()) == bundle.info["dev_correct"] == max(r["dev_correct"] for r in rows)
    best = rows[bundle.info["epoch"] - 1]
    assert best["dev_loss"] == min(
        r["dev_loss"] for r in rows if r["dev_correct"] == best["dev_correct"]
    )
    assert not bundle.model.training


def test_of_equal_hits_the_lower_loss_is_better() -> None:
    worse, better, fewer = (
        {"epoch": epoch, "dev_loss": loss, "dev_correct": hits}
        for epoch, loss, hits in ((1, 0.5, 9), (2, 0.4, 9), (3, 0.1, 8))
    )
    assert chosen_epoch([worse, better, fewer]) is better


def test_without_dev_the_last_epoch_is_taken() -> None:
    config = ClassifyConfig(epochs=3, batch_seconds=100, learning_rate=0.02)
    sequences, names = rising_or_falling(20, seed=2)
    sets = slopes(80, 0), None
    bundle = train_classifier(1, MODEL, ("falling", "rising"), *sets, config, console=QUIET)
    assert bundle.info["epoch"] == 3
    assert bundle.info["dev_correct"] is None
    # Dev draws no random numbers, so the same training with it passes through the same weights.
    watched = train_classifier(
        1, MODEL, ("falling", "rising"), slopes(80, 0), slopes(20, 1), config, console=QUIET
    )
    losses = [row["loss"] for row in bundle.info["history"]]
    assert losses == [row["loss"] for row in watched.info["history"]]
    test = Sequences(sequences, names, bundle.classes)
    assert predict(bundle, test).count("rising") == pytest.approx(names.count("rising"), abs=2)


def test_only_what_a_training_wrote_is_removed(tmp_path: Path) -> None:
    for name, kept in (("new", False), ("used", True)):
        folder = tmp_path / name
        if kept:
            folder.mkdir()
            for file in ("report.json", "checkpoint-notes.txt"):
                (folder / file).write_text("{}")
        config = ClassifyConfig(epochs=1, batch_seconds=100)
        data = slopes(8, 0), slopes(4, 1)
        train_classifier(
            1, MODEL, ("falling", "rising"), *data, config, console=QUIET, folder=folder
        )
        assert folder.exists() == kept
    kept_files = sorted(path.name for path in (tmp_path / "used").iterdir())
    assert kept_files == ["checkpoint-notes.txt", "report.json"]


def test_scores_do_not_depend_on_the_batches() -> None:
    model = trained().model
    examples = slopes(9, 3)
    torch.testing.assert_close(class_scores(model, examples, 1), class_scores(model, examples, 1e6))


def test_recordings_are_varied_and_sequences_only_masked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    classes = sorted(PITCHES)
    recordings = Recordings(tones(tmp_path, 2, 0), classes, RATE)
    features = FeatureConfig(sample_rate=RATE, bands=16)
    model = training.Classifier(features, MODEL, 2)
    plain = recordings.batch([whole(0), whole(1)])
    fast = recordings.batch([whole(0, speed=1.25), whole(1)])
    expected = model.extract(plain.inputs)
    assert torch.equal(augmented(model, plain, NO_AUGMENT).values, expected.values)
    lengths = augmented(model, fast, NO_AUGMENT).lengths
    assert int(lengths[0]) == pytest.approx(int(expected.lengths[0]) / 1.25, abs=1)
    assert int(lengths[1]) == int(expected.lengths[1])
    warped = augmented(model, plain, NO_AUGMENT.model_copy(update={"vtlp": 0.3}))
    assert not torch.equal(warped.values, expected.values)
    sequences = slopes(2, 0)
    batch = sequences.batch([whole(0, speed=1.25), whole(1)])
    model = training.Classifier(1, MODEL, 2)
    strong = AugmentConfig(speeds=[1.25], vtlp=0.3, time_masks=0, frequency_masks=0)
    assert augmented(model, batch, strong).values.equal(batch.inputs.values)
    masked = AugmentConfig(time_masks=200, frequency_masks=0)
    assert not augmented(model, batch, masked).values.any()


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    utterances = tones(tmp_path, 1, 0)
    with pytest.raises(AsrError, match="0-0: expected one of the classes a, b, got 'high'"):
        Recordings(utterances, ["a", "b"], RATE)
    with pytest.raises(AsrError, match=r"sequence 1.*'c'"):
        Sequences([torch.zeros(2, 1)] * 2, ["a", "c"], ["a", "b"])


def test_nothing_to_learn_from_and_broken_inputs_are_one_line() -> None:
    config = ClassifyConfig(epochs=1)
    some, classes = slopes(4, 0), ("falling", "rising")
    none = slopes(0, 0)
    for train, dev, purpose in [(none, some, "train on"), (some, none, "choose the epoch by")]:
        with pytest.raises(TrainingError, match=f"examples to {purpose}, got none"):
            train_classifier(1, MODEL, classes, train, dev, config, console=QUIET)
    broken = Sequences([torch.full((4, 1), torch.nan)] * 4, ["falling", "rising"] * 2, classes)
    with pytest.raises(TrainingError, match="a loss of nan in epoch 1"):
        train_classifier(1, MODEL, classes, broken, some, config, console=QUIET)


def test_progress_shows_epochs_and_time_left() -> None:
    console = Console(file=io.StringIO(), record=True, width=100, force_terminal=True)
    config = ClassifyConfig(epochs=2, batch_seconds=100)
    train_classifier(
        1, MODEL, ("falling", "rising"), slopes(8, 0), slopes(4, 1), config, console=console
    )
    shown = console.export_text()
    assert "epoch   2" in shown
    assert "left" in shown
