"""A tiny spoken corpus of tones, and a recipe that learns it in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asr.audio import write_wav
from asr.features.augment import AugmentConfig
from asr.features.extractor import FeatureConfig
from asr.manifest import Utterance, write_manifest
from asr.models.acoustic import AcousticModel, ModelConfig
from asr.models.bundle import Bundle
from asr.text import TextConfig
from asr.tokens import TokenConfig, build_tokens
from asr.training.recipe import DataConfig, Recipe, TrainConfig

RATE = 8000  # Hz
WORDS = {"low": (300, 450), "high": (1500, 2200), "up": (500, 1800), "down": (1800, 500)}
"""Each word is two tones, one after the other, in Hz."""
TONE_SECONDS = 0.07
GAP_SECONDS = 0.05

FEATURES = FeatureConfig(sample_rate=RATE, bands=16)
MODEL = ModelConfig(channels=(4,), strides=(2,), layers=1, hidden=24, dropout=0.0)
TOKENS = TokenConfig(kind="words", word_count=1)


def speak(text: str, seed: int = 0) -> np.ndarray:
    """Samples [S] of the words' tones, with gaps, faint noise and a pitch that varies by `seed`."""
    random = np.random.default_rng(seed)
    times = np.arange(int(TONE_SECONDS * RATE)) / RATE
    gap = np.zeros(int(GAP_SECONDS * RATE))
    pieces = [gap]
    pitch = random.uniform(0.95, 1.05)
    for word in text.split():
        pieces += [0.4 * np.sin(2 * np.pi * pitch * hertz * times) for hertz in WORDS[word]]
        pieces.append(gap)
    samples = np.concatenate(pieces)
    return (samples + random.normal(0, 0.005, len(samples))).astype(np.float32)


def sentence(seed: int) -> str:
    """One to five words."""
    random = np.random.default_rng(seed)
    return " ".join(str(word) for word in random.choice(list(WORDS), random.integers(1, 6)))


def write_corpus(folder: Path, sizes: dict[str, int]) -> dict[str, Path]:
    """Recordings and a manifest for each part, with `sizes` utterances and a speaker of its own."""
    manifests = {}
    for part, size in sizes.items():
        utterances = []
        for number in range(size):
            name = f"{part}{number:02d}"
            seed = 1000 * len(manifests) + number
            samples = speak(sentence(seed), seed)
            path = folder / part / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_wav(path, samples, RATE)
            seconds = len(samples) / RATE
            utterances.append(Utterance(name, path, sentence(seed), seconds, f"{part} speaker"))
        manifests[part] = folder / f"{part}.jsonl"
        write_manifest(manifests[part], utterances)
    return manifests


def tone_recipe(manifests: dict[str, Path], out: Path, **train: object) -> Recipe:
    """A recipe for the corpus; `train` changes its optimisation."""
    settings: dict[str, object] = {
        "epochs": 2,
        "batch_seconds": 4.0,
        "learning_rate": 0.01,
        "average": 2,
        "precision": "fp32",
    }
    return Recipe(
        data=DataConfig(train=manifests["train"], dev=manifests["dev"]),
        out=out,
        tokens=TOKENS,
        features=FEATURES,
        augment=AugmentConfig(
            speeds=[1.0], time_masks=1, time_mask_frames=2, frequency_masks=1, frequency_mask_bands=2
        ),
        model=MODEL,
        train=TrainConfig.model_validate(settings | train),
    )


def untrained_bundle() -> Bundle:
    """A model for the corpus's words as it is before training."""
    tokens = build_tokens([" ".join(WORDS)], TOKENS)
    return Bundle(AcousticModel(FEATURES, MODEL, len(tokens)), tokens, TextConfig())
