"""AN4 as the recipe trains on it, where a copy lies beside the checkout."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from asr.dataset.cuts import Item
from asr.dataset.manifest import read_manifest
from asr.dataset.sampler import plan_epoch
from asr.dataset.speech_dataset import SpeechDataset
from asr.models.acoustic import AcousticModel
from asr.text.normalise import normalise
from asr.text.tokens import build_tokens
from asr.training.prepare import training_corpus
from asr.training.recipe import Recipe, read_recipe
from data import an4

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT.parent / "shared" / "data" / "an4"


@dataclass(frozen=True)
class Corpus:
    """The training part, and the recipe with a model of its size."""

    recipe: Recipe
    data: SpeechDataset
    model: AcousticModel

    def plan(self, epoch: int) -> list[list[Item]]:
        """The batches of an epoch, as the trainer makes them."""
        corpus = training_corpus(self.recipe, self.model, self.data)
        train = self.recipe.train
        seconds = float(train.batch_seconds)
        return plan_epoch(corpus, self.recipe.augment, seconds, train.seed, epoch)


def load() -> Corpus | None:
    """The corpus, or None and a message where there is none."""
    if not SOURCE.is_dir():
        print("  skipped: needs AN4 in ../shared/data/an4")
        return None
    recipe = read_recipe(ROOT / "recipes" / "an4" / "recipe.yaml")
    with tempfile.TemporaryDirectory() as folder:
        utterances = read_manifest(an4.prepare(Path(folder), SOURCE)["train"])
    texts = [normalise(u.text, recipe.text) for u in utterances]
    tokens = build_tokens(texts, recipe.tokens)
    data = SpeechDataset(utterances, tokens, recipe.text, recipe.features.sample_rate)
    return Corpus(recipe, data, AcousticModel(recipe.features, recipe.model, len(tokens)))


def spread(batches: list[list[Item]], count: int) -> list[list[Item]]:
    """So many batches, from the shortest to the longest utterances."""
    ordered = sorted(batches, key=len)
    return [ordered[i * (len(ordered) - 1) // (count - 1)] for i in range(count)]
