"""From command to the text of a recording of a second, beside Python's import of torch alone."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from asr.audio.load import write_wav
from tests.bench.timing import print_table, verdict

ROUNDS = 5
RATE = 16000
GOAL = 4.0  # seconds


def run() -> None:
    """Print wall clock and processor time; the first round, which fills caches, does not count."""
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "one.wav"
        random = np.random.default_rng(0)
        write_wav(recording, (0.01 * random.standard_normal(RATE)).astype(np.float32), RATE)
        commands = {
            "asr transcribe": ["-m", "asr", "transcribe", str(recording)],
            "asr transcribe --decoder greedy": [
                *("-m", "asr", "transcribe", str(recording), "--decoder", "greedy")
            ],
            "import torch": ["-c", "import torch"],
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(1 + ROUNDS):
            for name, arguments in commands.items():
                seconds[name].append(_timed(arguments))
    middle = {
        name: [statistics.median(column) for column in zip(*rows[1:], strict=True)]
        for name, rows in seconds.items()
    }
    print_table(
        f"startup: seconds to the text of a recording of a second, median of {ROUNDS}",
        ["", "wall clock", "processor"],
        [[name, f"{wall:.2f}", f"{cpu:.2f}"] for name, (wall, cpu) in middle.items()],
    )
    wall = middle["asr transcribe"][0]
    verdict("seconds to the first text", wall, f"<= {GOAL:g}", wall <= GOAL)


def _timed(arguments: list[str]) -> tuple[float, float]:
    """Seconds of a Python process: wall clock, and of the processor."""
    before, start = _processor(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, _processor() - before


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
