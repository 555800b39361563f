"""`python -m tests.ray_kill`: kill workers of a local Ray in the middle of their shards.

`asr ray align` must then have the very files of `asr align`, and no item may have two results. It
took four to eight minutes beside other work on two cores: it is no part of `make test`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.io.shard_results import DONE, RESULTS
from asr.models.bundle import save_bundle
from tests.tones import untrained_bundle, write_corpus

SHARDS = 4
UTTERANCES = 2000
PATIENCE_S = 600.0


def write_inputs(folder: Path) -> list[str]:
    """A model and a manifest of many utterances of a few recordings, as arguments of `asr`."""
    few = list(read_manifest(write_corpus(folder, {"train": 20})["train"]))
    many = [
        Utterance(f"u{number:05}", few[number % len(few)].audio, few[number % len(few)].text, 1.0)
        for number in range(UTTERANCES)
    ]
    write_manifest(folder / "many.jsonl", many)
    save_bundle(folder / "model", untrained_bundle())
    return ["align", str(folder / "model"), str(folder / "many.jsonl")]


def kill_workers(shards: Path, kills: int, process: subprocess.Popen[bytes]) -> int:
    """Kill workers that have written a part of their shard; the number of those."""
    killed: set[int] = set()
    give_up = time.monotonic() + PATIENCE_S
    while len(killed) < kills and process.poll() is None and time.monotonic() < give_up:
        for lock in shards.glob("*/.lock"):
            found = re.search("process ([0-9]+)", lock.read_text() if lock.exists() else "")
            results = lock.with_name(RESULTS)
            if not found or int(found[1]) in killed or lock.with_name(DONE).exists():
                continue
            rows = results.read_bytes().count(b"\n") - 1
            if rows > 20 * (1 + len(killed)):
                os.kill(int(found[1]), signal.SIGKILL)
                killed.add(int(found[1]))
                print(f"killed process {found[1]}, {rows} results in {lock.parent.name}")
                break
        time.sleep(0.005)
    return len(killed)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=3)
    kills = parser.parse_args().kills
    folder = Path(tempfile.mkdtemp(prefix="ray-kill-"))
    words = write_inputs(folder)
    asr = [sys.executable, "-m", "asr"]
    single, out = folder / "single", folder / "out"
    subprocess.run([*asr, *words, "--out", str(single)], check=True)
    local = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    started = time.monotonic()
    spread = [*asr, "ray", "--shards", str(SHARDS), *words, "--out", str(out)]
    process = subprocess.Popen(spread, env=local)
    killed = kill_workers(folder / "out.shards", kills, process)
    status = process.wait(PATIENCE_S)
    ids = [
        json.loads(line)[0]
        for path in sorted((folder / "out.shards").rglob(RESULTS))
        for line in path.read_text().splitlines()[1:]
    ]
    same = status == 0 and content(out) == content(single)
    once = len(ids) == len(set(ids)) == UTTERANCES
    print(f"{killed} kills, {time.monotonic() - started:.0f} s, {len(ids)} results of {UTTERANCES}")
    if not (same and once and killed == kills):
        print(f"not as asr align alone (status {status}): {folder}")
        sys.exit(1)
    print("every file as from asr align alone, every result once")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
