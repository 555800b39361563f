"""The weight of entropy grows while there is too little of it, and falls to zero otherwise.
`test_resume.py` trains with it too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from asr.ctc.entropy import path_entropy
from asr.io.files import read_json
from asr.padded import Padded, pad
from asr.training.entropy_weight import RATE, EntropyWeight
from asr.training.loop import Task
from tests.contracts import ragged
from tests.tones import run_quietly, tone_recipe, write_corpus


def a_batch() -> tuple[Padded, Padded]:
    """Two views of three utterances, the last of which does not fit."""
    x = ragged([6, 4, 1], 4)
    values = torch.cat([x.values, 2 * x.values]).log_softmax(dim=2).requires_grad_()
    targets = [torch.tensor(units) for units in ([1, 2], [3], [1, 2, 3])]
    return Padded(values, x.lengths.repeat(2)), pad(targets)


def test_the_loss_is_entropy_per_token_of_what_fits() -> None:
    log_probs, targets = a_batch()
    entropy = EntropyWeight(1.0, torch.tensor(0.5))
    loss = entropy.loss(log_probs, targets)
    first, second = (
        path_entropy(Padded(half, targets.lengths.new_tensor([6, 4, 1])), targets).sum()
        for half in log_probs.values.split(3)
    )
    expected = (first + second) / (2 * (2 + 1))
    torch.testing.assert_close(loss, -0.5 * expected)
    assert entropy.measured is not None
    torch.testing.assert_close(entropy.measured, expected.detach())
    loss.backward()


@pytest.mark.parametrize(
    ("weight", "measured", "expected"),
    [
        (0.5, 0.0, 0.5 + RATE),
        (0.5, 3.0, 0.5 - 2 * RATE),
        (RATE, 9.0, 0.0),
        (0.5, float("nan"), 0.5),
    ],
)
def test_the_weight_follows_what_is_missing(
    weight: float, measured: float, expected: float
) -> None:
    entropy = EntropyWeight(1.0, torch.tensor(weight), torch.tensor(measured))
    entropy.adapt()
    assert float(entropy.weight) == pytest.approx(expected)


def test_alignments_have_more_entropy_with_a_target(tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 12, "dev": 3})
    found: dict[float, Tensor] = {}

    def noting(target: float) -> Any:
        def hook(task: Task[Any]) -> Task[Any]:
            def stepped(loop: Any, batch: Any, loss: Any) -> None:
                task.stepped(loop, batch, loss)
                with torch.no_grad():
                    scores = loop.model(loop.model.features(batch.waves))
                found[target] = (
                    path_entropy(scores, batch.targets).sum() / batch.targets.lengths.sum()
                )

            return replace(task, stepped=stepped)

        return hook

    for target in (0.0, 50.0):
        recipe = tone_recipe(
            manifests, tmp_path / f"{target:g}", epochs=3, learning_rate=0.02, entropy_target=target
        )
        run_quietly(recipe, noting(target))
    assert found[50.0] > found[0.0] + 0.1
    weights = [row["entropy_weight"] for row in read_json(tmp_path / "50" / "history.json")]
    assert weights == sorted(weights)
    assert weights[0] > 0
    assert "entropy_weight" not in read_json(tmp_path / "0" / "history.json")[0]
