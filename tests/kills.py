"""`python -m tests.kills --count 30 --seed 1`: kill trainings at random moments, and resume them.

Each training is killed (SIGKILL) again and again after a random time until it ends by itself; its
model must then have the very bits of the model of a training that was never disturbed. Everything
random and everything stateful is on: splicing, joining, masks, dropout, global statistics.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from asr.augment.config import AugmentConfig
from asr.features.extractor import FeatureConfig
from asr.io.files import digest, write_json
from asr.models.config import ModelConfig
from tests.processes import start_asr
from tests.tones import RATE, tone_recipe, write_corpus

LONGEST_S = 6.0  # until a kill
EPOCHS = 8
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Outcome:
    """How often a training was killed, and whether it ended as the undisturbed one."""

    kills: int
    same: bool


def write_spliced_recipe(folder: Path) -> Path:
    """A recipe of a few seconds, whose words are aligned anew in every epoch from the second on."""
    manifests = write_corpus(folder, {"train": 18, "dev": 4})
    recipe = tone_recipe(manifests, folder / "out", epochs=EPOCHS, batch_seconds=1.2, patience=99)
    recipe = recipe.model_copy(
        update={
            "features": FeatureConfig(sample_rate=RATE, bands=16, cmvn="global"),
            "augment": AugmentConfig(
                concatenate_prob=0.5,
                splice_prob=0.5,
                splice_from=0.2,
                time_mask_frames=3,
                frequency_mask_bands=3,
            ),
            "model": ModelConfig(channels=(4,), strides=(2,), layers=1, hidden=16, dropout=0.2),
        }
    )
    write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
    return folder / "recipe.json"


def _start(recipe: Path, out: Path) -> BaseProcess:
    arguments = ["train", str(recipe), f"out={out}", "train.save_seconds=0.2"]
    return start_asr(arguments, out.with_suffix(".said"))


def _model(out: Path) -> str:
    return digest(out / "model" / "model.safetensors")


def undisturbed(recipe: Path, out: Path) -> str:
    """SHA-256 of the model of a training that nobody disturbs."""
    process = _start(recipe, out)
    process.join(PATIENCE_S)
    assert process.exitcode == 0, out.with_suffix(".said").read_text()
    return _model(out)


def killed(recipe: Path, out: Path, expected: str, choice: random.Random) -> Outcome:
    """Train while killing; every try lasts longer than the one before, so that it ends."""
    kills = 0
    while True:
        process = _start(recipe, out)
        process.join(choice.uniform(0.05, LONGEST_S * (1 + kills / 10)))
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.join(PATIENCE_S)
            kills += 1
            continue
        assert process.exitcode == 0, out.with_suffix(".said").read_text()
        return Outcome(kills, _model(out) == expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="Trainings that are killed.")
    parser.add_argument("--seed", type=int, default=1, help="Decides the moments.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = write_spliced_recipe(folder)
        expected = undisturbed(recipe, folder / "whole")
        same = kills = 0
        for number in range(arguments.count):
            out = folder / f"killed{number}"
            choice = random.Random(f"{arguments.seed} {number}")
            outcome = killed(recipe, out, expected, choice)
            same, kills = same + outcome.same, kills + outcome.kills
            print(f"training {number + 1}: {outcome.kills} kills, same {outcome.same}", flush=True)
            shutil.rmtree(out)
    print(f"{same} of {arguments.count} bit-identical after {kills} kills (seed {arguments.seed})")
    sys.exit(same != arguments.count)


if __name__ == "__main__":
    main()
