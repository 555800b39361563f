"""Comparison of variants of a recipe with equal numbers of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from asr.evaluation.error_rate import ErrorCounts
from asr.evaluation.evaluate import evaluate
from asr.io.files import read_json
from asr.models.acoustic import AcousticModel
from asr.text.normalise import as_units, normalise
from asr.text.tokens import build_tokens
from asr.training.recipe import Recipe, read_recipe
from asr.training.trainer import train


@dataclass(frozen=True)
class Run:
    """One member trained with one seed. `words` are the test errors by utterance."""

    member: str
    seed: int
    epochs: int
    hidden: int
    parameters: int
    seconds_per_epoch: float
    """Of the fastest epoch, which other work on the machine disturbed least."""
    real_time_factor: float
    machine: str
    date: str
    words: dict[str, ErrorCounts]
    model: str
    """Folder of the model."""


@dataclass(frozen=True)
class RunSettings:
    """The common settings of all runs of a comparison."""

    recipe: Path
    out: Path
    test: Path
    budget: float
    """Target number of parameters of every model."""


def train_member(
    shared: RunSettings, member: str, seed: int, settings: Sequence[str], hidden: int | None = None
) -> Run:
    """Train one member, or reuse an earlier training, and evaluate it.

    `settings` are `key=value` overrides of the recipe; `hidden` is the number of cells per
    direction, if it is not to follow from the budget. Raises AsrError like training.
    """
    # One folder per schedule and budget: trainings with other ones are different runs.
    epochs = read_recipe(shared.recipe, settings).train.epochs
    name = f"{member.replace(',', '').replace(' ', '-')}-{seed}"
    out = shared.out / f"{epochs}-epochs-{shared.budget / 1e6:g}M" / name
    settings = [*settings, f"train.seed={seed}", f"out={out}"]
    hidden = hidden or hidden_for(shared, settings)
    recipe = read_recipe(shared.recipe, [*settings, f"model.hidden={hidden}"])
    report = evaluate(train(recipe), shared.test, out / "test").report
    parameters, speed = report.facts.parameters, report.facts.real_time_factor
    assert parameters is not None
    assert speed is not None
    seconds = min(row["seconds"] for row in read_json(out / "history.json"))
    return Run(
        member,
        seed,
        epochs,
        hidden,
        parameters,
        seconds,
        speed,
        report.facts.machine,
        read_json(out / "model" / "info.json")["date"],  # an earlier training is not repeated
        {utterance.id: utterance.words for utterance in report.scores.utterances},
        str(out / "model"),
    )


def hidden_for(shared: RunSettings, settings: Sequence[str]) -> int:
    """The number of cells per direction for which the parameters come closest to the budget.

    Raises AsrError if even the smallest number is too large.
    """
    recipe = read_recipe(shared.recipe, settings)
    texts = [u.text for u in read_manifest(recipe.data.train)]
    text = as_units(recipe.text, recipe.tokens, texts)
    units = len(build_tokens([normalise(row, text) for row in texts], recipe.tokens))

    def excess(hidden: int) -> float:
        return _parameters(recipe, 4 * hidden, units) - shared.budget

    low, high = 2, 512  # in steps of four, so that attention heads divide them
    if excess(low) > 0:
        raise AsrError(
            f"expected a budget of more parameters, got {shared.budget:g}: raise --parameters"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return 4 * min(low, high, key=lambda hidden: abs(excess(hidden)))


def _parameters(recipe: Recipe, hidden: int, units: int) -> int:
    config = recipe.model.model_copy(update={"hidden": hidden})
    with torch.device("meta"):  # shapes only: initial weights of many cells take seconds
        return AcousticModel(recipe.features, config, units).parameter_count()


def pooled(member: str, runs: Sequence[Run], seeds: set[int]) -> dict[str, ErrorCounts]:
    """Test errors by utterance, summed over all seeds: an utterance is one draw of the bootstrap,
    however often it is recognised."""
    chosen = [run.words for run in runs if run.member == member and run.seed in seeds]
    return {name: sum((words[name] for words in chosen), ErrorCounts()) for name in chosen[0]}
