"""Trainings of several processes: as that of one, and stopped together."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr.augment.config import AugmentConfig
from asr.dataset.manifest import read_manifest, write_manifest
from asr.dataset.speech_dataset import Batch
from asr.errors import TrainingError
from asr.features.extractor import FeatureConfig
from asr.io.files import digest, read_json, write_json
from asr.models.batch_norm import MaskedBatchNorm
from asr.models.bundle import load_bundle
from asr.models.config import ModelConfig
from asr.padded import Padded
from asr.shares import share_of, sharing
from asr.training import distributed
from asr.training.loop import Loss, Task
from asr.training.recipe import read_recipe
from asr.training.trainer import train
from tests.processes import _asr, start
from tests.tones import RATE, run_quietly, tone_recipe, write_corpus

PATIENCE_S = 120.0
HANGING_S = 12.0  # until a process that hangs counts as lost
EPOCHS = 3
PLAIN_EPOCHS = 2  # before splicing begins


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Processes:
    """Several processes of `asr train`, as a launcher starts them."""

    def __init__(
        self, folder: Path, recipe: Path, count: int, *changes: str, timeout: float = PATIENCE_S
    ) -> None:
        self.out = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.said = [folder.with_suffix(f".said{rank}") for rank in range(count)]
        self.all: list[BaseProcess] = []
        for rank, said in enumerate(self.said):
            said.touch()
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
            environment = {name: str(value) for name, value in place.items()}
            own = [change.replace("RANK", str(rank)) for change in changes]
            arguments = ["train", str(recipe), f"out={folder}", *own]
            self.all.append(start(_rank, environment, arguments, said, timeout))

    def wait(self) -> list[int]:
        """The exit statuses, after all have ended."""
        until = time.monotonic() + PATIENCE_S
        for process in self.all:
            process.join(max(0.0, until - time.monotonic()))
        assert all(process.exitcode is not None for process in self.all), "some did not end"
        return [process.exitcode or 0 for process in self.all]

    def lines(self) -> list[str]:
        """What all have written to stderr."""
        return [line for said in self.said for line in said.read_text().splitlines()]

    def until(self, words: str) -> None:
        """Wait until the first one has said this."""
        until = time.monotonic() + PATIENCE_S
        while words not in self.said[0].read_text() and time.monotonic() < until:
            time.sleep(0.02)


def _rank(environment: dict[str, str], arguments: list[str], said: Path, timeout: float) -> None:
    os.environ |= environment | {"MASTER_ADDR": "127.0.0.1"}
    distributed.TIMEOUT = distributed.timedelta(seconds=timeout)
    _asr(arguments, said)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything random and everything stateful is on, and some batches have one utterance."""
    folder = tmp_path_factory.mktemp("several")
    manifests = write_corpus(folder, {"train": 12, "dev": 3})
    utterances = read_manifest(manifests["train"])
    labels = [replace(u, extra={"confidence": 0.5 + 0.1 * i}) for i, u in enumerate(utterances[8:])]
    write_manifest(folder / "labels.jsonl", labels)
    write_manifest(manifests["train"], utterances[:8])
    plain = tone_recipe(
        manifests, folder / "out", epochs=EPOCHS, batch_seconds=2.2, patience=99, average=3
    )
    whole = plain.model_copy(
        update={
            "data": plain.data.model_copy(update={"labels": folder / "labels.jsonl"}),
            "features": FeatureConfig(sample_rate=RATE, bands=16, cmvn="global"),
            "augment": AugmentConfig(
                concatenate_prob=0.5,
                splice_prob=0.5,
                splice_from=0.6,
                telephone_prob=0.3,
                lower_rate_prob=0.3,
                time_mask_frames=3,
                frequency_mask_bands=3,
            ),
            "model": ModelConfig(
                channels=(4,),
                strides=(2,),
                layers=2,
                hidden=8,
                dropout=0.2,
                weight_dropout=0.1,
                attention_heads=2,
                hierarchical_ctc_layer=1,
                attention_decoder=8,
                intermediate_ctc=(1,),
                self_conditioning=True,
            ),
            "train": plain.train.model_copy(update={"cr_ctc_weight": 0.2, "ema": 0.6}),
        }
    )
    write_json(folder / "recipe.json", whole.model_dump(mode="json"))
    return folder / "recipe.json"


@pytest.fixture(scope="module")
def two(recipe: Path) -> Path:
    """The folder of an undisturbed training of two processes."""
    processes = Processes(recipe.parent / "two", recipe, 2)
    assert processes.wait() == [0, 0], processes.lines()
    assert processes.said[1].read_text() == ""
    assert "2 processes" in processes.said[0].read_text()
    return processes.out


@pytest.fixture(scope="module")
def one(recipe: Path) -> Path:
    """The folder of the same training in one process."""
    out = recipe.parent / "one"
    run_quietly(read_recipe(recipe, [f"out={out}"]))
    return out


