"""Packages of extras: the table agrees with pyproject.toml, and a missing one is named."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.io.extras import EXTRAS, extras_explained, require

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
OTHERWISE = {"fsspec"}  # part of the project, with more parts in an extra


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;]", line)[0] for line in requirements}


def test_the_table_is_that_of_pyproject() -> None:
    offered = PROJECT["optional-dependencies"]
    assert not names(PROJECT["dependencies"]) & {"datasets", "librosa", "scipy", "matplotlib"}
    wanted = {extra: names(offered[extra]) - {PROJECT["name"]} for extra in set(EXTRAS.values())}
    found: dict[str, set[str]] = {extra: set() for extra in wanted}
    for module, extra in EXTRAS.items():
        found[extra].add(DISTRIBUTIONS.get(module, module.replace("_", "-")))
    found["train"] |= OTHERWISE
    assert found == wanted


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_package_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    advice = (
        rf"^expected .* {module}, got none; .* pip install '{PROJECT['name']}\[{EXTRAS[module]}\]'$"
    )
    with pytest.raises(AsrError, match=advice):
        require(module)
    with pytest.raises(AsrError, match=advice), extras_explained():
        __import__(module)


def test_any_other_missing_module_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), extras_explained():
        import nothing_of_this_name  # type: ignore[import-not-found]  # noqa: F401


WITHOUT = """
import sys
from asr.io.extras import EXTRAS
sys.modules.update(dict.fromkeys(EXTRAS))
from asr.cli.main import main
sys.argv[0] = "asr"
main()
"""


def test_a_command_says_in_one_line_which_extra_it_needs(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: t.jsonl, dev: d.jsonl}\nout: run\n")
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, "train", str(recipe)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: expected the Python module")
    assert line.endswith("pip install 'lstm-asr[train]'")
