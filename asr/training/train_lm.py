"""Train a recurrent language model on sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from rich.console import Console
from torch import Tensor

from asr.errors import LanguageModelError, TrainingError
from asr.io.files import check_replaceable
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel, save_neural
from asr.lm.ngram import exp_or_inf
from asr.padded import pad
from asr.text.normalise import TextConfig
from asr.text.tokens import Tokens
from asr.training import loop
from asr.training.checkpoint import Progress
from asr.training.optimizer import ClipNorm, LearningRate, OptimizationConfig, fixed_settings
from asr.training.place import working_in


class LanguageTraining(OptimizationConfig):
    """The network, and its optimisation."""

    model: NeuralConfig = NeuralConfig()
    batch_units: int = Field(512, ge=1)
    """Tokens in a batch, including padding; with much text, or on a GPU, more are faster."""
    learning_rate: LearningRate = 5e-3
    clip_norm: ClipNorm = 1.0


def train_language_model(
    train: Sequence[str],
    dev: Sequence[str],
    tokens: Tokens,
    config: LanguageTraining,
    out: Path,
    console: Console | None = None,
    text: TextConfig | None = None,
    hook: loop.Hook = lambda task: task,
) -> NeuralLm:
    """The model of the epoch with the lowest perplexity on `dev`, which is written to `out` as soon
    as it is found, with `text`, the normalisation of the sentences. Checkpoints are in a folder
    beside `out`, which is removed at the end: the same call resumes a stopped training. `hook` may
    replace functions of the training's `Task`.

    Raises AsrError if another training runs there, LanguageModelError for missing text or text that
    the tokens cannot encode, TrainingError for a loss or a perplexity that is not finite,
    InterruptedTraining after Ctrl-C, SIGTERM or SIGHUP.
    """
    if not train or not dev:
        raise LanguageModelError(
            "expected sentences to train on and a dev set, got none: give both"
        )
    check_replaceable(out, "lstm.json")
    torch.manual_seed(config.seed)
    model = NeuralModel(config.model, len(tokens))
    lm = NeuralLm(model, tokens)
    encoded = [lm.encode(sentence) for sentence in train]
    for sentence in dev:
        lm.encode(sentence)  # text without tokens is reported before training
    folder = out.with_name(f"{out.name}.training")
    hint = f"; {out} has the best epoch so far"
    with working_in(folder, config.epochs, console, hint=hint) as place:
        fixed = fixed_settings(config, [train, dev, tokens.units])
        state = loop.begin(model, config, place, fixed)

        def written(row: dict[str, Any]) -> NeuralLm:
            perplexity = row["dev_perplexity"] and round(row["dev_perplexity"], 4)
            info = {"epoch": row["epoch"], "dev_perplexity": perplexity, "seed": config.seed}
            chosen = NeuralLm(model.eval(), tokens, info, text)
            save_neural(out, chosen)
            return chosen

        task = loop.Task(
            batches=lambda: _batches(encoded, config, state.progress),
            loss=lambda batch: _loss(model, batch),
            validate=lambda: _validate(lm, dev),
            keep=lambda row: state.keep_best(row is _chosen(state)) and written(row),
            size=lambda batch: f"{len(batch)} sentences: lower batch_units ({config.batch_units})",
        )
        loop.run_epochs(state, hook(task))
        model.load_state_dict(state.kept)
        return written(_chosen(state))  # again: it may have been removed since


def word_nats(lm: NeuralLm, sentences: Sequence[str]) -> float:
    """The logarithm of the perplexity by word, counting the end of each sentence as one, as for
    n-gram models. Without spaces, a sentence is one word, and its perplexity may be infinite."""
    return -math.fsum(lm.score(sentences)) / _count_words(sentences)


def _count_words(sentences: Sequence[str]) -> int:
    return sum(len(sentence.split()) + 1 for sentence in sentences)


def _batches(
    encoded: Sequence[Tensor], config: LanguageTraining, progress: Progress
) -> tuple[int, AbstractContextManager[Iterable[list[Tensor]]]]:
    """Batches of sentences of similar length, in another order each epoch."""
    random = torch.Generator().manual_seed(config.seed * 100_003 + progress.epoch)
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
    shuffled = torch.randperm(len(batches), generator=random).tolist()
    left = (batches[place] for place in shuffled[progress.batch :])
    return len(batches), nullcontext(left)


def _loss(model: NeuralModel, batch: Sequence[Tensor]) -> loop.Loss:
    scores = model.targets(pad(batch).to(model.bias.device))
    mean = -scores.values[scores.mask()].mean()
    units = scores.lengths.sum()[None]
    return loop.Loss(mean, mean.detach().double() * units, units)


def _validate(lm: NeuralLm, dev: Sequence[str]) -> tuple[dict[str, Any], str]:
    nats = word_nats(lm, dev)
    a_token = nats * _count_words(dev) / sum(len(lm.encode(sentence)) - 1 for sentence in dev)
    if math.isinf(found := exp_or_inf(a_token)):
        raise TrainingError(
            f"expected a finite perplexity of a token on dev, got {found}: lower the learning rate "
            "(learning_rate)"
        )
    perplexity = exp_or_inf(nats)
    shown = perplexity if math.isfinite(perplexity) else None  # which JSON can hold
    return {"dev_nats": nats, "dev_perplexity": shown}, f"dev perplexity {perplexity:.2f} a word"


def _chosen(state: loop.Loop) -> dict[str, Any]:
    return min(state.progress.history, key=_nats)


def _nats(row: Mapping[str, Any]) -> float:
    """Of an epoch; an earlier version wrote the perplexity alone."""
    return float(row["dev_nats"] if "dev_nats" in row else math.log(row["dev_perplexity"]))
