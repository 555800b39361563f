"""`import asr`, `python -m asr` and the options of every command; covers `asr/__init__.py` and
`asr/__main__.py`.

Covers `asr/__main__.py`.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.commands import Command
from tests.tones import tone_recipe, write_corpus

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "numpy", "numba", "pydantic", "regex", "rich", "yaml", "psutil", "soundfile")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


@pytest.mark.parametrize(
    "code",
    ["import asr; dir(asr)", "import sys; sys.argv = ['asr', '-h']; import asr.__main__ as main"],
)
def test_what_loads_at_once_is_light(code: str) -> None:
    if "main" in code:
        code += "\ntry: main.main()\nexcept SystemExit: pass"
    ended = python("-c", f"{code}\nimport sys; print('loaded', sorted(sys.modules))")
    assert ended.returncode == 0, ended.stderr
    loaded = ended.stdout.rpartition("loaded")[2]
    assert [name for name in HEAVY if f"'{name}'" in loaded] == []


def test_the_package_runs_as_a_command() -> None:
    ended = python("-m", "asr", "--version")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ended.stdout == f"asr {project['version']}\n"


def test_help_has_a_short_option_everywhere(run: Command) -> None:
    for command in ([], ["transcribe"], ["lm"], ["lm", "estimate"]):
        ended = run(*command, "-h")
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.startswith("Usage:")


def test_quiet_leaves_errors_alone(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    audio = next(manifests["test"].with_suffix("").glob("*.wav"))
    (tmp_path / "a.strange").write_text("no recording")
    (tmp_path / "a.wav").write_bytes(audio.read_bytes())
    loud = run("transcribe", tmp_path, tmp_path / "absent.wav", "--model", model)
    assert len(loud.err.splitlines()) == 3
    for place in (0, 1, 5):
        words = ["transcribe", tmp_path, tmp_path / "absent.wav", "--model", model]
        words.insert(place, "--quiet")
        quiet = run(*words)
        assert (quiet.status, quiet.out) == (1, loud.out)
        assert quiet.err.splitlines() == loud.errors
    again = run("transcribe", tmp_path, tmp_path / "absent.wav", "--model", model)
    assert again == loud


def test_quiet_training_is_silent(run: Command, tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path / "corpus", {"train": 4, "dev": 2})
    recipe = tone_recipe(manifests, tmp_path / "run", epochs=1)
    (tmp_path / "recipe.yaml").write_text(recipe.model_dump_json())
    ended = run("train", tmp_path / "recipe.yaml", "--quiet")
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    assert "epoch" in run("train", tmp_path / "recipe.yaml", f"out={tmp_path / 'loud'}").err
    (tmp_path / "recipe.yaml").write_text("data: nothing")
    assert run("train", tmp_path / "recipe.yaml", "--quiet").error()
