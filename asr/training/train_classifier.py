"""Train a classifier of recordings, or of feature sequences such as the rows of an image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor
from torch.nn import functional

from asr.augment.config import AugmentConfig
from asr.augment.specaugment import draw_distortion, spec_augment
from asr.augment.waveform import perturb_speed
from asr.dataset.cuts import Corpus, Item
from asr.dataset.manifest import Utterance
from asr.dataset.prefetch import prefetch
from asr.dataset.sampler import plan_epoch, plan_in_order
from asr.dataset.speech_dataset import SpeechDataset
from asr.errors import AsrError, TrainingError
from asr.features.transforms import utterance_statistics
from asr.models.classifier import LEVEL_DB, Classifier, ClassifierBundle, Inputs, checked_classes
from asr.models.config import ModelConfig
from asr.padded import Padded, pad
from asr.text.normalise import TextConfig
from asr.training import loop
from asr.training.checkpoint import Progress
from asr.training.optimizer import LearningRate, OptimizationConfig, fixed_settings
from asr.training.place import working_in

NO_AUGMENT = AugmentConfig(
    speeds=[1.0], vtlp=0, concatenate_prob=0, time_masks=0, frequency_masks=0
)


class ClassifyConfig(OptimizationConfig):
    """The optimisation of a classifier."""

    batch_seconds: float = Field(24.0, gt=0)
    """Seconds of audio in a batch, including padding; for feature sequences, frames."""
    learning_rate: LearningRate = 2e-3


# --- training data ---


@dataclass(frozen=True)
class LabelledBatch:
    """Shape: inputs values [B, S] or [B, T, F], labels [B] int64, B playing speeds to apply, B
    lengths of inputs, on the host."""

    inputs: Padded
    labels: Tensor
    speeds: list[float]
    samples: list[int]


class Examples(Protocol):
    """Sequences with their classes: `Recordings` or `Sequences`."""

    labels: list[int]
    """The index of each example's class."""
    durations: list[float]
    """Seconds, or frames of feature sequences."""

    def batch(self, items: Sequence[Item]) -> LabelledBatch: ...


class Recordings:
    """Utterances whose transcript is the name of a class."""

    def __init__(
        self, utterances: Sequence[Utterance], classes: Sequence[str], sample_rate: int
    ) -> None:
        """Raises AsrError naming the first utterance of an unknown class."""
        self.labels = [_label(u.text, classes, f"utterance {u.id}") for u in utterances]
        self.durations = [u.duration for u in utterances]
        self._dataset = SpeechDataset(utterances, None, TextConfig(), sample_rate)

    def batch(self, items: Sequence[Item]) -> LabelledBatch:
        batch = self._dataset.batch(items)
        labels = [self.labels[item.indices[0]] for item in items]
        return LabelledBatch(batch.waves, torch.tensor(labels), batch.speeds, batch.samples)


class Sequences:
    """Feature sequences with the names of their classes. Shape: each [T, F]."""

    def __init__(
        self, sequences: Sequence[Tensor], names: Sequence[str], classes: Sequence[str]
    ) -> None:
        """Raises AsrError for an unknown class, ValueError for too few or too many labels."""
        pairs = enumerate(zip(sequences, names, strict=True))
        self.labels = [_label(name, classes, f"sequence {i}") for i, (_, name) in pairs]
        self.durations = [float(len(sequence)) for sequence in sequences]
        self._sequences = list(sequences)

    def batch(self, items: Sequence[Item]) -> LabelledBatch:
        places = [item.indices[0] for item in items]
        inputs = pad([self._sequences[i] for i in places])
        labels = torch.tensor([self.labels[i] for i in places])
        return LabelledBatch(inputs, labels, [1.0] * len(items), inputs.lengths.tolist())


def _label(name: str, classes: Sequence[str], where: str) -> int:
    if name not in classes:
        raise AsrError(
            f"{where}: expected one of the classes {', '.join(classes)}, got {name!r}: "
            "correct the text, or add the class"
        )
    return list(classes).index(name)


# --- training ---


