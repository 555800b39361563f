"""`python -m tests.stops --moments 100 --seed 1`: stop trainings at random moments, once and twice.

Each training decodes short recordings in webm, and is stopped at a random moment of its life, from
the first line of the command to the end of the interpreter: with SIGINT or SIGTERM, once and, in
another training, twice, the second time up to 0.3 s later. It must end by itself, without a crash
in native code, and either have saved itself, have nothing to save, or have finished. Moments are
counted in processor time, so that a busy machine does not move them.

The trainings run under glibc's checks of the heap where this system has them, are forked from a
process that has imported everything, and end as any Python process does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from rich.console import Console

from asr.cli.console import INTERRUPTED
from asr.dataset.manifest import Utterance, write_manifest
from asr.errors import CheckpointError
from asr.features.extractor import FeatureConfig
from asr.io.files import write_json
from asr.models.config import ModelConfig
from asr.training.checkpoint import verify_checkpoint
from asr.training.recipe import DataConfig
from tests.recordings import with_pyav
from tests.tones import RATE, sentence, speak, tone_recipe

TRAIN, DEV = 40, 6  # recordings
LONGEST_PAUSE_S = 0.3  # between the two signals
PATIENCE_S = 300.0
HEAP_CHECKS = "/lib/x86_64-linux-gnu/libc_malloc_debug.so.0"
AT_THE_END = 0.25  # of the moments are after the training, while the interpreter ends
# What glibc, Python and C++ write before they abort.
CRASHED = re.compile(
    r"corrupted|malloc|free\(\)|invalid pointer|double free|smashing|Fatal Python error|"
    r"terminate called|Segmentation fault"
)


@dataclass(frozen=True)
class Stop:
    """When a training is stopped, in seconds of processor time, and with what."""

    after: float
    number: signal.Signals
    pause: float | None
    """Seconds until the second signal; None for a single one."""


@dataclass(frozen=True)
class End:
    """How a training ended: its exit status, negative for a signal, and what it wrote.

    Seconds of processor time until it had `trained`, where that was waited for, and had `ended`.
    """

    status: int
    said: str
    trained: float
    ended: float


def write_webm_recipe(folder: Path, train: int, dev: int) -> Path:
    """A recipe of a few steps over tones in webm, with statistics of all recordings first."""
    manifests = {}
    for part, size in (("train", train), ("dev", dev)):
        rows = []
        for number in range(size):
            samples = speak(sentence(number), number)
            path = folder / part / f"{part}{number}.webm"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(with_pyav(samples, RATE, "webm", "libopus", "mono"))
            rows.append(Utterance(path.stem, path, sentence(number), len(samples) / RATE, part))
        manifests[part] = folder / f"{part}.jsonl"
        write_manifest(manifests[part], rows)
    recipe = tone_recipe(manifests, folder / "out", epochs=2, batch_seconds=10.0)
    changes = {
        "data": DataConfig(train=manifests["train"], dev=manifests["dev"]),
        "features": FeatureConfig(sample_rate=RATE, bands=16),
        "model": ModelConfig(channels=(4,), strides=(2,), layers=1, hidden=16),
    }
    recipe = recipe.model_copy(update=changes)
    write_json(folder / "recipe.json", recipe.model_dump(mode="json"))
    return folder / "recipe.json"


def _serve(recipe: Path) -> None:
    """Fork a training for each line of arguments on stdin; in the child, return to end as Python.

    What the first training of a process loads and compiles, one here has loaded for all.
    """
    import asr.cli.main
    from asr.training.recipe import read_recipe
    from asr.training.trainer import train

    torch.set_num_threads(1)
    # A command that a shell has put into the background ignores Ctrl-C, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train(read_recipe(recipe), Console(quiet=True))
    assert threading.active_count() == 1  # no other would be in the children
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            with Path(request["said"]).open("w") as said, Path(os.devnull).open() as nothing:
                os.dup2(nothing.fileno(), 0)
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            sys.argv = ["asr", *request["arguments"]]
            asr.cli.main.main()
            return
        print(child, flush=True)
        _, status, used = os.wait4(child, 0)
        seconds = used.ru_utime + used.ru_stime
        print(json.dumps([os.waitstatus_to_exitcode(status), seconds]), flush=True)


@dataclass(frozen=True)
class Server:
    """The process that trainings are forked from."""

    requests: IO[str]
    replies: IO[str]

    def train(self, recipe: Path, out: Path, stop: Stop | None) -> End:
        """Train, and stop; without `stop` only look when it has trained."""
        said = out.with_suffix(".said")
        arguments = ["train", str(recipe), f"out={out}", "train.save_seconds=0.5"]
        print(json.dumps({"said": str(said), "arguments": arguments}), file=self.requests)
        self.requests.flush()
        child = int(self.replies.readline())
        trained = 0.0
        if stop is not None:
            _stop(child, stop)
        else:
            while not (out / "model").is_dir() and (used := _processor_seconds(child)) is not None:
                trained = used
                time.sleep(0.001)
        status, ended = json.loads(self.replies.readline())
        return End(status, said.read_text(errors="replace"), trained, ended)


def _stop(process: int, stop: Stop) -> None:
    """Send the signals; a process that has ended is left alone (its number is kept by its parent
    until that has been told to go on, but it may be gone for us)."""
    patience = time.monotonic() + PATIENCE_S
    while (used := _processor_seconds(process)) is not None and used < stop.after:
        if time.monotonic() > patience:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.001)
    if used is None or not _send(process, stop.number) or stop.pause is None:
        return
    time.sleep(stop.pause)
    if _processor_seconds(process) is not None:
        _send(process, stop.number)


def _send(process: int, number: signal.Signals) -> bool:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


def _processor_seconds(process: int) -> float | None:
    """What a process has used so far, with all its threads; None for one that has ended."""
    try:
        return time.clock_gettime((~process << 3) | 2)  # Linux: the clock of another process
    except OSError:
        return None


@contextlib.contextmanager
def serving(recipe: Path, checked: bool) -> Iterator[Server]:
    """A server, whose trainings run under the checks of the heap if `checked`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    if checked:
        environment |= {
            "LD_PRELOAD": HEAP_CHECKS,
            "GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.perturb=165",
        }
    command = [sys.executable, "-m", "tests.stops", "--serve", str(recipe)]
    process = subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "ready\n"
        yield Server(process.stdin, process.stdout)
        process.stdin.close()


