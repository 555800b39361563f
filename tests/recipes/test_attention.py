"""The comparison of trainings with and without an attention decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asr.evaluation.error_rate import ErrorCounts
from asr.io.files import read_json
from asr.training.recipe import read_recipe
from recipes.an4 import attention
from recipes.an4.attention import ALONE, BEAM, GREEDY, NETWORKS, RESCORED, Outcome, write_results


def counts(errors: int) -> dict[str, ErrorCounts]:
    return {f"u{n}": ErrorCounts(substitutions=errors, reference_length=8) for n in range(20)}


def test_the_networks_differ_by_the_attention_decoder_only() -> None:
    plain, own = (
        read_recipe(attention.HERE / "family.yaml", settings) for settings in NETWORKS.values()
    )
    assert (plain.model.attention_decoder, own.model.attention_decoder) == (0, 96)
    assert own.model.model_copy(update={"attention_decoder": 0}) == plain.model
    assert own.train == plain.train


def test_each_row_is_compared_with_greedy_ctc_of_the_same_seeds(tmp_path: Path) -> None:
    first = Outcome(ALONE, GREEDY, 1, 0.0, counts(2), counts(3), "2026-11-29", "cpu")
    joint = replace(first, network="CTC-attention", decoding=RESCORED, weight=0.3, test=counts(1))
    runs = [
        first, replace(first, decoding=BEAM), joint,
        replace(first, seed=2, test=counts(5)), replace(joint, seed=2, weight=0.6),
    ]  # fmt: skip
    write_results(runs, tmp_path)
    rows = (tmp_path / "attention.md").read_text().splitlines()[2:5]
    assert rows[0].startswith("| CTC | greedy |  | 40, 40 | 60, 100 | 50.00 (")
    assert rows[0].endswith("|  |  |")
    assert rows[1].startswith("| CTC | beam |  | 40 | 60 | 37.50 (")
    assert "| +0.00 (" in rows[1]
    assert rows[2].startswith("| CTC-attention | beam, rescored | 0.3, 0.6 | 40, 40 | 20, 20 |")
    assert "| -37.50 (" in rows[2]
    assert len(read_json(tmp_path / "attention.json")) == 5
