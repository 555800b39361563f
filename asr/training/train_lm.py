"""Train a recurrent language model on sentences."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from asr.config import Config
from asr.errors import LanguageModelError, TrainingError
from asr.io.files import check_replaceable, locked
from asr.io.terminal import errors
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel, save_neural
from asr.padded import pad
from asr.text.normalise import TextConfig
from asr.text.tokens import Tokens
from asr.training.device import refuse_many_processes
from asr.training.optimizer import build_optimizer, learning_rate, set_rate

LARGEST = 700.0  # nats whose exponential is still a number


class LanguageTraining(Config):
    """The network, and how it learns."""

    model: NeuralConfig = NeuralConfig()
    epochs: int = Field(30, ge=1)
    """How often the text is gone through."""
    batch_units: int = Field(512, ge=1)
    """Units in a batch, padding included; with much text, or on a GPU, more are faster."""
    learning_rate: float = Field(5e-3, gt=0)
    """Highest learning rate, reached after the warm-up."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the training in which the learning rate rises; after it, it falls as a cosine."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's pull of the weight matrices towards zero."""
    clip_norm: float = Field(1.0, gt=0)
    """Longest gradient, as a Euclidean norm, of the loss in nats a unit."""
    seed: int = Field(1, ge=0)
    """Decides the first weights, the batches and every random draw."""


@dataclass(frozen=True)
class Epoch:
    """Mean loss in training and perplexity on dev, by word with ends of sentences."""

    number: int
    loss: float
    perplexity: float
    seconds: float


def train_language_model(
    train: Sequence[str],
    dev: Sequence[str],
    tokens: Tokens,
    config: LanguageTraining,
    out: Path,
    console: Console | None = None,
    text: TextConfig | None = None,
) -> NeuralLm:
    """The model of the epoch with the lowest perplexity on `dev`, which is kept in `out` as soon as
    it is found, with `text`: how the sentences are spelled. A lock file beside `out` keeps a second
    training out.

    Raises AsrError where another training is at work there, LanguageModelError where there is no
    text or the units cannot write it, TrainingError for a loss or a perplexity that is not finite.
    """
    if not train or not dev:
        raise LanguageModelError("expected sentences to learn from and dev, got none: give some")
    refuse_many_processes()
    check_replaceable(out, "lstm.json")
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = NeuralModel(config.model, len(tokens)).to(device)
    lm = NeuralLm(model, tokens)
    encoded = [lm.encode(sentence) for sentence in train]
    for sentence in dev:
        lm.encode(sentence)  # what cannot be written is reported before any time is spent
    optimizer = build_optimizer(model, config)
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    console = console or errors()
    with (
        locked(out.with_name(f".{out.name}.lock"), "training"),
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("training", total=float(config.epochs))
        for number in range(config.epochs):
            started, total, units = time.monotonic(), 0.0, 0
            batches = list(_batches(encoded, config, number))
            for place, batch in enumerate(batches):
                done = number + place / len(batches)
                set_rate(optimizer, learning_rate(done / config.epochs, config))
                loss, count = _step(model, batch, optimizer, config)
                total, units = total + loss, units + count
                bar.update(task, completed=number + (place + 1) / len(batches))
            seconds = time.monotonic() - started
            perplexity = word_perplexity(lm, dev)
            if not math.isfinite(perplexity):
                raise TrainingError(
                    f"expected a finite perplexity on dev, got {perplexity}: lower the learning "
                    "rate (learning_rate)"
                )
            history.append(Epoch(number + 1, total / units, perplexity, seconds))
            if history[-1] == min(history, key=lambda row: row.perplexity):
                best = {name: value.clone() for name, value in model.state_dict().items()}
                save_neural(out, NeuralLm(model, tokens, _info(history[-1], config), text))
            console.print(_line(history[-1]), highlight=False)  # last: nobody may read it
    model.load_state_dict(best)
    chosen = min(history, key=lambda row: row.perplexity)
    return NeuralLm(model.eval(), tokens, _info(chosen, config), text)


def word_perplexity(lm: NeuralLm, sentences: Sequence[str]) -> float:
    """Of the words, with the end of each sentence as one more: as with n-gram models."""
    words = sum(len(sentence.split()) + 1 for sentence in sentences)
    surprise = -math.fsum(lm.score(sentences)) / words
    return math.exp(surprise) if surprise < LARGEST else math.inf


def _batches(
    encoded: Sequence[Tensor], config: LanguageTraining, epoch: int
) -> Iterator[list[Tensor]]:
    """Sentences of similar length together, in another order each epoch."""
    random = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    noise = torch.rand(len(encoded), generator=random).tolist()
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]) + noise[i], i))
    batches: list[list[Tensor]] = []
    batch: list[Tensor] = []
    for i in order:
        if batch and (len(batch) + 1) * len(encoded[i]) > config.batch_units:
            batches.append(batch)
            batch = []
        batch.append(encoded[i])
    batches.append(batch)
    for place in torch.randperm(len(batches), generator=random).tolist():
        yield batches[place]


def _step(
    model: NeuralModel,
    batch: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    config: LanguageTraining,
) -> tuple[float, int]:
    """Learn from a batch; the sum of its losses in nats, and of how many units."""
    model.train()
    scores = model.targets(pad(batch).to(model.bias.device))
    loss = -scores.values[scores.mask()].mean()
    if not math.isfinite(loss.item()):
        raise TrainingError(
            f"expected a finite loss, got {loss.item()}: lower the learning rate (learning_rate)"
        )
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    count = int(scores.lengths.sum())
    return loss.item() * count, count


def _info(epoch: Epoch, config: LanguageTraining) -> dict[str, float | int]:
    return {
        "epoch": epoch.number,
        "dev_perplexity": round(epoch.perplexity, 4),
        "seed": config.seed,
    }


def _line(row: Epoch) -> str:
    return (
        f"epoch {row.number:3d}  loss {row.loss:.4f} a unit  dev perplexity "
        f"{row.perplexity:.2f} a word  {row.seconds:.1f} s"
    )
