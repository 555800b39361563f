"""Read mutated inputs in child processes, and tell which of them end in anything but one line."""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from asr.errors import AsrError
from tests.fuzz.kinds import KINDS
from tests.fuzz.mutate import mutated

MEMORY = 2 << 30  # bytes that one input may take
SECONDS = 30.0  # that one input may take
AT_ONCE = 50  # inputs of a child


@dataclass(frozen=True)
class Outcome:
    """`result` is read, refused, or what went wrong."""

    number: int
    kind: str
    result: str
    detail: str = ""

    @property
    def bad(self) -> bool:
        return self.result not in ("read", "refused")


def make_input(number: int, seed: int, seeds: Path, folder: Path) -> tuple[str, Path]:
    """Write input `number`, which depends on it and `seed` alone. Its kind and its path."""
    random = Random(f"{seed}:{number}")
    kind = list(KINDS)[number % len(KINDS)]
    valid = sorted((seeds / kind).iterdir())
    chosen = random.choice(valid)
    path = folder / chosen.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if chosen.is_dir():
        shutil.copytree(chosen, path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        valid = [file for other in valid for file in sorted(other.rglob("*")) if file.is_file()]
    else:
        shutil.copy(chosen, path)
        files = [path]
    file = random.choice(files)
    others = [other.read_bytes() for other in valid]
    file.write_bytes(mutated(file.read_bytes(), others, random))
    return kind, path


def try_input(number: int, seed: int, seeds: Path, folder: Path) -> Outcome:
    """Read one input as the commands do."""
    kind, path = make_input(number, seed, seeds, folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    try:
        KINDS[kind].read(path)
        result, detail = "read", ""
    except (AsrError, OSError) as error:
        result, detail = "refused", str(error)
        if "\n" in detail:
            result = "more than a line"
    except MemoryError:
        result, detail = "memory", traceback.format_exc()
    except BaseException:
        result, detail = "traceback", traceback.format_exc()
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before > MEMORY:
        result = "memory"
    return Outcome(number, kind, result, detail)


def _child(numbers: range, seed: int, seeds: Path, folder: Path, pipe: int) -> None:
    faulthandler.disable()  # a crash is told by the parent
    nowhere = os.open(os.devnull, os.O_WRONLY)  # decoders write to stderr as they like
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        outcome = try_input(number, seed, seeds, folder)
        row = [outcome.number, outcome.kind, outcome.result, outcome.detail[-3000:]]
        os.write(pipe, json.dumps(row).encode() + b"\n")


def outcomes(numbers: range, seed: int, seeds: Path, folder: Path) -> Iterator[Outcome]:
    """Read the inputs in children, so that one that ends its process is found and named."""
    names = list(KINDS)
    place = numbers.start
    while place < numbers.stop:
        end = min(place + AT_ONCE, numbers.stop)
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(out)
            try:
                _child(range(place, end), seed, seeds, folder, into)
            finally:
                os._exit(0)
        os.close(into)
        left = b""
        slow = False
        while True:
            ready, _, _ = select.select([out], [], [], SECONDS)
            piece = os.read(out, 1 << 16) if ready else b""
            if not ready:
                slow = True
                os.kill(child, signal.SIGKILL)
            if not piece:
                break
            *lines, left = (left + piece).split(b"\n")
            for line in lines:
                outcome = Outcome(*json.loads(line))
                place = outcome.number + 1
                yield outcome
        os.close(out)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if place < end:
            result = f"slower than {SECONDS:g} s" if slow else f"crash {status}"
            yield Outcome(place, names[place % len(names)], result)
            place += 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="inputs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that fail")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    began = time.monotonic()
    counts: Counter[tuple[str, str]] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory() as base:
        seeds, folder = Path(base) / "seeds", Path(base) / "work" / "input"
        for name, kind in KINDS.items():
            (seeds / name).mkdir(parents=True)
            kind.make(seeds / name)
            for path in sorted((seeds / name).iterdir()):  # valid ones can be read
                kind.read(path)
        numbers = range(options.first, options.first + options.count)
        for outcome in outcomes(numbers, options.seed, seeds, folder):
            counts[outcome.kind, outcome.result] += 1
            if outcome.bad:
                bad += 1
                print(f"{outcome.number} {outcome.kind}: {outcome.result}\n{outcome.detail}")
                if options.keep:
                    make_input(
                        outcome.number, options.seed, seeds, options.keep / str(outcome.number)
                    )
    print(f"{'kind':<14}{'read':>8}{'refused':>10}{'bad':>6}")
    for name in KINDS:
        rows = {result: n for (kind_, result), n in counts.items() if kind_ == name}
        wrong = sum(rows.values()) - rows.get("read", 0) - rows.get("refused", 0)
        print(f"{name:<14}{rows.get('read', 0):>8}{rows.get('refused', 0):>10}{wrong:>6}")
    print(
        f"{options.count} inputs, seed {options.seed}, {time.monotonic() - began:.0f} s, {bad} bad"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
