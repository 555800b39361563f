"""A real training on real speech: sixty recordings of a man who says yes and no in Hebrew."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.audio import audio_duration
from asr.evaluation.run import evaluate
from asr.features.augment import AugmentConfig
from asr.features.extractor import FeatureConfig
from asr.manifest import Utterance, write_manifest
from asr.models.config import ModelConfig
from asr.tokens import TokenConfig
from asr.training.recipe import DataConfig, Recipe, TrainConfig
from tests.tones import run_quietly

WORDS = {"0": "no", "1": "yes"}  # a recording's name spells what is said in it


def write_parts(folder: Path, recordings: list[Path]) -> dict[str, Path]:
    """Every fifth recording is the test; of the other 48 every sixth chooses the epochs."""
    test = recordings[::5]
    rest = [path for path in recordings if path not in test]
    dev = rest[::6]
    parts = {"train": [path for path in rest if path not in dev], "dev": dev, "test": test}
    assert [len(part) for part in parts.values()] == [40, 8, 12]
    manifests = {}
    for name, part in parts.items():
        manifests[name] = folder / f"{name}.jsonl"
        write_manifest(
            manifests[name],
            [
                Utterance(
                    id=path.stem,
                    audio=path,
                    text=" ".join(WORDS[digit] for digit in path.stem.split("_")),
                    duration=audio_duration(path),
                )
                for path in part
            ],
        )
    return manifests


def yesno_recipe(manifests: dict[str, Path], out: Path, seed: int) -> Recipe:
    """One layer and coarse frames: with finer ones it learns the forty sentences, not the words."""
    return Recipe(
        data=DataConfig(train=manifests["train"], dev=manifests["dev"]),
        out=out,
        tokens=TokenConfig(kind="words"),
        features=FeatureConfig(sample_rate=8000, bands=40),
        augment=AugmentConfig(
            speeds=[0.85, 1.0, 1.15], warp=0.0, join=0.0, time_masks=0, frequency_mask_bands=8
        ),
        model=ModelConfig(channels=(16, 16), strides=(3, 4), layers=1, hidden=96, dropout=0.1),
        train=TrainConfig(
            epochs=16,
            batch_seconds=14.0,
            learning_rate=2e-3,
            consistency=0.0,
            average=3,
            precision="fp32",
            seed=seed,
        ),
    )


@pytest.mark.slow
def test_yes_and_no_are_told_apart(shared_data: Path, tmp_path: Path) -> None:
    recordings = sorted((shared_data / "waves_yesno").glob("*.wav"))
    manifests = write_parts(tmp_path, recordings)
    model, _ = run_quietly(yesno_recipe(manifests, tmp_path / "run", seed=1))
    words = evaluate(model, manifests["test"]).report.scores.words
    assert words.reference_length == 12 * 8
    assert words.rate <= 0.05, str(words)
