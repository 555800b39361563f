"""A training that is stopped, however rudely, ends where an uninterrupted one does, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from asr.augment.config import AugmentConfig
from asr.dataset.speech_dataset import Batch
from asr.features.extractor import FeatureConfig
from asr.io.files import read_json, write_json
from asr.models.config import ModelConfig
from asr.models.kernels.dense import trains_lstm_in
from asr.training.loop import Loop, Loss, Task
from asr.training.recipe import Recipe, read_recipe
from asr.training.trainer import train
from tests.kills import killed, undisturbed, write_spliced_recipe
from tests.processes import start_asr
from tests.tones import RATE, one_thread, tone_recipe, write_corpus

RARELY = 1000.0  # seconds between two saves: none within an epoch
PATIENCE = 300  # seconds until a process that does nothing is given up
EARLY = range(1, 5)  # batches of an epoch after which it is interrupted: well before its end


def write_recipe(folder: Path, precision: str) -> Path:
    """A run with everything random and everything stateful."""
    manifests = write_corpus(folder, {"train": 18, "dev": 4})
    plain = tone_recipe(
        manifests,
        folder / "out",
        epochs=3,
        batch_seconds=1.2,
        cr_ctc_weight=0.2,
        ema=0.8,
        entropy_target=1.0,
        precision=precision,
    )
    recipe = plain.model_copy(
        update={
            "features": FeatureConfig(sample_rate=RATE, bands=16, cmvn="global"),
            "augment": AugmentConfig(
                vtlp=0.1,
                gain_db=6.0,
                concatenate_prob=0.5,
                splice_prob=0.3,
                splice_from=0.3,
                time_mask_frames=3,
                frequency_mask_bands=3,
            ),
            "model": ModelConfig(
                channels=(4,), strides=(2,), layers=2, hidden=16, dropout=0.2, attention_decoder=8
            ),
        }
    )
    write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
    assert Recipe.model_validate(read_json(folder / "recipe.json")) == recipe
    return folder / "recipe.json"


@dataclass(frozen=True)
class Started:
    """A training that runs, and the file of what it says."""

    process: BaseProcess
    said: Path

    def ended(self) -> tuple[int, str]:
        """Its exit status and its words, once it has ended."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, self.said.read_text()
        return self.process.exitcode, self.said.read_text()


def start(recipe: Path, out: Path, save_seconds: float = RARELY) -> Started:
    said = out.with_suffix(".said")
    arguments = ["train", str(recipe), f"out={out}", f"train.save_seconds={save_seconds}"]
    return Started(start_asr(arguments, said), said)


def finish(run: Started) -> str:
    """What a run said until it ended by itself, in peace."""
    status, said = run.ended()
    assert status == 0, said
    return said


