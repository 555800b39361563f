"""A training step while other programs use the cores, by what OpenMP's threads do as they wait.

Each way to wait is a process of its own, because OpenMP reads its settings when it is loaded. All
of them share two cores and take turns; `python -m tests.bench.crowded THREADS` is such a process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from tests.bench.timing import print_table, verdict

ROOT = Path(__file__).resolve().parents[2]
CORES = 2
STEPS = 3  # in a turn
ROUNDS = 8
UTTERANCES, SECONDS, UNITS = 16, 2, 30  # a batch of the demo: 32 s of short commands
VOCABULARY = 28
# Environment, and threads.
WAYS: dict[str, tuple[dict[str, str], int]] = {
    "ours": ({}, 2),
    "libgomp's own: 300,000 turns": ({"GOMP_SPINCOUNT": "300000"}, 2),
    "no turns": ({"GOMP_SPINCOUNT": "0"}, 2),
    "OMP_WAIT_POLICY=PASSIVE": ({"OMP_WAIT_POLICY": "PASSIVE"}, 2),
    "one thread": ({}, 1),
}
SETTINGS = ("OMP_", "GOMP_", "KMP_")
BUSY = "while True: pass"
BUSY_40 = """
import time
while True:
    until = time.perf_counter() + 0.04
    while time.perf_counter() < until: pass
    time.sleep(0.06)
"""
LOADS = {"alone": (), "one busy process": (BUSY,), "1.4 cores busy": (BUSY, BUSY_40)}
Turn = Callable[[], float]


def run() -> None:
    """Print the table and how the goals are met."""
    print(f"\ncrowded: ms a training step of the demo on {CORES} cores, other programs beside it")
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    if len(cores) < CORES:
        print(f"  skipped: needs {CORES} cores, got {len(cores)}")
        return
    with contextlib.ExitStack() as stack:
        turns = {
            name: stack.enter_context(worker(environment, threads, cores))
            for name, (environment, threads) in WAYS.items()
        }
        seconds = {}
        for load, programs in LOADS.items():
            with busy(programs, cores):
                seconds[load] = take_turns(turns)
    print_table(
        f"  median of {ROUNDS} turns of {STEPS} steps, the slowest turn in brackets",
        ["", *LOADS],
        [[name, *(shown(seconds[load][name]) for load in LOADS)] for name in WAYS],
    )
    ours = {load: median(seconds[load]["ours"]) for load in LOADS}
    slower = ours["one busy process"] / ours["alone"]
    verdict("beside one busy process, times alone", slower, "<= 2.2", slower <= 2.2)
    cost = ours["alone"] / median(seconds["alone"]["libgomp's own: 300,000 turns"])
    verdict("alone, times libgomp's own", cost, "<= 1.03", cost <= 1.03)


def shown(seconds: Sequence[float]) -> str:
    return f"{1000 * median(seconds):.0f} ({1000 * max(seconds):.0f})"


def take_turns(turns: Mapping[str, Turn]) -> dict[str, list[float]]:
    """Seconds a step of each turn. The order is rotated by one from round to round."""
    names = list(turns)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(ROUNDS + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken = turns[name]()
            if number:  # the first round warms up
                seconds[name].append(taken)
    return seconds


@contextlib.contextmanager
def worker(environment: Mapping[str, str], threads: int, cores: Sequence[int]) -> Iterator[Turn]:
    """A process that takes `STEPS` steps when it is asked to; idle, it uses no core."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(SETTINGS)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.crowded", str(threads)],
        cwd=ROOT,
        env={**kept, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def turn() -> float:
            asked.write("\n")
            asked.flush()
            return float(answers.readline())

        try:
            turn()  # everything is loaded and compiled
            yield turn
        finally:
            process.kill()


@contextlib.contextmanager
def busy(programs: Sequence[str], cores: Sequence[int]) -> Iterator[None]:
    """Let Python programs run beside."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program], preexec_fn=lambda: os.sched_setaffinity(0, cores)
        )
        for program in programs
    ]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def work(threads: int) -> None:
    """Take `STEPS` training steps for each line on stdin, and print the seconds of one."""
    import torch

    torch.set_num_threads(threads)
    step = training_step()
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        print((time.perf_counter() - started) / STEPS, flush=True)


def training_step() -> Callable[[], None]:
    """Augmentation, forward, backward and update of the demo's network, on noise."""
    import torch

    from asr.augment.noise import load_sounds
    from asr.dataset.speech_dataset import Batch
    from asr.demo.run import demo_recipe
    from asr.models.acoustic import AcousticModel
    from asr.padded import Padded
    from asr.training.optimizer import build_optimizer
    from asr.training.prepare import precision
    from asr.training.step import batch_loss

    torch.manual_seed(0)
    manifest = Path("none.jsonl")
    recipe = demo_recipe(Path("none"), {"train": manifest, "dev": manifest}, seed=1)
    model = AcousticModel(recipe.features, recipe.model, VOCABULARY).train()
    optimizer = build_optimizer(model, recipe.train)
    rate = recipe.features.sample_rate
    sounds = load_sounds(recipe.augment, rate)
    samples = torch.linspace(0.7, 1.0, UTTERANCES).mul(SECONDS * rate).long()
    lengths = torch.full((UTTERANCES,), UNITS)
    targets = Padded(torch.randint(1, VOCABULARY, (UTTERANCES, UNITS)), lengths)
    speeds = recipe.augment.speeds
    batch = Batch(
        ids=[str(i) for i in range(UTTERANCES)],
        waves=Padded(torch.randn(UTTERANCES, SECONDS * rate).mul(0.1), samples),
        targets=targets,
        spelled=targets,
        speeds=[speeds[i % len(speeds)] for i in range(UTTERANCES)],
        tempos=[1.0] * UTTERANCES,
        samples=samples.tolist(),
    )
    short = precision(recipe.train.precision, lambda message: None) == "bf16"

    def step() -> None:
        loss = batch_loss(
            model,
            batch,
            recipe.augment,
            recipe.train.cr_ctc_weight,
            lambda: torch.autocast("cpu", torch.bfloat16, enabled=short),
            sounds,
        )
        loss.objective.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    work(int(sys.argv[1]))