def weights(out: Path) -> dict[str, Tensor]:
    """Of the last epoch without splicing, without what has no effect: its gradient is rounding
    error, which the optimizer magnifies."""
    found = load_file(out / "epochs" / f"epoch-{PLAIN_EPOCHS:04d}" / "model.safetensors")
    for name in ("convolution.bias", "norm.running_mean"):
        del found[f"encoder.front_end.0.{name}"]  # normalisation removes the bias
    keys = found["encoder.attention.project.bias"].unflatten(0, (3, -1))[1]
    keys.zero_()  # adds the same to the scores of all frames
    return found


def assert_as_one(ours: Path, theirs: Path) -> None:
    """Check that two trainings are equal but for rounding, until splicing begins: an alignment can
    turn on a rounding error."""
    histories = [read_json(out / "history.json") for out in (ours, theirs)]
    assert [row["step"] for row in histories[0]] == [row["step"] for row in histories[1]]
    for one, other in list(zip(*histories, strict=True))[:PLAIN_EPOCHS]:
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["fill_share"] == other["fill_share"]
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-3, atol=1e-3)


def test_two_processes_train_as_one(one: Path, two: Path) -> None:
    assert_as_one(one, two)
    aligned = [read_json(out / "word_starts-0003.json") for out in (one, two)]
    assert list(aligned[0]) == list(aligned[1])


@pytest.mark.slow
def test_four_processes_train_as_one(recipe: Path, one: Path) -> None:
    four = Processes(recipe.parent / "four", recipe, 4)  # some batches have fewer utterances
    assert four.wait() == [0] * 4, four.lines()
    assert_as_one(one, four.out)


@pytest.mark.slow
def test_all_processes_draw_the_same_chunks(recipe: Path) -> None:
    settings = ["model.attention_heads=0", "model.chunk=[2,20]", "model.right_context=2"]
    one, out = recipe.parent / "chunks-one", recipe.parent / "chunks"
    run_quietly(read_recipe(recipe, [*settings, f"out={one}"]))
    two = Processes(out, recipe, 2, *settings)
    assert two.wait() == [0, 0], two.lines()
    rows = [read_json(folder / "history.json")[:PLAIN_EPOCHS] for folder in (one, out)]
    for mine, theirs in zip(*rows, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def _together(rank: int, port: int, work: Callable[..., None], *arguments: object) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    torch.set_num_threads(1)
    work(rank, *arguments)


def run_together(work: Callable[..., None], *arguments: object) -> None:
    """Call `work(rank, *arguments)` in two processes."""
    port = free_port()
    both = [start(_together, rank, port, work, *arguments) for rank in range(2)]
    for process in both:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in both] == [0, 0]


def _train_on_nan(rank: int, recipe: Path, out: Path) -> None:
    steps = itertools.count(1)

    def poisoned(task: Task[Batch]) -> Task[Batch]:
        def loss(batch: Batch) -> Loss:
            if next(steps) == 2 and rank == 1:
                batch.waves.values[0, 100] = torch.nan
            return task.loss(batch)

        return replace(task, loss=loss)

    train(read_recipe(recipe, [f"out={out}"]), Console(quiet=True), hook=poisoned)


def test_nan_in_one_process_skips_the_step_in_all(recipe: Path) -> None:
    out = recipe.parent / "nan"
    run_together(_train_on_nan, recipe, out)
    bundle = load_bundle(out / "model")
    assert bundle.info["skipped_steps"] == 1
    assert all(weight.isfinite().all() for weight in bundle.model.state_dict().values())


def normalised(
    norm: MaskedBatchNorm, x: Tensor, lengths: Tensor, counts: bool = True
) -> list[Tensor]:
    """Output of a batch norm, and the gradients of a weighted sum of it, in the order of values,
    weight, bias. The sum of a share that is not real does not count, as in `shares.objective`."""
    values = x.clone().requires_grad_()
    y = norm(Padded(values, lengths)).values
    gradient = torch.autograd.grad(
        (y * torch.sin(x)).sum() * counts, [values, norm.weight, norm.bias]
    )
    return [y.detach(), *gradient]


BATCHES = ([7, 5, 4, 2, 1], [3, 1], [4], [1, 0])
"""Lengths of utterances: three to a process, one each, and for one process only."""


def batch_of(lengths: list[int]) -> tuple[MaskedBatchNorm, Tensor, Tensor]:
    torch.manual_seed(len(lengths))
    norm = MaskedBatchNorm(3)
    torch.nn.init.normal_(norm.weight)
    return norm, 3 * torch.randn(len(lengths), max(lengths), 2, 3) + 7, torch.tensor(lengths)


def normalise_shares(rank: int, out: Path) -> None:
    """Write what each of two processes computes of its share of `BATCHES`."""
    with distributed.joined():
        for number, lengths in enumerate(BATCHES):
            norm, x, all_lengths = batch_of(lengths)
            share = share_of(len(lengths), rank, 2)
            with sharing(share):
                y, *gradients = normalised(norm, x[share.rows], all_lengths[share.rows], share.real)
            found = {f"{i}": value for i, value in enumerate([y, *gradients, *norm.buffers()])}
            save_file(found, out / f"{number}-{rank}.safetensors")