def judged(end: End, out: Path, stop: Stop) -> str:
    """How a stopped training ended, in a word or two; what must not be begins with BAD."""
    if CRASHED.search(end.said):
        return "BAD: crashed"
    if end.status not in (0, INTERRUPTED, 128 + stop.number, -stop.number):
        return f"BAD: exit status {end.status}"
    if "stopped and saved" in end.said:
        try:
            verify_checkpoint(out / "checkpoint")
        except CheckpointError as error:
            return f"BAD: {error}"
        return "saved"
    if (out / "model").is_dir():
        return "finished"
    return "BAD: not saved" if (out / "recipe.json").exists() else "nothing to save"


def drawn(moments: int, seed: int, whole: End) -> Iterator[Stop]:
    """Moments in the life of an undisturbed training, each once and twice."""
    for moment in range(moments):
        choice = random.Random(f"{seed} {moment}")
        is_late = choice.random() < AT_THE_END
        after = choice.uniform(*((whole.trained, whole.ended) if is_late else (0, whole.trained)))
        # Some programs pass a signal on that their child has got already.
        pause = choice.choice((0.0, choice.uniform(0, LONGEST_PAUSE_S)))
        number = (signal.SIGINT, signal.SIGTERM)[moment % 2]
        yield Stop(after, number, None)
        yield Stop(after, number, pause)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=100, help="Two trainings each.")
    parser.add_argument("--seed", type=int, default=1, help="Decides the moments.")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(arguments.serve)
        return
    ends: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recipe = write_webm_recipe(folder, TRAIN, DEV)
        server = stack.enter_context(serving(recipe, Path(HEAP_CHECKS).exists()))
        whole = server.train(recipe, folder / "whole", None)
        assert whole.status == 0, whole
        assert not CRASHED.search(whole.said), whole
        print(f"trained for {whole.trained:.2f} s, ended after {whole.ended:.2f} s", flush=True)
        for number, stop in enumerate(drawn(arguments.moments, arguments.seed, whole)):
            out = folder / f"stopped{number}"
            end = server.train(recipe, out, stop)
            result = judged(end, out, stop)
            ends[result] += 1
            print(f"{number}: {stop} {result} ({end.status})", flush=True)
            if result.startswith("BAD"):
                print(end.said, flush=True)
            shutil.rmtree(out, ignore_errors=True)
    for result, count in sorted(ends.items()):
        print(f"{count:4d} {result}")
    sys.exit(any(result.startswith("BAD") for result in ends))


if __name__ == "__main__":
    main()
