"""Recognise spoken digits: train and evaluate on the Free Spoken Digit Dataset.

python recipes/fsdd/run.py --source DIR                    the official split
python recipes/fsdd/run.py --source DIR --speakers         test each speaker unheard
python recipes/fsdd/run.py --source DIR --speakers synthetic=false    from FSDD alone
python recipes/fsdd/run.py --source DIR --dev train.epochs=20         to compare settings

With --dev the dev part is tested in place of the test part, by a model that has not heard it.
Without, that model learns from both train and dev. The last epoch is taken in either case.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import soxr
from rich.progress import track

from asr.audio.load import SAMPLE_RATE, write_wav
from asr.augment.config import AugmentConfig
from asr.cli.console import run_command
from asr.config import Config, parse, with_overrides
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.demo.synthesis import VOICES, synthesise
from asr.evaluation.classification import (
    Confusion,
    accuracy_text,
    confusion,
    to_text,
    write_classification,
)
from asr.evaluation.confusion_plot import write_picture
from asr.evaluation.evaluate import machine_name
from asr.evaluation.summary import to_markdown
from asr.features.extractor import FeatureConfig
from asr.io.files import atomic_path
from asr.io.terminal import tell
from asr.models.classifier import ClassifierBundle, save_classifier
from asr.models.config import ModelConfig
from asr.training.train_classifier import ClassifyConfig, Recordings, predict, train_classifier
from data import fsdd

EXPERIMENTS = Path(__file__).resolve().parents[2] / "exp" / "fsdd"


class Settings(Config):
    """What can be changed on the command line."""

    features: FeatureConfig = FeatureConfig(sample_rate=fsdd.SAMPLE_RATE, bands=40, cmvn="global")
    augment: AugmentConfig = AugmentConfig(
        speeds=[0.8, 0.9, 1.0, 1.1, 1.2],
        vtlp=0.15,
        time_masks=1,
        time_mask_frames=8,
        frequency_masks=1,
        frequency_mask_bands=8,
    )
    model: ModelConfig = ModelConfig(
        channels=(16, 32), strides=(2, 1), layers=2, hidden=64, dropout=0.3
    )
    train: ClassifyConfig = ClassifyConfig(epochs=40, learning_rate=4e-3)
    level_db: float = -40.0
    """What all recordings are brought to: a lower level hides rooms, and weak consonants."""
    synthetic: bool = False
    """Also learn from digits that a synthesiser says in 264 voices."""


# Speakers never heard have other voices and microphones; those of the official split have not, and
# there these changes cost hits on dev.
UNHEARD = ["synthetic=true", "augment.equaliser_db=6", "level_db=-50.5", "train.epochs=16"]


@dataclass(frozen=True)
class Outcome:
    """What became of one split."""

    name: str
    bundle: ClassifierBundle
    test: Confusion


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder with FSDD's recordings")
    parser.add_argument(
        "--speakers", action="store_true", help="leave one speaker out, for every speaker"
    )
    parser.add_argument(
        "--dev", action="store_true", help="test on dev, unheard; the test set stays closed"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    run_command(lambda: work(arguments))


def work(arguments: argparse.Namespace) -> None:
    speakers: bool = arguments.speakers
    changes = [*(UNHEARD if speakers else []), *arguments.overrides]
    settings = parse(Settings, with_overrides(Settings().model_dump(), changes), "settings")
    splits = fsdd.prepare(EXPERIMENTS / "data", arguments.source)
    chosen = fsdd.SPEAKERS if speakers else (fsdd.OFFICIAL,)
    extra = speak_digits(EXPERIMENTS / "synthetic") if settings.synthetic else []
    heard, tested = (["train"], "dev") if arguments.dev else (["train", "dev"], "test")
    outcomes = []
    for name in chosen:
        tell(f"split {name}, tested on {tested}")
        parts = {part: read_manifest(path) for part, path in splits[name].items()}
        train = [*itertools.chain(*(parts[part] for part in heard)), *extra]
        outcomes.append(learn(f"{name}-{tested}", train, parts[tested], settings))
    together = reduce(add, (outcome.test for outcome in outcomes))
    name, title = (
        ("speakers", "speakers never heard") if speakers else ("official", "official split")
    )
    out = EXPERIMENTS / f"{name}-{tested}"
    write_classification(together, out)
    write_picture(together, out / "confusion.png", f"Free Spoken Digit Dataset, {title}")
    table = "\n".join(results(outcomes, together, settings))
    with atomic_path(out / "results.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    print(f"{to_text(together)}\n{table}")


def speak_digits(folder: Path) -> list[Utterance]:
    """Every digit in every accent and voice of the demo's synthesiser: other vocal tracts than the
    few that FSDD has. Spoken once into `folder`, which appears when it is whole."""
    manifest = folder / "train.jsonl"
    if not manifest.is_file():
        random = np.random.default_rng(1)
        names = [name.partition("+") for names in VOICES.values() for name in names]
        accents, variants = sorted({a for a, _, _ in names}), sorted({v for _, _, v in names})
        orders = list(itertools.product(accents, variants, fsdd.DIGITS))
        with atomic_path(folder) as temporary:
            temporary.mkdir(parents=True)
            spoken = [_speak(temporary, *order, random) for order in track(orders, "speaking")]
            write_manifest(temporary / manifest.name, spoken)
    return list(read_manifest(manifest))


def _speak(
    folder: Path, accent: str, variant: str, digit: str, random: np.random.Generator
) -> Utterance:
    """One digit, cut where it is heard as FSDD's are, with a little noise."""
    pace, pitch = int(random.integers(110, 220)), int(random.integers(25, 80))
    samples = synthesise(digit, f"{accent}+{variant}", pace, pitch)
    samples = soxr.resample(samples, SAMPLE_RATE, fsdd.SAMPLE_RATE).astype(np.float32)
    power = np.convolve(samples**2, np.ones(80) / 80, "same")
    heard = np.flatnonzero(power > 1e-4 * power.max())
    samples = samples[heard[0] : heard[-1] + 1]
    samples *= 0.3 / np.abs(samples).max()
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-random.uniform(20, 50) / 20)
    samples += level * random.standard_normal(len(samples)).astype(np.float32)
    path = folder / f"{accent}-{variant}-{digit}.wav"
    write_wav(path, samples, fsdd.SAMPLE_RATE)
    return Utterance(path.stem, path, digit, len(samples) / fsdd.SAMPLE_RATE, f"espeak-{variant}")