def assert_normalised_as_one(out: Path) -> None:
    """What `normalise_shares` wrote is what one process computes."""
    for number, lengths in enumerate(BATCHES):
        norm, x, all_lengths = batch_of(lengths)
        y, of_values, *of_weights = normalised(norm, x, all_lengths)
        parts = [load_file(out / f"{number}-{rank}.safetensors") for rank in range(2)]
        for rank, part in enumerate(parts):
            share = share_of(len(lengths), rank, 2)
            if share.real:
                torch.testing.assert_close(part["0"], y[share.rows], rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(part["1"], of_values[share.rows], rtol=1e-4, atol=1e-5)
            for place, buffer in enumerate(norm.buffers(), start=4):
                torch.testing.assert_close(part[f"{place}"], buffer, rtol=1e-5, atol=1e-6)
        for place, gradient in enumerate(of_weights, start=2):
            summed = sum(part[f"{place}"] for part in parts)
            torch.testing.assert_close(summed, gradient, rtol=1e-4, atol=1e-5)


def test_batch_norm_over_processes_has_the_gradient_of_one(tmp_path: Path) -> None:
    run_together(normalise_shares, tmp_path)
    assert_normalised_as_one(tmp_path)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_all_and_the_training_goes_on(
    recipe: Path, two: Path, victim: int
) -> None:
    folder = recipe.parent / f"killed-{victim}"
    processes = Processes(folder, recipe, 2, "train.save_seconds=0")
    processes.until("epoch   1")
    os.kill(processes.all[victim].pid or 0, signal.SIGKILL)
    statuses = processes.wait()
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] == 1
    (line,) = [line for line in processes.lines() if "rror" in line]
    assert "expected all 2 processes of the training to go on, lost one, as process " in line
    resumed = Processes(folder, recipe, 2)
    assert resumed.wait() == [0, 0], resumed.lines()
    model = Path("model") / "model.safetensors"
    assert digest(resumed.out / model) == digest(two / model)


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others(recipe: Path) -> None:
    settings = ("train.save_seconds=0", "train.epochs=999")
    both = [
        Processes(recipe.parent / f"hung{victim}", recipe, 2, *settings, timeout=HANGING_S)
        for victim in (0, 1)
    ]
    for victim, processes in enumerate(both):
        processes.until("epoch   1")
        os.kill(processes.all[victim].pid or 0, signal.SIGSTOP)
    since = time.monotonic()
    try:
        for victim, processes in enumerate(both):
            processes.all[1 - victim].join(PATIENCE_S)
            assert processes.all[1 - victim].exitcode == 1
            assert time.monotonic() - since < 3 * HANGING_S
            assert (processes.out / "checkpoint" / "state.json").is_file()
            (line,) = [line for line in processes.lines() if "rror" in line]
            assert line.startswith("error: expected all 2 processes of the training to go on")
            assert f"lost one, as process {1 - victim} on " in line
    finally:
        for victim, processes in enumerate(both):
            os.kill(processes.all[victim].pid or 0, signal.SIGCONT)
    for processes in both:
        assert processes.wait() == [1, 1]  # those that hung find the others gone
        assert not [line for line in processes.lines() if "frame #" in line]


def test_a_signal_to_one_stops_all_and_another_number_goes_on(recipe: Path, two: Path) -> None:
    processes = Processes(recipe.parent / "stopped", recipe, 2)
    processes.until("epoch   1")
    os.kill(processes.all[1].pid or 0, signal.SIGTERM)
    assert processes.wait() == [128 + signal.SIGTERM] * 2
    assert sum(line.startswith("stopped and saved") for line in processes.lines()) == 1
    _, shown = run_quietly(read_recipe(recipe, [f"out={processes.out}"]))
    assert "resumed at epoch" in shown
    assert_as_one(processes.out, two)


def test_processes_that_disagree_are_named(recipe: Path) -> None:
    processes = Processes(recipe.parent / "other", recipe, 2, "train.seed=RANK")
    assert processes.wait() == [1, 1]
    (line,) = [line for line in processes.lines() if line]
    assert "expected the same recipe, data and versions in all processes, got " in line
    assert "train.seed=1 in process 1 on " in line
    assert " and 0 in process 0 on " in line


def test_an_error_of_all_is_one_line(recipe: Path) -> None:
    processes = Processes(recipe.parent / "bad", recipe, 2, "data.train=nothing.jsonl")
    assert processes.wait() == [1, 1]
    (line,) = [line for line in processes.lines() if line]
    assert "nothing.jsonl" in line


def test_processes_that_do_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "TIMEOUT", distributed.timedelta(seconds=1))
    with pytest.raises(TrainingError, match="expected 2 processes to meet"), distributed.joined():
        pass
