"""Word times of `asr align` against those of the synthesiser, on voices the model has not heard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from asr.audio.load import SAMPLE_RATE
from asr.demo.run import demo_recipe
from asr.demo.synthesis import VOICES, make_corpus, sentences, synthesise_with_times
from asr.inference.forced_alignment import align_words
from asr.models.bundle import Bundle, load_bundle
from asr.training.trainer import train

DEMO = Path("exp/demo")  # what `asr demo` leaves is used again
SPOKEN = 80
SILENCE_S = 0.3  # before and after
NOISE = 1e-3  # RMS; the speech has about 0.1


def run() -> None:
    """Print how far the beginnings of words are off. The synthesiser does not tell their ends."""
    model = DEMO / "model"
    if not model.is_dir():
        model = train(demo_recipe(DEMO, make_corpus(DEMO / "corpus", 1), 1), Console(quiet=True))
    bundle = load_bundle(model)
    bundle.model.eval()
    off = []
    for number, text in enumerate(sentences(900, seed=5)[-SPOKEN:]):
        voice = VOICES["test"][number % len(VOICES["test"])]
        off += _differences(bundle, text, voice, np.random.default_rng([7, number]))
    values = 1000 * np.array(off)
    print(
        f"word times: {len(values)} words in {SPOKEN} sentences of {len(VOICES['test'])} voices; "
        f"beginnings off by {np.abs(values).mean():.0f} ms on average, "
        f"{np.quantile(np.abs(values), 0.95):.0f} ms at the 95 % quantile, "
        f"late by {np.median(values):.0f} ms at the median"
    )


def _differences(bundle: Bundle, text: str, voice: str, random: np.random.Generator) -> list[float]:
    """Seconds by which the beginning of each word is found late."""
    pace, pitch = int(random.integers(140, 201)), int(random.integers(35, 66))
    speech, truth = synthesise_with_times(text, voice, pace, pitch)
    samples = np.pad(speech, int(SILENCE_S * SAMPLE_RATE))
    samples = samples + NOISE * random.standard_normal(len(samples))
    found = align_words(bundle, torch.from_numpy(samples.astype(np.float32)), text, text)
    off, place = [], 0
    for words, start in truth:
        # Words that are run together have one time, that of the first.
        off.append(found[place].start - SILENCE_S - start)
        place += len(words.split())
    return off
