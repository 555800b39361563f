"""The comparison of trainings from an encoder and from random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asr.dataset.manifest import Utterance, read_manifest
from asr.evaluation.error_rate import ErrorCounts
from asr.experiments.comparison import Run
from asr.io.files import write_json
from recipes.an4 import pretrain

SPEAKERS = "abcdefghijklmnopqrst"


def test_shares_are_whole_speakers_and_nested(tmp_path: Path) -> None:
    rows = [
        Utterance(f"{who}{n}", Path(f"/{who}{n}"), "X", 2.0, who) for who in SPEAKERS for n in "12"
    ]
    chosen: dict[int, list[str]] = {}
    for percent in (10, 30, 100):
        manifest, copies = pretrain.transcribed(rows, percent, 1, tmp_path)
        listed = read_manifest(manifest)
        ids = [u.audio.name for u in listed]
        assert {ids.count(name) for name in ids} == {copies}
        assert sum(listed.durations) == pytest.approx(80, rel=0.15)
        chosen[percent] = ids
        assert all(f"{name[0]}{n}" in ids for name in ids for n in "12")
    assert len(set(chosen[10])) == 4
    assert set(chosen[10]) < set(chosen[30]) < set(chosen[100])
    other, _ = pretrain.transcribed(rows, 10, 2, tmp_path)
    assert {u.audio.name for u in read_manifest(other)} != set(chosen[10])


def test_each_row_is_compared_with_random_weights(tmp_path: Path) -> None:
    write_json(tmp_path / "info.json", {"dev_errors": 7})
    few, many = (
        {f"u{n}": ErrorCounts(substitutions=e, reference_length=8) for n in range(20)}
        for e in (1, 3)
    )
    run = Run(
        "10 % random weights", 1, 24, 80, 1, 1.0, 0.1, "cpu", "2026-11-28", many, str(tmp_path)
    )
    runs = [run, replace(run, member="10 % encoder", words=few)]
    pretrain.write_results(runs, tmp_path)
    first, second = (tmp_path / "pretraining.md").read_text().splitlines()[2:4]
    assert first.startswith("| 10 % | random weights | 7 | 60 | 37.50 (")
    assert second.startswith("| 10 % | encoder | 7 | 20 | 12.50 (")
    assert "-25.00 (" in second
