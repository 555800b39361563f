"""The experiment with shuffled transcripts: what is shuffled, and what is counted.

Covers `asr/experiments/family.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr.dataset.manifest import Utterance, read_manifest
from asr.models.acoustic import AcousticModel
from recipes.an4 import clean
from tests.tones import FEATURES, MODEL, one_thread, untrained_bundle, write_corpus


def test_a_tenth_of_the_transcripts_is_of_another_recording() -> None:
    texts = ["YES", "NO", "GO", "STOP"]
    rows = [Utterance(str(i), Path("x.wav"), texts[i % 4 if i % 3 else 0], 1.0) for i in range(200)]
    for seed in range(5):
        made, wrong = clean.shuffled(rows, seed)
        changed = {u.id for u, before in zip(made, rows, strict=True) if u.text != before.text}
        assert changed == wrong
        assert len(wrong) == 20
        assert sorted(u.text for u in made) == sorted(u.text for u in rows)
        assert (made, wrong) == clean.shuffled(rows, seed)
    assert wrong != clean.shuffled(rows, 0)[1]


def test_measures_are_counted_over_all_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean, "DRAWS", 3)
    monkeypatch.setattr(clean, "SHUFFLED", 0.3)
    monkeypatch.setattr(clean, "WORST", 1.0)
    torch.manual_seed(0)
    config = MODEL.model_copy(update={"layers": 2, "hierarchical_ctc_layer": 1})
    bundle = untrained_bundle()
    bundle = replace(bundle, model=AcousticModel(FEATURES, config, len(bundle.tokens)))
    manifests = write_corpus(tmp_path, {"dev": 7})
    with one_thread():
        found, total = clean.compare_measures(bundle, read_manifest(manifests["dev"]))
    assert total == 3 * 2
    assert len(found) == 2 * 3
    assert set(found.values()) == {6}  # all are within the whole ranking
    # A best alignment is a part of what the loss sums up.
    outputs = clean._outputs(bundle, read_manifest(manifests["dev"]))
    measured = clean._measures(bundle, outputs["dev00"], "low")
    for layer in ("words", "letters"):
        loss = measured[f"loss per token, {layer}"]
        assert loss < measured[f"best alignment per token, {layer}"]
        assert measured[f"loss above that of the hypothesis, {layer}"] < loss
