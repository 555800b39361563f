"""`train.batch_seconds: auto`: the size at the start, and half of it after a lack of memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from asr.config import parse
from asr.dataset.cuts import whole
from asr.dataset.manifest import read_manifest
from asr.dataset.sampler import smaller
from asr.dataset.speech_dataset import Batch
from asr.errors import ConfigError, TrainingError
from asr.io.files import read_json
from asr.models.batch_norm import MaskedBatchNorm
from asr.training import batch_size
from asr.training.batch_size import largest
from asr.training.loop import Hook, Loss, Task
from asr.training.recipe import Recipe, TrainConfig
from asr.training.run import Run
from tests.tones import RATE, run_quietly, tone_recipe, write_corpus

UTTERANCES = 12


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_corpus(tmp_path_factory.mktemp("tones"), {"train": UTTERANCES, "dev": 2})


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a corpus of seconds."""
    monkeypatch.setattr(batch_size, "CPU_SECONDS", 3.0)
    monkeypatch.setattr(batch_size, "STEPS", 1)


def auto(manifests: dict[str, Path], out: Path, **changes: object) -> Recipe:
    return tone_recipe(manifests, out, **({"batch_seconds": "auto", "average": 1} | changes))


def holding(seconds: Callable[[int], float], seen: list[Batch], stop_after: int = -1) -> Hook:
    """Training with memory for batches of so many seconds in a step; `seen` gets those that fit."""

    def hook(task: Task[Batch]) -> Task[Batch]:
        def loss(batch: Batch) -> Loss:
            if len(seen) == stop_after:
                raise KeyboardInterrupt
            found = task.loss(batch)
            if batch.waves.values.numel() > RATE * seconds(len(seen)):
                raise MemoryError
            seen.append(batch)
            return found

        return replace(task, loss=loss)

    return hook


def shrinking(step: int) -> float:
    """Memory runs out in the middle of the first epoch, and again in the second."""
    return 99.0 if step < 2 else 1.6 if step < 8 else 1.1


