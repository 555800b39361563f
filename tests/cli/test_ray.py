"""`asr ray`: shards in workers, and their merge. Here the workers run in this process, in turn;
`python -m tests.ray_kill` starts Ray itself, and kills its workers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import asr.cli.ray
from asr.cli.ray import do_shard
from tests.commands import Command

Tones = tuple[dict[str, Path], Path]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which workers go to; it is restored."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_shards(words: Sequence[str], count: int, cpus: float, gpus: float) -> list[str]:
        assert (cpus, gpus) == (1.0, 0.5)
        here = str(Path.cwd())
        said = (do_shard(words, here, number, count) for number in range(1, count + 1))
        return [line for lines in said for line in lines]

    monkeypatch.setattr(asr.cli.ray, "run_shards", run_shards)
    monkeypatch.setattr(asr.cli.ray, "require", lambda name: None)


@pytest.mark.usefixtures("without_ray")
def test_shards_and_merge(run: Command, tones: Tones, here: Path) -> None:
    words = "align", tones[1], tones[0]["dev"], "--format", "ctm", "--out"
    assert run(*words, "single").status == 0
    spread = "ray", "--shards", "3", "--gpus", "0.5"
    assert run(*spread, *words, "out").err == ""
    names = sorted(path.name for path in Path("single").iterdir())
    assert sorted(path.name for path in Path("out").iterdir()) == names
    assert all((here / "out" / n).read_bytes() == (here / "single" / n).read_bytes() for n in names)
    # An error of all shards is said once, before that of the merge.
    ended = run(*spread, "align", "nothing", tones[0]["dev"], "--out", "other")
    assert ended.status == 1
    assert len(ended.errors) == len(set(ended.errors)) <= 2
    assert "nothing" in ended.errors[0]


def test_misuse(run: Command, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    misused = run("ray", "--shards", "2", "train", "recipe.yaml").error()
    assert "expected one of align, check, clean, cut" in misused
    monkeypatch.setitem(sys.modules, "ray", None)
    missing = run("ray", "--shards", "2", "cut", "MODEL", "x.jsonl", "--out", "y").error()
    assert "pip install 'lstm-asr[ray]'" in missing
    (line,) = do_shard(["cut"], str(here / "away"), 1, 2)
    assert f"the folder {here / 'away'} on every machine" in line
    assert os.getcwd() == str(here)  # noqa: PTH109
