"""The report of error rate against latency: what is streamed is what is heard in the whole.

Covers `asr/experiments/comparison.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from asr.evaluation.error_rate import ErrorCounts
from asr.experiments.comparison import Run
from asr.models.acoustic import AcousticModel
from asr.models.bundle import save_bundle
from asr.models.config import ModelConfig
from asr.training.recipe import read_recipe
from recipes.an4 import streaming
from tests.tones import FEATURES, MODEL, untrained_bundle, write_corpus

RUN = Run("", 1, 30, 24, 2_000_000, 9.0, 0.01, "machine", "2026-11-21", {}, "model")


@pytest.mark.parametrize("name", streaming.NETWORKS)
def test_networks_stream_unless_they_need_the_whole(name: str) -> None:
    settings = [*streaming.NETWORKS[name], "features.cmvn=global", "data.train=a", "data.dev=b"]
    config = read_recipe(streaming.HERE / "family.yaml", settings).model
    assert name.startswith(streaming.WHOLE) == (config.bidirectional and not config.chunk)


@pytest.mark.parametrize("settings", [{"chunk": 4}, {"bidirectional": False}, {}])
def test_recordings_are_streamed_and_compared(settings: dict[str, int], tmp_path: Path) -> None:
    test = write_corpus(tmp_path, {"test": 5})["test"]
    torch.manual_seed(0)
    config = ModelConfig(**(MODEL.model_dump() | settings))
    bundle = untrained_bundle()
    features = FEATURES.model_copy(update={"cmvn": "none"})
    model = AcousticModel(features, config, len(bundle.tokens)).eval()
    outcome = streaming.streamed(RUN, replace(bundle, model=model), test)
    if not settings:
        assert (outcome.latency, outcome.streamed_factor, outcome.different) == (None, None, None)
    else:
        assert outcome.different == 0
        assert outcome.latency is not None
        assert outcome.latency > 0.05
        assert outcome.streamed_factor is not None
        assert outcome.streamed_factor > 0


def test_chunks_of_many_sizes_are_evaluated_with_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SIZES", (2, 9))
    test = write_corpus(tmp_path, {"test": 3})["test"]
    torch.manual_seed(0)
    bundle = untrained_bundle()
    features = FEATURES.model_copy(update={"cmvn": "none"})
    config = MODEL.model_copy(update={"chunk": (2, 9), "right_context": 1})
    model = AcousticModel(features, config, len(bundle.tokens)).eval()
    save_bundle(tmp_path / "model", replace(bundle, model=model))
    run = replace(RUN, member="x", model=str(tmp_path / "model"))
    whole, small, large = streaming.outcomes_of(run, test)
    assert [o.run.member for o in (whole, small, large)] == [
        "x: whole utterance",
        "x: chunk 2",
        "x: chunk 9",
    ]
    assert whole.latency is None
    assert small.latency is not None
    assert large.latency is not None
    assert small.latency < large.latency
    assert (small.different, large.different) == (0, 0)
    assert sum(count.reference_length for count in small.run.words.values()) > 3


def test_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "OUT", tmp_path)
    words = {f"u{i}": ErrorCounts(1, 0, 0, 10) for i in range(4)}
    whole = streaming.Outcome(replace(RUN, member=streaming.WHOLE, words=words))
    chunk = streaming.Outcome(replace(RUN, member="chunk 8", words=words), 0.5, 0.02, 1)
    streaming.write_results([whole, chunk])
    table = (tmp_path / "streaming.md").read_text()
    assert "| whole utterance |  | 4 | 10.00 (10.0 to 10.0) | 24 | 2.00 M |  |  |" in table
    assert "| chunk 8 | 0.50 | 4 | 10.00 (10.0 to 10.0) | 24 | 2.00 M | 0.020 | 1 of 4 |" in table
    assert (tmp_path / "streaming.png").stat().st_size > 5000
