"""Handwritten digits with an LSTM: an image is read row by row, 8 frames of 8 numbers.

python recipes/digits/run.py [key=value ...]     for example train.epochs=10 model.cell=gru
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path

# Before torch, because it decides how OpenMP's threads wait.
import asr  # noqa: F401  # isort: skip
import torch

from asr.augment.config import AugmentConfig
from asr.cli.console import run_command
from asr.config import Config, parse, with_overrides
from asr.evaluation.classification import accuracy_text, confusion, to_text, write_classification
from asr.evaluation.confusion_plot import write_picture
from asr.evaluation.evaluate import machine_name
from asr.evaluation.summary import to_markdown
from asr.io.files import atomic_path
from asr.models.classifier import save_classifier
from asr.models.config import ModelConfig
from asr.training.train_classifier import ClassifyConfig, Sequences, predict, train_classifier

EXPERIMENTS = Path(__file__).resolve().parents[2] / "exp" / "digits"
CLASSES = tuple("0123456789")
ROWS = 8
# In the order of the data, not at random: what is tested is mostly by writers not seen in training.
TRAIN, DEV, TEST = slice(0, 1200), slice(1200, 1437), slice(1437, None)


class Settings(Config):
    """What can be changed on the command line."""

    model: ModelConfig = ModelConfig(
        channels=(), strides=(), layers=1, hidden=64, bidirectional=False, dropout=0.2
    )
    # Without masks the network is sure of all it has seen after ten epochs, and errs on the rest.
    augment: AugmentConfig = AugmentConfig(
        time_masks=1, time_mask_frames=1, frequency_masks=1, frequency_mask_bands=2
    )
    train: ClassifyConfig = ClassifyConfig(epochs=30, batch_seconds=64 * ROWS, learning_rate=1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    run_command(lambda: work(arguments.overrides))


def work(overrides: Sequence[str]) -> None:
    settings = parse(Settings, with_overrides(Settings().model_dump(), overrides), "settings")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32) / 16  # [N, T, F] from 0 to 1
    names = [CLASSES[digit] for digit in digits.target]
    train, dev, test = (
        Sequences(list(images[part]), names[part], CLASSES) for part in (TRAIN, DEV, TEST)
    )
    bundle = train_classifier(
        ROWS,
        settings.model,
        CLASSES,
        train,
        dev,
        settings.train,
        settings.augment,
        folder=EXPERIMENTS / "training",  # so that a stopped training resumes
    )
    save_classifier(EXPERIMENTS / "model", bundle)
    result = confusion(CLASSES, names[TEST], predict(bundle, test))
    write_classification(result, EXPERIMENTS)
    write_picture(result, EXPERIMENTS / "confusion.png", "Handwritten digits, row by row")
    row = {
        "date": date.today().isoformat(),
        "seed": str(settings.train.seed),
        "accuracy (95 %)": accuracy_text(result),
        "dev": f"{bundle.info['dev_correct']}/{bundle.info['dev_total']}",
        "parameters": str(bundle.model.parameter_count()),
        "seconds to train": f"{bundle.info['training_seconds']:.1f}",
        "machine": machine_name(),
    }
    table = to_markdown([row])
    with atomic_path(EXPERIMENTS / "results.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    print(f"{to_text(result)}\n{table}")


if __name__ == "__main__":
    main()
