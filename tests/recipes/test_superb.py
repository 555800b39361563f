"""SUPERB's recipes end to end, on tones and with small networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from asr.cli.recipes import run_recipe
from asr.models.bundle import load_bundle
from tests.pretrained import write_network
from tests.tones import one_thread, write_corpus

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "superb"


@pytest.mark.parametrize("name", ["recipe", "filterbank"])
def test_it_trains_and_is_evaluated(name: str, tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 6, "dev": 3, "test": 3})
    settings = [f"data.{part}={manifests[part]}" for part in ("train", "dev")]
    settings += [f"out={tmp_path / 'run'}", "model.dense=8", "model.hidden=8", "train.epochs=1"]
    if name == "recipe":
        network = write_network(tmp_path / "network", sample_rate=16000, conv_stride=[10, 16])
        settings += [f"features.pretrained={network}", "features.cache_gb=0"]
    with one_thread():
        run_recipe(RECIPES / f"{name}.yaml", settings, {"test": manifests["test"]})
    hypotheses = (tmp_path / "run" / "test" / "hypotheses.jsonl").read_text()
    assert len(hypotheses.splitlines()) == 3
    assert "\n| test |" in (tmp_path / "run" / "results.md").read_text()
    features = load_bundle(tmp_path / "run" / "model").model.features
    assert (features.pretrained is None) == (name == "filterbank")


def test_both_train_the_same_network() -> None:
    first, second = (
        yaml.safe_load((RECIPES / f"{name}.yaml").read_text()) for name in ("recipe", "filterbank")
    )
    assert first["model"] == second["model"]
    assert first["train"] == second["train"]
    assert first["data"] == second["data"]
