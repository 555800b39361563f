"""The experiment with labels: what is withheld, and what is reported."""

from __future__ import annotations

from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.evaluation.error_rate import ErrorCounts
from asr.training.recipe import read_recipe
from recipes.an4 import labels


def rows(count: int) -> list[Utterance]:
    return [Utterance(str(i), Path("x.wav"), "ONE TWO", 1.0) for i in range(count)]


def test_thirty_percent_keep_their_transcripts() -> None:
    own, rest = labels.divided(rows(100), 1)
    assert (len(own), len(rest)) == (30, 70)
    assert sorted((u.id for u in own + rest), key=int) == [u.id for u in rows(100)]
    assert labels.divided(rows(100), 2)[0] != own
    counts = labels.wrong_labels([Utterance("3", Path("x.wav"), "one too", 1.0)], rows(100))
    assert (counts.errors, counts.reference_length) == (1, 2)


def test_both_seeds_are_compared_together() -> None:
    alone = {str(i): ErrorCounts(i % 3, 0, 0, 5) for i in range(40)}
    both = {str(i): ErrorCounts(i % 2, 0, 0, 5) for i in range(40)}
    result = labels.Result(
        1, "2 of 3 labels", "trusted", "wrong", alone, both, "here", "2026-11-28"
    )
    first, second, last = labels.shown([result, result]).splitlines()
    assert first == second
    assert "30 % alone 19.50 % (39/200" in first
    assert "with labels 10.00 % (20/200" in first
    assert last.startswith("difference -9.50 points (")


def test_the_schedules_fit_the_recipe() -> None:
    for epochs in (labels.ALONE, []):
        read_recipe(labels.HERE / "family.yaml", epochs)