def learn(
    name: str, train: Sequence[Utterance], test: Sequence[Utterance], settings: Settings
) -> Outcome:
    """Train, then open what is to be tested."""
    rate = settings.features.sample_rate
    bundle = train_classifier(
        settings.features,
        settings.model,
        fsdd.DIGITS,
        Recordings(train, fsdd.DIGITS, rate),
        None,
        settings.train,
        settings.augment,
        level_db=settings.level_db,
        folder=EXPERIMENTS / "training" / name,  # so that a stopped training resumes
    )
    save_classifier(EXPERIMENTS / "models" / name, bundle)
    said = predict(bundle, Recordings(test, fsdd.DIGITS, rate))
    return Outcome(name, bundle, confusion(fsdd.DIGITS, [u.text for u in test], said))


def results(outcomes: Sequence[Outcome], together: Confusion, settings: Settings) -> list[str]:
    """Markdown: a row a split and, of several splits, their mean."""
    lines: list[str] = []
    for outcome in outcomes:
        info = outcome.bundle.info
        row = {
            "date": date.today().isoformat(),
            "test": outcome.name,
            "synthetic voices": "yes" if settings.synthetic else "no",
            "seed": str(settings.train.seed),
            "accuracy (95 %)": accuracy_text(outcome.test),
            "epochs": str(settings.train.epochs),
            "parameters": f"{outcome.bundle.model.parameter_count() / 1e6:.2f} M",
            "seconds": f"{info['training_seconds']:.0f}",
            "machine": machine_name(),
        }
        table = to_markdown([row]).splitlines()
        lines += table[2:] if lines else table
    if len(outcomes) > 1:
        rates = [100 * outcome.test.accuracy for outcome in outcomes]
        mean = math.fsum(rates) / len(rates)
        lines.append(
            f"\nMean of the speakers {mean:.2f} %, the worst {min(rates):.2f} %; "
            f"together {accuracy_text(together)}."
        )
    return lines


if __name__ == "__main__":
    main()
