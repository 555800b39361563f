"""The demo: synthesise speech, train on it, evaluate, transcribe."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from asr.augment.config import AugmentConfig
from asr.dataset.manifest import read_manifest
from asr.demo.synthesis import make_corpus
from asr.evaluation.evaluate import evaluate
from asr.evaluation.report_text import to_text
from asr.inference.recognizer import load_recognizer
from asr.models.config import ModelConfig
from asr.training.recipe import DataConfig, Recipe, TrainConfig
from asr.training.trainer import train

SHOWN = 5


def demo_recipe(out: Path, manifests: dict[str, Path], seed: int) -> Recipe:
    """A recipe small enough for five minutes on two cores."""
    return Recipe(
        data=DataConfig(train=manifests["train"], dev=manifests["dev"]),
        out=out,
        augment=AugmentConfig(
            speeds=[0.9, 0.95, 1.0, 1.05, 1.1],
            time_mask_frames=10,
            frequency_mask_bands=12,
        ),
        model=ModelConfig(channels=(16, 16), layers=2, hidden=160, dropout=0.1),
        train=TrainConfig(
            epochs=16,
            batch_seconds=32,
            learning_rate=3e-3,
            average=4,
            seed=seed,
        ),
    )


def run_demo(out: Path, seed: int, console: Console) -> None:
    """Write corpus, model and report to `out`, and transcribe a few held-out files.

    A stopped demo resumes when run again; the same seed gives the same result.
    """
    started = time.monotonic()
    console.print("1. Synthesising a speech corpus with espeak-ng")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("speaking", total=None)
        manifests = make_corpus(
            out / "corpus",
            seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for name, manifest in manifests.items():
        utterances = read_manifest(manifest)
        minutes = sum(u.duration for u in utterances) / 60
        voices = len({u.speaker for u in utterances})
        console.print(f"   {name}: {len(utterances)} sentences, {voices} voices, {minutes:.1f} min")
    console.print("2. Training a bidirectional LSTM with CTC")
    before = time.monotonic()
    model = train(demo_recipe(out, manifests, seed), console)
    minutes = (time.monotonic() - before) / 60
    console.print(f"   {minutes:.1f} minutes")
    console.print("3. Evaluating on voices and sentences that are not in training")
    report = evaluate(model, manifests["test"], out / "report").report
    console.print(to_text(report, worst=3))
    console.print("4. Transcribing a few of those files")
    chosen = read_manifest(manifests["test"])[:: max(1, len(report.scores.utterances) // SHOWN)]
    results = load_recognizer(model).transcribe([u.audio for u in chosen[:SHOWN]], words=False)
    for utterance, result in zip(chosen[:SHOWN], results, strict=True):
        console.print(f"   reference   {utterance.text}\n   recognised  {result.text}")
    console.print(
        f"Done in {(time.monotonic() - started) / 60:.1f} minutes. "
        f"Model: {model}  report: {out / 'report' / 'report.html'}  audio: {out / 'corpus'}"
    )
