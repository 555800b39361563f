"""From command to the text of a recording of a second, by onnxruntime and by torch.

Bytecode is cached, as it is after the first start of any installation.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from asr.audio.load import write_wav
from asr.inference.transcribe import trained_model
from tests.bench.timing import print_table, verdict

ROUNDS = 5
RATE = 16000
EXPORTED = "exported model, greedy"
SEARCH = "exported model"
TRAINED = "trained model"
SECONDS = {EXPORTED: 1.5, SEARCH: 1.5, TRAINED: 4.0}  # goals
MEGABYTES = {EXPORTED: 200, SEARCH: 200}
# What the system states for a child is at least the size of its parent, which has torch here.
PROGRAM = """
import atexit, runpy, sys

def tell():
    lines = open("/proc/self/status").read().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)

atexit.register(tell)
module, *sys.argv[1:] = sys.argv[1:]
if module == "torch":
    import torch
else:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run() -> None:
    """Print wall clock, processor time and memory; the first round, which fills caches, does not
    count."""
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "one.wav"
        random = np.random.default_rng(0)
        write_wav(recording, (0.01 * random.standard_normal(RATE)).astype(np.float32), RATE)
        transcribe = ["asr", "transcribe", str(recording)]
        commands = {
            EXPORTED: [*transcribe, "--decoder", "greedy"],
            SEARCH: transcribe,
            TRAINED: [*transcribe, "--model", str(trained_model())],
            "import torch": ["torch"],
        }
        rounds: dict[str, list[list[float]]] = {name: [] for name in commands}
        for _ in range(1 + ROUNDS):
            for name, arguments in commands.items():
                rounds[name].append(_measured(arguments))
    middle = {
        name: [statistics.median(column) for column in zip(*rows[1:], strict=True)]
        for name, rows in rounds.items()
    }
    print_table(
        f"startup: seconds to the text of a recording of a second, median of {ROUNDS}",
        ["", "wall clock", "processor", "MB at most"],
        [
            [name, f"{wall:.2f}", f"{cpu:.2f}", f"{size:.0f}"]
            for name, (wall, cpu, size) in middle.items()
        ],
    )
    for name, goal in SECONDS.items():
        verdict(f"{name}: seconds", middle[name][0], f"<= {goal:g}", middle[name][0] <= goal)
    for name, most in MEGABYTES.items():
        verdict(f"{name}: MB", middle[name][2], f"<= {most}", middle[name][2] <= most)


def _measured(arguments: list[str]) -> list[float]:
    """Of a Python process: seconds by the clock and of the processor, and its largest size in
    MB."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    before, start = _processor(), time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        check=True,
        capture_output=True,
        env=environment,
    )
    return [time.perf_counter() - start, _processor() - before, int(ended.stderr) * 1024 / 1e6]


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
