from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asr.errors import AsrError
from tests.fuzz import __main__ as fuzz
from tests.fuzz.__main__ import make_input
from tests.fuzz.kinds import KINDS, Kind
from tests.processes import start


def read_mutated(said: Path, *arguments: str) -> None:
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["tests.fuzz", *arguments]
    sys.exit(fuzz.main())


def test_a_few_hundred_mutated_inputs_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    # In a process of its own: a fork of one whose threads have worked may hang.
    process = start(read_mutated, tmp_path / "said", "--count", "180", "--seed", "3")
    process.join()
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 0, said
    assert "180 inputs, seed 3" in said
    assert said.rstrip().endswith(" 0 bad")


def test_an_input_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    for name in KINDS:
        (tmp_path / "seeds" / name).mkdir(parents=True)
        (tmp_path / "seeds" / name / "a.txt").write_text("1 low high\n" * 20)
    contents = []
    for seed in (1, 1, 2):
        for number in (5, 6) if seed == 1 else (5,):
            random.random()
            kind, path = make_input(number, seed, tmp_path / "seeds", tmp_path / "work")
            assert kind == list(KINDS)[number % len(KINDS)]
            contents.append(path.read_bytes())
    assert contents[:2] == contents[2:4]
    assert contents[4] != contents[0]


def refuse(path: Path) -> None:
    raise AsrError(f"expected a, got {path}: correct it")


def chatter(path: Path) -> None:
    raise AsrError(f"expected a,\ngot {path}")


ODD: dict[str, Callable[[Path], object]] = {
    "crash -11": lambda path: os.kill(os.getpid(), 11),
    "traceback": lambda path: [][0],
    "memory": lambda path: bytearray(3 << 30),
    "slower than 1 s": lambda path: time.sleep(60),
    "more than a line": chatter,
    "refused": refuse,
    "read": lambda path: path.read_bytes(),
}
GOOD = ("refused", "read")


@pytest.mark.filterwarnings("ignore:.*fork")
def test_what_goes_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "KINDS", {name: Kind(lambda _: None, r) for name, r in ODD.items()})
    monkeypatch.setattr(fuzz, "SECONDS", 1.0)
    for name in ODD:
        (tmp_path / "seeds" / name).mkdir(parents=True)
        (tmp_path / "seeds" / name / "a.txt").write_text("low")
    found = list(fuzz.outcomes(range(2 * len(ODD)), 1, tmp_path / "seeds", tmp_path / "work"))
    assert [outcome.number for outcome in found] == list(range(2 * len(ODD)))
    assert [outcome.result for outcome in found] == [*ODD] * 2
    assert [outcome.bad for outcome in found] == [name not in GOOD for name in ODD] * 2