def chosen_epoch(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Most correct on dev, then the lower loss on dev; without dev the last epoch."""

    def rank(row: dict[str, Any]) -> tuple[float, float, int]:
        return row.get("dev_correct", 0), -row.get("dev_loss", 0.0), row["epoch"]

    return max(history, key=rank)


def train_classifier(
    inputs: Inputs,
    model_config: ModelConfig,
    classes: Sequence[str],
    train: Examples,
    dev: Examples | None,
    config: ClassifyConfig,
    augment: AugmentConfig = NO_AUGMENT,
    console: Console | None = None,
    level_db: float = LEVEL_DB,
    folder: Path | None = None,
    hook: loop.Hook = lambda task: task,
) -> ClassifierBundle:
    """The classifier of the best epoch on `dev`, or without `dev` of the last epoch; its `info`
    describes its training.

    All recordings are scaled to `level_db`. Of `augment`, recordings use `speeds`, `codec_prob`,
    `trim_prob`, `vtlp`, `equaliser_db` and the masks; feature sequences use only the masks. Other
    settings have no effect; `tempos` must be 1. `folder` holds checkpoints until the training ends:
    the same call resumes a stopped one. `hook` may replace functions of the training's `Task`.

    Raises TrainingError without data or for a loss that is not finite, and with a `folder`
    InterruptedTraining after Ctrl-C, SIGTERM or SIGHUP.
    """
    for examples, purpose in ((train, "train on"), (dev, "choose the epoch by")):
        if examples is not None and not examples.labels:
            raise TrainingError(f"expected examples to {purpose}, got none: give some")
    torch.manual_seed(config.seed)
    model = Classifier(inputs, model_config, len(checked_classes(classes)), level_db)
    with working_in(folder, config.epochs, console) as place:
        data = [[part.labels, list(part.durations)] for part in (train, dev) if part is not None]
        features = inputs if isinstance(inputs, int) else inputs.model_dump(mode="json")
        settings = model_config.model_dump(mode="json"), augment.model_dump(mode="json")
        known = [features, *settings, level_db, list(classes), data]
        state = loop.begin(model, config, place, fixed_settings(config, known))
        if not state.progress.step:
            _observe(model, train, config)
        task = loop.Task(
            batches=lambda: _batches(train, config, augment, state.progress),
            loss=lambda batch: _loss(model, batch, augment),
            validate=lambda: _validate(model, dev, config),
            keep=lambda row: state.keep_best(row is chosen_epoch(state.progress.history)),
            size=lambda batch: f"{len(batch.labels)} sequences: lower batch_seconds",
        )
        loop.run_epochs(state, hook(task))
    model.load_state_dict(state.kept)
    chosen = chosen_epoch(state.progress.history)
    info = {
        "epoch": chosen["epoch"],
        "dev_correct": chosen.get("dev_correct"),
        "dev_total": chosen.get("dev_total"),
        "seed": config.seed,
        "training_seconds": round(state.progress.total_seconds, 1),
        "history": state.progress.history,
    }
    return ClassifierBundle(model.eval(), tuple(classes), info)


def _validate(
    model: Classifier, dev: Examples | None, config: ClassifyConfig
) -> tuple[dict[str, Any], str]:
    """The mean loss on dev in nats per sequence, and the number of correct sequences."""
    if dev is None:
        return {}, ""
    scores = class_scores(model, dev, config.batch_seconds)
    labels = torch.tensor(dev.labels)
    loss = functional.cross_entropy(scores, labels).item()
    hits = int((scores.argmax(dim=1) == labels).sum())
    values = {"dev_loss": loss, "dev_correct": hits, "dev_total": len(labels)}
    return values, f"dev {loss:.4f}  {hits}/{len(labels)}"


def _observe(model: Classifier, train: Examples, config: ClassifyConfig) -> None:
    """Collect statistics of the training set, if the features are normalised with them."""
    if model.extractor is None or not model.extractor.config.of_training_set:
        return
    for items in plan_in_order(train.durations, config.batch_seconds):
        model.extractor.observe(train.batch(items).inputs.to(_device(model)))


def _batches(
    train: Examples, config: ClassifyConfig, augment: AugmentConfig, progress: Progress
) -> tuple[int, AbstractContextManager[Iterable[LabelledBatch]]]:
    # Without speakers nothing is concatenated.
    corpus = Corpus(durations=train.durations)
    plan = plan_epoch(corpus, augment, config.batch_seconds, config.seed, progress.epoch)
    return len(plan), prefetch(train.batch, plan[progress.batch :])


def _loss(model: Classifier, batch: LabelledBatch, augment: AugmentConfig) -> loop.Loss:
    scores = model(augmented(model, batch, augment))
    loss = functional.cross_entropy(scores, batch.labels.to(scores.device, non_blocking=True))
    count = torch.tensor([len(batch.labels)])
    return loop.Loss(loss, loss.detach().cpu().double() * count, count)


def augmented(model: Classifier, batch: LabelledBatch, augment: AugmentConfig) -> Padded:
    """Features of a training batch: with random speed, vocal tract length and equaliser, masked.

    Shape: inputs [B, S] or [B, T, F] -> [B, T, F].
    """
    with torch.no_grad():
        x = batch.inputs.to(_device(model))
        if model.extractor is not None:
            x = perturb_speed(x, batch.speeds, batch.samples)
            x = model.extract(x, draw_distortion(len(batch.labels), augment, x.values.device))
        centred = model.extractor is None or model.extractor.config.centred
        return spec_augment(x, augment, 0.0 if centred else utterance_statistics(x)[0])


@torch.no_grad()
def class_scores(model: Classifier, examples: Examples, batch_seconds: float) -> Tensor:
    """The scores of each example, in order. Shape: [N, V], on the CPU."""
    model.eval()
    plan = plan_in_order(examples.durations, batch_seconds)
    rows: dict[int, Tensor] = {}
    with prefetch(examples.batch, plan) as batches:
        for items, batch in zip(plan, batches, strict=True):
            scores = model(model.extract(batch.inputs.to(_device(model)))).cpu()
            rows |= {item.indices[0]: row for item, row in zip(items, scores, strict=True)}
    return torch.stack([rows[i] for i in range(len(rows))])


def predict(bundle: ClassifierBundle, examples: Examples, batch_seconds: float = 24.0) -> list[str]:
    """The most probable class of each example, in order."""
    places = class_scores(bundle.model, examples, batch_seconds).argmax(dim=1)
    return [bundle.classes[i] for i in places.tolist()]


def _device(model: Classifier) -> torch.device:
    return model.output.weight.device
