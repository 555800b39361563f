"""The average of the weights follows its formula, is what dev and the model see, and changes no
step. `test_resume.py` and `test_distributed.py` train with it too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from asr.inference import decode
from asr.io.files import read_json
from asr.models.bundle import load_bundle
from asr.training.loop import Loop, Loss, Task
from asr.training.moving_average import applied, decay_after, update
from tests.tones import run_quietly, tone_recipe, write_corpus

DECAY = 0.6


def test_a_weight_trained_later_begins_with_its_value_and_counts_are_left_out() -> None:
    linear, norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
    model = nn.Sequential(linear, norm)
    linear.bias.requires_grad_(False)
    average: dict[str, Tensor] = {}
    update(average, model, DECAY)
    assert average.keys() == {
        "0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"
    }  # fmt: skip
    first = {name: value.clone() for name, value in average.items()}
    linear.bias.requires_grad_(True)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
        model.state_dict()["1.running_mean"].add_(2.0)
    update(average, model, DECAY)
    assert torch.equal(average["0.bias"], linear.bias)
    torch.testing.assert_close(average["0.weight"], first["0.weight"] + (1 - DECAY))
    torch.testing.assert_close(average["1.running_mean"], first["1.running_mean"] + 2 * (1 - DECAY))
    assert torch.equal(average["1.running_var"], first["1.running_var"])


def test_the_model_gets_its_own_weights_back_after_an_error() -> None:
    model = nn.Linear(2, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = {"weight": torch.full((1, 2), 7.0)}

    def failing() -> None:
        with applied(average, model):
            assert torch.equal(model.weight, average["weight"])
            raise InterruptedError

    with pytest.raises(InterruptedError):
        failing()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(average["weight"], torch.full((1, 2), 7.0))


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 6, "dev": 3})


def test_dev_and_the_model_have_the_average_and_training_has_its_own_weights(
    manifests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: dict[str, Tensor] = {}
    scored: list[Tensor] = []

    def watched(task: Task[Any]) -> Task[Any]:
        def stepped(loop: Loop, batch: Any, loss: Loss) -> None:
            task.stepped(loop, batch, loss)
            decay = decay_after(loop.progress.step, DECAY)
            for name, value in loop.model.state_dict().items():
                old = expected.get(name, value).double()
                expected[name] = decay * old + (1 - decay) * value.double()

        return replace(task, stepped=stepped)

    whole = decode.decode_dataset

    def decoding(model: Any, *given: Any, **options: Any) -> Any:
        scored.append(model.output.weight.detach().clone())
        return whole(model, *given, **options)

    monkeypatch.setattr("asr.training.trainer.decode_dataset", decoding)
    settings: dict[str, object] = {"average": 1, "epochs": 2}
    averaged, _ = run_quietly(
        tone_recipe(manifests, tmp_path / "ema", ema=DECAY, **settings), watched
    )
    torch.testing.assert_close(scored[1].double(), expected["output.weight"])
    history = read_json(tmp_path / "ema" / "history.json")
    epoch = load_bundle(averaged).info["weights"].split()[-1]
    saved = load_file(tmp_path / "ema" / "epochs" / f"epoch-{int(epoch):04d}" / "model.safetensors")
    shipped = load_file(averaged / "model.safetensors")
    for name, value in saved.items():
        if epoch == "2":
            torch.testing.assert_close(value.double(), expected[name].double())
        assert torch.equal(shipped[name], value.to(shipped[name].dtype)), name

    run_quietly(tone_recipe(manifests, tmp_path / "plain", **settings))
    plain = load_file(tmp_path / "plain" / "checkpoint" / "model.safetensors")
    own = load_file(tmp_path / "ema" / "checkpoint" / "model.safetensors")
    assert all(torch.equal(value, plain[name]) for name, value in own.items())
    losses = [row["loss"] for row in read_json(tmp_path / "plain" / "history.json")]
    assert [row["loss"] for row in history] == losses
