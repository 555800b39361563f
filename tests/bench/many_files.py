"""`asr transcribe --format json` on 5,000 short files: memory and open files must not grow.

Twenty recordings of a second each are linked 250 times.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from asr.audio.load import load_audio, write_wav
from asr.io.paths import files_below
from tests.bench.corpus import SOURCE
from tests.bench.timing import print_table, verdict

FILES = 5000
DISTINCT = 20
RATE = 16000
WARM_UP = 500
EVERY = 250
MOST_GROWTH = 8.0  # MiB; 16 to and fro is what the allocator keeps
MOST_OPEN = 2  # files that are being read just then


@dataclass(frozen=True)
class Sample:
    """The state of the process when it has written this many results."""

    results: int
    mebibytes: float
    descriptors: int


def run(files: int = FILES) -> None:
    """Print the samples, or why there are none."""
    print(f"\nmany_files: asr transcribe on {files} files of a second")
    if not SOURCE.is_dir():
        print(f"  no AN4 in {SOURCE}: left out")
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), files)
        samples = watch(["transcribe", name, "--format", "json"], EVERY)
    print_table(
        f"while it runs (from {WARM_UP} on, it counts)",
        ["results", "MiB", "open files"],
        [[str(s.results), f"{s.mebibytes:.0f}", str(s.descriptors)] for s in samples],
    )
    late = [sample for sample in samples if sample.results >= WARM_UP]
    part = len(late) // 3
    growth = statistics.median(s.mebibytes for s in late[-part:]) - statistics.median(
        s.mebibytes for s in late[:part]
    )
    verdict(
        "MiB of growth, last to first third", growth, f"<= {MOST_GROWTH:g}", growth <= MOST_GROWTH
    )
    more = max(s.descriptors for s in late) - min(s.descriptors for s in late)
    verdict("open files, most to least", more, f"<= {MOST_OPEN}", more <= MOST_OPEN)


def make(folder: Path, files: int) -> None:
    """Recordings of a second: the beginnings of AN4's test recordings, and links to them."""
    paths = sorted(files_below(SOURCE / "wav" / "an4test_clstk"))[:DISTINCT]
    for i in range(files):
        path = folder / f"{i:05d}.wav"
        if i < len(paths):
            samples = load_audio(paths[i], RATE)[:RATE]
            write_wav(path, np.pad(samples, (0, RATE - len(samples))), RATE)
        else:
            os.link(folder / f"{i % len(paths):05d}.wav", path)


def watch(arguments: list[str], every: int) -> list[Sample]:
    """Run a command, and sample it after each `every` lines that it writes, and after the last."""
    command = [sys.executable, "-m", "asr", *arguments]
    samples = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        seen, results = psutil.Process(process.pid), 0
        assert process.stdout is not None
        for results, _ in enumerate(process.stdout, start=1):
            if results % every == 0:
                samples.append(Sample(results, seen.memory_info().rss / 2**20, seen.num_fds()))
    if process.returncode:
        raise RuntimeError(f"expected success after {results} results, got {process.returncode}")
    return samples
