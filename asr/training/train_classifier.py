"""Train a classifier: of recordings, or of plain feature sequences such as the rows of an image."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional

from asr.augment.config import AugmentConfig
from asr.augment.specaugment import draw_distortion, spec_augment
from asr.augment.waveform import perturb_speed
from asr.config import Config
from asr.dataset.cuts import Corpus, Item
from asr.dataset.manifest import Utterance
from asr.dataset.prefetch import prefetch
from asr.dataset.sampler import plan_epoch, plan_in_order
from asr.dataset.speech_dataset import SpeechDataset
from asr.errors import AsrError, TrainingError
from asr.io.terminal import errors
from asr.models.classifier import LEVEL_DB, Classifier, ClassifierBundle, Inputs, checked_classes
from asr.models.config import ModelConfig
from asr.padded import Padded, pad
from asr.text.normalise import TextConfig
from asr.training.device import refuse_many_processes
from asr.training.optimizer import build_optimizer, learning_rate, set_rate

NO_AUGMENT = AugmentConfig(
    speeds=[1.0], vtlp=0, concatenate_prob=0, time_masks=0, frequency_masks=0
)


class ClassifyConfig(Config):
    """The optimisation; the names are those of `TrainConfig`, and mean the same."""

    epochs: int = Field(30, ge=1)
    """How often the training set is gone through."""
    batch_seconds: float = Field(24.0, gt=0)
    """Seconds of audio in a batch, padding included; of feature sequences, frames."""
    learning_rate: float = Field(2e-3, gt=0)
    """Highest learning rate, reached after the warm-up."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the training in which the learning rate rises; after it, it falls as a cosine."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's pull of the weight matrices towards zero."""
    clip_norm: float = Field(5.0, gt=0)
    """Longest gradient, as a Euclidean norm, of the loss in nats a sequence."""
    seed: int = Field(1, ge=0)
    """Decides the first weights, the batches and every random draw."""


# --- what is learnt from ---


@dataclass(frozen=True)
class LabelledBatch:
    """Shape: inputs values [B, S] or [B, T, F], labels [B] int64, B playing speeds to apply."""

    inputs: Padded
    labels: Tensor
    speeds: list[float]


class Examples(Protocol):
    """Sequences with their classes: `Recordings` or `Sequences`."""

    labels: list[int]
    """Of each, its place in the list of classes."""
    durations: list[float]
    """Seconds, or frames of feature sequences."""

    def batch(self, items: Sequence[Item]) -> LabelledBatch: ...


class Recordings:
    """Utterances whose transcript is the name of a class."""

    def __init__(
        self, utterances: Sequence[Utterance], classes: Sequence[str], sample_rate: int
    ) -> None:
        """Raises AsrError naming the first utterance of no class."""
        self.labels = [_label(u.text, classes, f"utterance {u.id}") for u in utterances]
        self.durations = [u.duration for u in utterances]
        self._dataset = SpeechDataset(utterances, None, TextConfig(), sample_rate)

    def batch(self, items: Sequence[Item]) -> LabelledBatch:
        batch = self._dataset.batch(items)
        labels = [self.labels[item.indices[0]] for item in items]
        return LabelledBatch(batch.waves, torch.tensor(labels), batch.speeds)


class Sequences:
    """Feature sequences with the names of their classes. Shape: each [T, F]."""

    def __init__(
        self, sequences: Sequence[Tensor], names: Sequence[str], classes: Sequence[str]
    ) -> None:
        """Raises AsrError for a name that is no class, ValueError for too few or too many."""
        pairs = enumerate(zip(sequences, names, strict=True))
        self.labels = [_label(name, classes, f"sequence {i}") for i, (_, name) in pairs]
        self.durations = [float(len(sequence)) for sequence in sequences]
        self._sequences = list(sequences)

    def batch(self, items: Sequence[Item]) -> LabelledBatch:
        places = [item.indices[0] for item in items]
        inputs = pad([self._sequences[i] for i in places])
        labels = torch.tensor([self.labels[i] for i in places])
        return LabelledBatch(inputs, labels, [1.0] * len(items))


def _label(name: str, classes: Sequence[str], where: str) -> int:
    if name not in classes:
        raise AsrError(
            f"{where}: expected one of the classes {', '.join(classes)}, got {name!r}: "
            "correct the text, or add the class"
        )
    return list(classes).index(name)


# --- training ---


@dataclass(frozen=True)
class EpochResult:
    """One epoch: mean loss in training (nats a sequence), what dev says of it, seconds."""

    epoch: int
    loss: float
    seconds: float
    dev_loss: float | None = None
    dev_correct: int | None = None
    dev_total: int | None = None


def chosen_epoch(history: Sequence[EpochResult]) -> EpochResult:
    """Most dev hits, then the lower loss on dev; without dev the last epoch."""

    def rank(row: EpochResult) -> tuple[float, float, int]:
        if row.dev_correct is None or row.dev_loss is None:
            return 0, 0, row.epoch
        return row.dev_correct, -row.dev_loss, row.epoch

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
) -> ClassifierBundle:
    """The classifier of the epoch that was best on `dev`, or without `dev` of the last epoch; its
    `info` holds how it came about.

    All recordings are brought to `level_db`. Of `augment`, `concatenate_prob`, `splice_prob`
    and `gain_db` do not apply (a pair of digits is of no class), and to feature sequences only the
    masks do.

    Raises TrainingError where there is nothing to learn from or the loss is not finite.
    """
    refuse_many_processes()
    for examples, purpose in ((train, "train on"), (dev, "choose the epoch by")):
        if examples is not None and not examples.labels:
            raise TrainingError(f"expected examples to {purpose}, got none: give some")
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Classifier(inputs, model_config, len(checked_classes(classes)), level_db).to(device)
    _observe(model, train, config)
    optimizer = build_optimizer(model, config)
    history: list[EpochResult] = []
    best: dict[str, Tensor] = {}
    with _bar(config.epochs, console) as bar:
        for epoch in range(config.epochs):
            started = time.monotonic()
            loss = _train_epoch(model, train, optimizer, config, augment, epoch, bar)
            result = EpochResult(epoch + 1, loss, time.monotonic() - started)
            if dev is not None:
                result = _with_dev(result, model, dev, config)
            history.append(result)
            if chosen_epoch(history) is result:
                best = {name: value.clone() for name, value in model.state_dict().items()}
            bar.console.print(_line(result), highlight=False)
    model.load_state_dict(best)
    return ClassifierBundle(model.eval(), tuple(classes), _info(history, config))