def test_batches_are_halved_where_memory_runs_out(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    seen: list[Batch] = []
    _, shown = run_quietly(auto(manifests, tmp_path), holding(shrinking, seen))
    assert "train.batch_seconds: auto is 3 (the default on a CPU)" in shown
    assert shown.count("out of memory at") == shown.count("is halved to") == 2
    assert "is halved to 1.5" in shown
    assert "is halved to 0.75" in shown
    # Every utterance once in an epoch, in spite of the halving.
    ids = [id_ for batch in seen for id_ in batch.ids]
    assert Counter(ids) == dict.fromkeys((u.id for u in read_manifest(manifests["train"])), 2)
    assert len(set(ids[:UTTERANCES])) == UTTERANCES


def test_a_training_resumed_after_a_halving_ends_where_it_would_have(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    whole_run: list[Batch] = []
    model, _ = run_quietly(auto(manifests, tmp_path / "whole"), holding(shrinking, whole_run))
    recipe = auto(manifests, tmp_path / "parts", save_seconds=0.0)
    seen: list[Batch] = []
    for stop in (4, len(whole_run) - 1):
        with pytest.raises(KeyboardInterrupt):
            run_quietly(recipe, holding(shrinking, seen, stop_after=stop))
        kept = read_json(tmp_path / "parts" / "checkpoint" / "state.json")["progress"]
        assert kept["halved_at"]
    resumed, shown = run_quietly(recipe, holding(shrinking, seen))
    assert "halved" not in shown
    assert "auto is" not in shown
    assert [batch.ids for batch in seen] == [batch.ids for batch in whole_run]
    expected = load_file(model / "model.safetensors")
    for name, value in load_file(resumed / "model.safetensors").items():
        assert torch.equal(value, expected[name]), name


def test_one_utterance_that_does_not_fit_is_an_error(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"at 1 utterances of .* leave out recordings as long"):
        run_quietly(auto(manifests, tmp_path), holding(lambda _: 0.0, []))


def test_a_number_is_not_changed(manifests: dict[str, Path], tmp_path: Path) -> None:
    recipe = auto(manifests, tmp_path, batch_seconds=3.0)
    with pytest.raises(TrainingError, match=r"lower train.batch_seconds \(now 3\)"):
        run_quietly(recipe, holding(lambda _: 0.9, []))


def test_an_epoch_has_enough_steps(
    manifests: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_size, "STEPS", 4)
    monkeypatch.setattr(batch_size, "CPU_SECONDS", 900.0)
    _, shown = run_quietly(auto(manifests, tmp_path, epochs=1))
    seconds = sum(u.duration for u in read_manifest(manifests["train"]))
    assert f"auto is {round(seconds / 4)} (4 steps per epoch)" in shown


def test_a_trial_step_leaves_everything_as_it_was(
    manifests: dict[str, Path], tmp_path: Path
) -> None:
    runs: list[Run] = []
    during: list[bool] = []

    def hook(task: Task[Batch]) -> Task[Batch]:
        run: Run = task.fits.args[0]  # type: ignore[attr-defined]
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        random = torch.get_rng_state()
        frozen = next(m for m in run.model.modules() if isinstance(m, MaskedBatchNorm))
        run.frozen = [frozen]
        for module in run.model.train().modules():
            module.training = "Linear" not in type(module).__name__
        modes = [module.training for module in run.model.modules()]
        assert not all(modes)
        with frozen.register_forward_pre_hook(lambda module, _: during.append(module.training)):
            batch_size.trial_step(run, [0, 3, 3])
        assert during == [False]
        assert [module.training for module in run.model.modules()] == modes
        run.frozen = []
        run.model.train()
        assert torch.equal(torch.get_rng_state(), random)
        assert all(
            torch.equal(value, before[name]) for name, value in run.model.state_dict().items()
        )
        assert all(parameter.grad is None for parameter in run.model.parameters())
        assert not run.loop.optimizer.state
        runs.append(run)
        return task

    tried, _ = run_quietly(auto(manifests, tmp_path / "tried", epochs=1), hook)
    plain, _ = run_quietly(auto(manifests, tmp_path / "plain", epochs=1))
    assert runs
    expected = load_file(plain / "model.safetensors")
    for name, value in load_file(tried / "model.safetensors").items():
        assert torch.equal(value, expected[name]), name


def test_the_size_follows_from_two_trials() -> None:
    def peak(count: int) -> int:
        return 1000 + 50 * count

    assert largest(peak, 11_000, longest=16.0) == 200 * 16.0
    assert largest(peak, 0, longest=16.0) == 16.0  # one at least
    # The first trial does not fit, then the second: what has fitted is used.
    assert largest(lambda count: peak(count) if count <= 3 else None, 11_000, 4.0) == 2 * 4.0
    assert largest(lambda count: None, 11_000, longest=40.0) == 40.0


def test_batches_are_cut_in_place() -> None:
    durations = [1.0, 2.0, 2.0, 3.0, 9.0]
    batches = [[whole(0), whole(1), whole(2)], [whole(4)], [whole(3)]]
    expected = [[whole(0), whole(1)], [whole(2)], [whole(4)], [whole(3)]]
    assert smaller(batches, durations, 4.0) == expected


@pytest.mark.parametrize("value", [0, -3.0, "many", True, None, float("nan")])
def test_other_sizes_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="batch_seconds: expected seconds above 0 or auto"):
        parse(TrainConfig, {"batch_seconds": value}, "recipe.yaml")


@pytest.mark.gpu
def test_a_gpu_is_measured(manifests: dict[str, Path], tmp_path: Path) -> None:
    _, shown = run_quietly(auto(manifests, tmp_path, epochs=1, precision="auto"))
    assert "train.batch_seconds: auto is" in shown
    assert "(1 steps per epoch)" in shown  # all of the corpus fits
