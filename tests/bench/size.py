"""How a manifest of a million utterances opens, and how fast recordings are read from shards."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.shards import load_recording, pack
from tests.bench.corpus import load
from tests.bench.timing import interleave, print_table, verdict

UTTERANCES = 1_000_000
ROUNDS = 3
TEXT = "then back i turned my face to those high things which moved themselves"
WAYS = {
    "ours": "from asr.dataset.manifest import read_manifest; rows = read_manifest(PATH)",
    "json, kept as dicts": "import json; rows = [json.loads(line) for line in open(PATH)]",
    "datasets (Arrow)": "from datasets import Dataset; rows = Dataset.from_json(PATH, cache_dir="
    "PATH + '.' + str(time.time()))",
}
# Imports are not counted. Linux counts in kibibytes; ru_maxrss would count the parent's, too.
CODE = """
import sys, time
def memory(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
PATH = sys.argv[1]
IMPORT, _, OPEN = sys.argv[2].partition("; ")
exec(IMPORT)
before = memory("VmRSS")
started = time.perf_counter()
exec(OPEN)
seconds = time.perf_counter() - started
row = rows[len(rows) // 2]
text = row.text if hasattr(row, "text") else row["text"]
print(seconds, memory("VmRSS") - before, memory("VmHWM") - before, len(rows), text)
"""


def run() -> None:
    """Print both tables."""
    print(f"\nsize: a manifest of {UTTERANCES:,} utterances, and AN4 in shards")
    with tempfile.TemporaryDirectory() as folder:
        open_manifests(Path(folder))
    corpus = load()
    if corpus is not None:
        with tempfile.TemporaryDirectory() as folder:
            write_manifest(Path(folder) / "all.jsonl", corpus.data.utterances)
            read_recordings(Path(folder) / "all.jsonl", Path(folder) / "packed")


def open_manifests(folder: Path) -> None:
    """Open one manifest in several ways, each in a process of its own."""
    path = folder / "m.jsonl"
    with path.open("w") as file:
        for i in range(UTTERANCES):
            row = {"id": f"1088-{i:07}", "audio": f"audio/{i % 2000}/{i:07}.flac", "text": TEXT}
            file.write(json.dumps(row | {"duration": 12.5, "speaker": str(i % 2000)}) + "\n")
    found: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            command = [sys.executable, "-c", CODE, str(path), way]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            *figures, count, text = said.strip().split(" ", 4)
            assert (int(count), text) == (UTTERANCES, TEXT)
            found[name].append([float(figure) for figure in figures])
    medians = {name: np.median(rows, axis=0).tolist() for name, rows in found.items()}
    print_table(
        f"  opened, median of {ROUNDS}; the file has {path.stat().st_size / 2**20:.0f} MiB",
        ["", "s", "MiB", "MiB at most"],
        [[name, f"{s:.1f}", f"{m:.0f}", f"{peak:.0f}"] for name, (s, m, peak) in medians.items()],
    )
    seconds = medians["ours"][0]
    verdict("a million utterances opened, s", seconds, "<= 10", seconds <= 10)


def read_recordings(manifest: Path, folder: Path) -> None:
    """Read a corpus from shards, from files as published and from FLAC files, in random order."""
    started = time.perf_counter()
    packed = pack([manifest], folder)
    loose, dense = read_manifest(manifest), read_manifest(packed.manifests[0])
    hours = sum(loose.durations) / 3600
    seconds = time.perf_counter() - started
    print(f"\n  {hours:.2f} hours packed in {seconds:.1f} s")
    flacs = [as_flac(u, folder) for u in dense]
    order = np.random.default_rng(0).permutation(len(loose)).tolist()
    for i in order[:20]:
        assert np.array_equal(samples(loose[i]), samples(dense[i]))
    contestants = {"ours": dense, "FLAC files": flacs, "files as published": loose}
    readers = {name: reader(utterances, order) for name, utterances in contestants.items()}
    times = interleave(readers, ROUNDS)
    print_table(
        "  all recordings read",
        ["", "s", "hours a second"],
        [[name, f"{s:.2f}", f"{hours / s:.2f}"] for name, s in times.items()],
    )


def as_flac(utterance: Utterance, folder: Path) -> Utterance:
    """The same in a file of its own."""
    path = folder / f"{utterance.id}.flac"
    soundfile.write(path, samples(utterance), 16000, subtype="PCM_16")
    return replace(utterance, audio=path, packed=None)


def samples(utterance: Utterance) -> np.ndarray:
    u = utterance
    return load_recording(u.audio, 16000, u.start, u.end, u.packed)


def reader(utterances: Sequence[Utterance], order: Sequence[int]) -> Callable[[], object]:
    return lambda: median(len(samples(utterances[i])) for i in order)