def _info(history: Sequence[EpochResult], config: ClassifyConfig) -> dict[str, Any]:
    chosen = chosen_epoch(history)
    return {
        "epoch": chosen.epoch,
        "dev_correct": chosen.dev_correct,
        "dev_total": chosen.dev_total,
        "seed": config.seed,
        "training_seconds": round(sum(row.seconds for row in history), 1),
        "history": [asdict(row) for row in history],
    }


def _with_dev(
    result: EpochResult, model: Classifier, dev: Examples, config: ClassifyConfig
) -> EpochResult:
    """With the mean loss on dev in nats a sequence, and how many are recognised."""
    started = time.monotonic()
    scores = class_scores(model, dev, config.batch_seconds)
    labels = torch.tensor(dev.labels)
    loss = functional.cross_entropy(scores, labels).item()
    hits = int((scores.argmax(dim=1) == labels).sum())
    seconds = result.seconds + time.monotonic() - started
    return EpochResult(result.epoch, result.loss, seconds, loss, hits, len(labels))


def _observe(model: Classifier, train: Examples, config: ClassifyConfig) -> None:
    """Statistics of the training set, where the features are normalised with them."""
    if model.extractor is None or model.extractor.config.cmvn != "global":
        return
    for items in plan_in_order(train.durations, config.batch_seconds):
        model.extractor.observe(train.batch(items).inputs.to(_device(model)))


def _train_epoch(
    model: Classifier,
    train: Examples,
    optimizer: torch.optim.Optimizer,
    config: ClassifyConfig,
    augment: AugmentConfig,
    epoch: int,
    bar: Progress,
) -> float:
    """One pass over the training set; its mean loss in nats a sequence."""
    model.train()
    # Without speakers nothing is joined.
    corpus = Corpus(durations=train.durations)
    plan = plan_epoch(corpus, augment, config.batch_seconds, config.seed, epoch)
    total = 0.0
    with prefetch(train.batch, plan) as batches:
        for number, batch in enumerate(batches):
            done = epoch + number / len(plan)
            set_rate(optimizer, learning_rate(done / config.epochs, config))
            scores = model(augmented(model, batch, augment))
            loss = functional.cross_entropy(scores, batch.labels.to(scores.device))
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"expected a finite loss, got {loss.item()} in epoch {epoch + 1}: lower the "
                    "learning rate, or look for broken inputs"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            total += loss.item() * len(batch.labels)
            bar.update(bar.task_ids[0], completed=epoch + (number + 1) / len(plan))
    return total / len(train.labels)


def augmented(model: Classifier, batch: LabelledBatch, augment: AugmentConfig) -> Padded:
    """Features of a training batch: another speed, vocal tract and microphone each, then masked.

    Shape: inputs [B, S] or [B, T, F] -> [B, T, F].
    """
    with torch.no_grad():
        x = batch.inputs.to(_device(model))
        if model.extractor is not None:
            x = perturb_speed(x, batch.speeds)
            x = model.extract(x, draw_distortion(len(batch.labels), augment, x.values.device))
        return spec_augment(x, augment)


@torch.no_grad()
def class_scores(model: Classifier, examples: Examples, batch_seconds: float) -> Tensor:
    """What the model says of each example, in their order. Shape: [N, V], on the CPU."""
    model.eval()
    plan = plan_in_order(examples.durations, batch_seconds)
    rows: dict[int, Tensor] = {}
    with prefetch(examples.batch, plan) as batches:
        for items, batch in zip(plan, batches, strict=True):
            scores = model(model.extract(batch.inputs.to(_device(model)))).cpu()
            rows |= {item.indices[0]: row for item, row in zip(items, scores, strict=True)}
    return torch.stack([rows[i] for i in range(len(rows))])


def predict(bundle: ClassifierBundle, examples: Examples, batch_seconds: float = 24.0) -> list[str]:
    """The likeliest class of each example, in their order."""
    places = class_scores(bundle.model, examples, batch_seconds).argmax(dim=1)
    return [bundle.classes[i] for i in places.tolist()]


def _device(model: Classifier) -> torch.device:
    return model.output.weight.device


@contextmanager
def _bar(epochs: int, console: Console | None) -> Iterator[Progress]:
    console = console or errors()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        speed_estimate_period=600,
        disable=not console.is_terminal,
    )
    bar.add_task("training", total=float(epochs))
    with bar:
        yield bar


def _line(row: EpochResult) -> str:
    dev = ""
    if row.dev_loss is not None:
        dev = f"dev {row.dev_loss:.4f}  {row.dev_correct}/{row.dev_total}  "
    return f"epoch {row.epoch:3d}  loss {row.loss:.4f}  {dev}{row.seconds:.1f} s"
