"""A tiny spoken corpus of tones, and a recipe that learns it in seconds."""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from asr.audio.load import write_wav
from asr.augment.config import AugmentConfig
from asr.dataset.manifest import Utterance, write_manifest
from asr.features.extractor import FeatureConfig
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.models.config import ModelConfig
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig, build_tokens
from asr.training.loop import Hook
from asr.training.recipe import DataConfig, Recipe, TrainConfig
from asr.training.trainer import train

RATE = 8000  # Hz
WORDS = {"low": (300, 450), "high": (1500, 2200), "up": (500, 1800), "down": (1800, 500)}
"""Each word is two tones, one after the other, in Hz."""
TONE_SECONDS = 0.07
GAP_SECONDS = 0.05

FEATURES = FeatureConfig(sample_rate=RATE, bands=16)
MODEL = ModelConfig(channels=(4,), strides=(2,), layers=1, hidden=24, dropout=0.0)
TOKENS = TokenConfig(kind="words", word_count=1)
SMALL = [
    "features.sample_rate=8000",
    "features.bands=16",
    "model.layers=1",
    "model.hidden=8",
    "train.epochs=1",
]
"""What recipes propose is for real speech; these make it fit a corpus of tones."""


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
    manifests: dict[str, Path] = {}
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


def write_recordings(folder: Path, speakers: dict[str, int]) -> list[Path]:
    """So many recordings of each speaker in a sub-folder, each with its text beside it."""
    paths = []
    for place, (speaker, count) in enumerate(speakers.items()):
        (folder / speaker).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            seed = 1000 * place + number
            paths.append(folder / speaker / f"{speaker}{number:02d}.wav")
            write_wav(paths[-1], speak(sentence(seed), seed), RATE)
            paths[-1].with_suffix(".txt").write_text(sentence(seed) + "\n")
    return paths


def tone_recipe(manifests: dict[str, Path], out: Path, **optimisation: object) -> Recipe:
    """A recipe for the corpus; `optimisation` changes `train`."""
    settings: dict[str, object] = {
        "epochs": 2,
        "batch_seconds": 2.0,
        "learning_rate": 0.01,
        "average": 2,
        "precision": "fp32",
        "cr_ctc_weight": 0.0,
    }
    return Recipe(
        data=DataConfig(train=manifests["train"], dev=manifests["dev"]),
        out=out,
        tokens=TOKENS,
        features=FEATURES,
        augment=AugmentConfig(
            speeds=[1.0],
            vtlp=0.0,
            concatenate_prob=0.0,
            time_masks=1,
            time_mask_frames=2,
            frequency_masks=1,
            frequency_mask_bands=2,
        ),
        model=MODEL,
        train=TrainConfig.model_validate(settings | optimisation),
    )


def untrained_bundle() -> Bundle:
    """A model for the corpus's words as it is before training."""
    tokens = build_tokens([" ".join(WORDS)], TOKENS)
    return Bundle(AcousticModel(FEATURES, MODEL, len(tokens)), tokens, TextConfig())


def trained_tones(base: Path) -> tuple[dict[str, Path], Path]:
    """Manifests and a model trained on them, below pytest's `base`.

    Made on the first call only, also where tests run in several processes: the folders of
    pytest-xdist's lie beside each other.
    """
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tones"
    model = folder / "run" / "model"
    manifests = {part: folder / f"{part}.jsonl" for part in ("train", "dev", "test")}
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not model.is_dir():
            write_corpus(folder, {"train": 40, "dev": 10, "test": 20})
            run_quietly(tone_recipe(manifests, folder / "run", epochs=15, learning_rate=0.02))
    return manifests, model


@contextmanager
def one_thread() -> Iterator[None]:
    """Steps as small as these only lose by waiting for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_quietly(recipe: Recipe, hook: Hook = lambda task: task) -> tuple[Path, str]:
    """Train; the model's folder and everything that was displayed."""
    shown = io.StringIO()
    with one_thread():
        return train(recipe, Console(file=shown, width=200), hook=hook), shown.getvalue()
