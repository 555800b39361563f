"""Training in two processes of one thread each, beside one process of one thread."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from asr.io.files import read_json, write_json
from asr.models.config import ModelConfig
from tests.bench.timing import print_table
from tests.tones import tone_recipe, write_corpus

UTTERANCES = 1600  # with fewer, the batch of two processes has more padding
BATCH_SECONDS = 24.0  # of each process
ROUNDS = 3


def run() -> None:
    """Print the table."""
    print("\nprocesses: training in two processes of one thread, and in one")
    paces: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifests = write_corpus(folder, {"train": UTTERANCES, "dev": 4})
        recipe = tone_recipe(manifests, folder / "out", epochs=2, batch_seconds=BATCH_SECONDS)
        model = ModelConfig(channels=(8,), strides=(2,), layers=3, hidden=256, dropout=0.1)
        recipe = recipe.model_copy(update={"model": model})
        write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
        for turn in range(ROUNDS):
            for count in (1, 2) if turn % 2 else (2, 1):
                out = folder / f"{count}-{turn}"
                _train(folder / "recipe.json", out, count)
                # The first epoch also compiles and reads the audio.
                paces[count].append(read_json(out / "history.json")[-1]["hours_per_hour"])
    one, two = median(paces[1]), median(paces[2])
    print_table(
        f"  3 x {model.hidden} bidirectional LSTM, batches of {BATCH_SECONDS:g} s in each process",
        ["processes", "hours of audio per hour", "to one"],
        [["1", f"{one:.0f}", "1.00"], ["2", f"{two:.0f}", f"{two / one:.2f}"]],
    )


def _train(recipe: Path, out: Path, count: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    size = f"train.batch_seconds={BATCH_SECONDS * count}"
    command = [sys.executable, "-m", "asr", "train", str(recipe), f"out={out}", size]
    place = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in place.items()}
    running = [
        subprocess.Popen(
            command,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for rank in range(count)
    ]
    for process in running:
        said = process.communicate()[1]
        assert process.returncode == 0, said.decode()
