"""Examples of augmented training recordings to listen to."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr.audio.load import write_wav
from asr.augment.config import AugmentConfig
from asr.augment.noise import Sounds, load_sounds
from asr.dataset.cuts import Corpus, Item, whole
from asr.dataset.manifest import read_manifest
from asr.dataset.remote import fetch_all
from asr.dataset.sampler import plan_epoch
from asr.dataset.speech_dataset import SpeechDataset
from asr.evaluation.page import environment
from asr.io.files import atomic_path
from asr.training.recipe import Recipe
from asr.training.step import vary

VARIANTS = 4


@dataclass(frozen=True)
class Variant:
    """A file, and a description of its augmentation."""

    file: str
    done: str


@dataclass(frozen=True)
class Example:
    """An utterance of the training set: original, and augmented."""

    id: str
    text: str
    original: str
    variants: tuple[Variant, ...]


def write_examples(recipe: Recipe, out: Path, count: int) -> list[Example]:
    """Write `count` training utterances and `VARIANTS` of each as wav files, and a page that plays
    them, into `out`.

    Augmentation of features (vocal tract length, equaliser, masks, time warping) is not audible and
    left out, and so are concatenated and spliced utterances. The recipe's seed determines the
    random draws.

    Raises AsrError for an unreadable manifest, recording or folder of sounds.
    """
    utterances = read_manifest(recipe.data.train, recipe.shards)
    chosen = random.Random(recipe.train.seed).sample(utterances, min(count, len(utterances)))
    if recipe.shards is not None:
        fetch_all(recipe.data.origin, recipe.shards, chosen)
    data = SpeechDataset(chosen, None, recipe.text, recipe.features.sample_rate)
    sounds = load_sounds(recipe.augment, data.sample_rate)
    gain = recipe.features.follows_level
    alone = recipe.augment.model_copy(update={"concatenate_prob": 0.0})
    drawn: list[list[Item]] = [[] for _ in chosen]
    for epoch in range(1, VARIANTS + 1):
        plan = plan_epoch(Corpus(data.durations), alone, 60.0, recipe.train.seed, epoch)
        for item in (item for batch in plan for item in batch):
            drawn[item.indices[0]].append(item)
    out.mkdir(parents=True, exist_ok=True)
    examples = []
    for place, items in enumerate(drawn):
        original = f"{place + 1:03}-original.wav"
        write_wav(
            out / original, _played(data, whole(place), None, sounds, False), data.sample_rate
        )
        variants = []
        for number, item in enumerate(items, start=1):
            torch.manual_seed(recipe.train.seed * 1000 + place * VARIANTS + number)
            file = f"{place + 1:03}-{number}.wav"
            write_wav(out / file, _played(data, item, alone, sounds, gain), data.sample_rate)
            variants.append(Variant(file, _described(item)))
        examples.append(Example(chosen[place].id, chosen[place].text, original, tuple(variants)))
    page = environment().get_template("listen.html").render(examples=examples)
    with atomic_path(out / "listen.html") as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return examples


def _played(
    data: SpeechDataset, item: Item, augment: AugmentConfig | None, sounds: Sounds, gain: bool
) -> np.ndarray:
    """The samples of an item after the augmentation of a training step. Shape: [S]."""
    batch = data.batch([item])
    waves = batch.waves if augment is None else vary(batch, augment, sounds, gain)
    (samples,) = waves.unpad()
    played: np.ndarray = samples.numpy() / max(1.0, float(samples.abs().max()))  # a wav would clip
    return played


def _described(item: Item) -> str:
    """The draws of the plan; rooms, noise and telephone are drawn in the step and not listed."""
    parts = [f"speed {item.speed:g}"] if item.speed != 1 else []
    parts += [f"tempo {item.tempo:g}"] if item.tempo != 1 else []
    parts += [item.codec] if item.codec else []
    parts += [f"ends cut at {item.trim_db:.0f} dB"] if item.trim_db is not None else []
    return ", ".join(parts) or "unchanged"