def start_afresh(recipe: Path, out: Path) -> subprocess.Popen[str]:
    """A run in a process that shares nothing with the others, not even the seed of hashes."""
    return subprocess.Popen(
        [sys.executable, "-m", "asr.cli.main", "train", str(recipe), f"out={out}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_finishes(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


def saved_progress(out: Path) -> dict[str, Any]:
    """Where the checkpoint on disk is; {} while there is none."""
    try:
        progress: dict[str, Any] = read_json(out / "checkpoint" / "state.json")["progress"]
        return progress
    except FileNotFoundError:
        return {}


def interrupt(recipe: Path, out: Path, number: int, epoch: int) -> tuple[int, str]:
    """Signal a run in the middle of an epoch (counted from 0); its exit status and its words."""
    run = start(recipe, out, save_seconds=0.0)
    deadline = time.monotonic() + PATIENCE
    while True:
        progress = saved_progress(out)
        if progress.get("epoch") == epoch and progress["batch"] in EARLY:
            break
        assert run.process.is_alive(), f"ended before it could be stopped: {run.ended()}"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert run.process.pid is not None
    os.kill(run.process.pid, number)
    return run.ended()


def weights_of(out: Path) -> list[Path]:
    """Files of weights; which checkpoint comes before the newest is a matter of time."""
    found = (path.relative_to(out) for path in out.rglob("*.safetensors"))
    return sorted(path for path in found if path.parts[0] != "checkpoint-before")


def assert_same_run(out: Path, uninterrupted: Path) -> None:
    files = weights_of(uninterrupted)
    assert Path("model/model.safetensors") in files
    assert Path("checkpoint/optimizer.safetensors") in files
    assert weights_of(out) == files
    for file in files:
        weights, expected = load_file(out / file), load_file(uninterrupted / file)
        assert weights.keys() == expected.keys()
        for name, weight in expected.items():
            assert torch.equal(weights[name], weight), f"{file}: {name}"
    rows, expected_rows = (
        [{k: v for k, v in row.items() if k not in ("seconds", "hours_per_hour")} for row in rows]
        for rows in (read_json(out / "history.json"), read_json(uninterrupted / "history.json"))
    )
    assert rows == expected_rows


def test_any_signal_in_mid_epoch_leaves_a_run_that_ends_the_same(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "fp32")
    out, whole = tmp_path / "stopped", tmp_path / "whole"
    undisturbed = start_afresh(recipe, whole)

    status, _ = interrupt(recipe, out, signal.SIGKILL, epoch=0)
    assert status == -signal.SIGKILL
    killed_at = saved_progress(out)
    assert killed_at["batch"] > 0

    status, said = interrupt(recipe, out, signal.SIGTERM, epoch=1)
    assert f"resumed at epoch {killed_at['epoch'] + 1}, step {killed_at['step']}" in said
    assert status == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == (
        f"stopped and saved in {out}: the same command resumes the training; asr train with "
        "--finish makes a model of the epochs so far"
    )
    assert "Traceback" not in said

    status, said = interrupt(recipe, out, signal.SIGINT, epoch=2)
    assert status == 128 + signal.SIGINT
    assert "the same command resumes the training" in said.splitlines()[-1]
    assert "Traceback" not in said

    stopped_at = saved_progress(out)
    said = finish(start(recipe, out))
    assert f"resumed at epoch {stopped_at['epoch'] + 1}, step {stopped_at['step']}" in said
    assert_finishes(undisturbed)
    assert_same_run(out, whole)


def test_a_stopped_training_draws_the_same_chunks(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "fp32")
    settings = ["model.chunk=[3,20]", "model.right_context=2", "train.epochs=1"]
    settings += ["train.batch_seconds=2.4", "train.cr_ctc_weight=0"]
    losses: list[float] = []

    def run(out: Path, stop_after: int) -> None:
        def hook(task: Task[Batch]) -> Task[Batch]:
            def stepped(loop: Loop, batch: Batch, loss: Loss) -> None:
                task.stepped(loop, batch, loss)
                losses.append(loss.objective.item())
                if len(losses) == stop_after:
                    task.save(loop)
                    raise KeyboardInterrupt

            return replace(task, stepped=stepped)

        with one_thread():
            train(read_recipe(recipe, [*settings, f"out={out}"]), Console(quiet=True), hook=hook)

    run(tmp_path / "whole", 0)
    whole, losses = losses, []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 3)
    run(tmp_path / "stopped", 0)
    assert losses == whole
    weights, expected = (
        load_file(tmp_path / out / "model" / "model.safetensors") for out in ("stopped", "whole")
    )
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.slow
@pytest.mark.skipif(not trains_lstm_in(torch.bfloat16), reason="no bfloat16 in this processor")
def test_a_killed_run_in_bfloat16_ends_the_same(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "bf16")
    out, whole = tmp_path / "stopped", tmp_path / "whole"
    undisturbed = start(recipe, whole)
    interrupt(recipe, out, signal.SIGKILL, epoch=1)
    assert saved_progress(out)["batch"] > 0
    assert "cpu, bf16" in finish(start(recipe, out))
    finish(undisturbed)
    assert_same_run(out, whole)


@pytest.mark.slow
def test_a_spliced_training_killed_at_random_moments_ends_the_same(tmp_path: Path) -> None:
    # python -m tests.kills does it thirty times.
    recipe = write_spliced_recipe(tmp_path)
    expected = undisturbed(recipe, tmp_path / "whole")
    outcome = killed(recipe, tmp_path / "killed", expected, random.Random(1))
    assert outcome.same
    assert outcome.kills > 0
