"""Packages of extras: the table agrees with pyproject.toml, and a missing one is named."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

from asr.errors import AsrError
from asr.io.extras import EXTRAS, extras_explained, require

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}
OTHERWISE = {  # packages of an extra that the table does not send people to
    "train": {"fsspec"},  # part of the project, with more parts in an extra
}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;]", line)[0] for line in requirements}


def test_the_table_is_that_of_pyproject() -> None:
    offered = PROJECT["optional-dependencies"]
    assert not names(PROJECT["dependencies"]) & {"torch", "datasets", "scipy", "matplotlib"}
    wanted = {extra: names(offered[extra]) - {PROJECT["name"]} for extra in set(EXTRAS.values())}
    found: dict[str, set[str]] = {extra: set() for extra in wanted}
    for module, extra in EXTRAS.items():
        found[extra].add(DISTRIBUTIONS.get(module, module.replace("_", "-")))
    for extra, others in OTHERWISE.items():
        found[extra] |= others
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


def imported(nodes: Iterable[ast.AST]) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@functools.cache
def at_top_level() -> dict[str, set[str]]:
    """What each module imports as soon as it is imported."""
    found = {}
    for path in (ROOT / "asr").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[module] = imported(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


def loaded_with(names: Iterable[str]) -> set[str]:
    """Libraries that are loaded with these, through the top level of all that they load."""
    known = at_top_level()
    found, seen, waiting = set(), set(), list(names)
    while waiting:
        name = waiting.pop()
        found.add(name.partition(".")[0])
        module = name if name in known else name.rpartition(".")[0]
        if module in known and module not in seen:
            seen.add(module)
            waiting += known[module]
    return found


def test_commands_need_the_extra_that_the_page_names() -> None:
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    plain, train = (
        set(re.findall(r"`([a-z ]+)`", re.findall(rf"^\| {extra} \|.*\|(.*)\|$", page, re.M)[0]))
        for extra in ("none", "`train`")
    )
    needed: dict[str, set[str]] = {}
    files = ("main", "align", "clean", "data", "evaluate", "label", "lm", "models", "pretrain")
    for file in (*files, "reports", "transcribe"):
        path = ROOT / "asr" / "cli" / f"{file}.py"
        functions = {
            node.name: node
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        for name, function in functions.items():
            if not any("command" in ast.unparse(d) for d in function.decorator_list):
                continue
            called = {
                node.func.id
                for node in ast.walk(function)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            parts = [function, *(functions[other] for other in called & functions.keys())]
            nodes = [node for part in parts for node in ast.walk(part)]
            required = {"matplotlib"} if "require" in called else set()
            name = name.removesuffix("_model").removesuffix("_models")
            command = f"{file} {name}" if file in ("lm", "models") else name
            needed[command] = (loaded_with(imported(nodes)) & EXTRAS.keys()) | required
    assert {name for name, found in needed.items() if not found} == plain
    others = {"demo", "models push", "models pull"}  # which have rows of their own
    assert {name for name, found in needed.items() if found} == train | others


def test_transcription_needs_no_extra() -> None:
    """Of an exported model."""
    assert loaded_with(["asr.inference.onnx_model", "asr.decoding.folder"]).isdisjoint(EXTRAS)


def test_a_transcription_does_not_wait_for_libraries_that_it_does_not_use() -> None:
    """torchaudio, for example, loads for a third of a second."""
    loaded = loaded_with(
        ["asr.inference.recognizer", "asr.inference.word_times", "asr.models.bundle"]
    )
    assert {"torch", "numba", "asr"} < loaded
    assert loaded.isdisjoint({"onnxruntime", *EXTRAS} - {"torch"})


WITHOUT = """
import sys
from asr.io.extras import EXTRAS
sys.modules.update(dict.fromkeys(EXTRAS))
"""
COMMAND = """
from asr.cli.main import main
main()
"""
FRONT_DOOR = """
import asr
for call in (lambda: asr.train(sys.argv[2]), lambda: asr.evaluate("model", "test.jsonl")):
    try:
        call()
    except asr.AsrError as error:
        print("error:", error, file=sys.stderr)
sys.exit(1)
"""


@pytest.mark.parametrize(("program", "lines"), [(COMMAND, 1), (FRONT_DOOR, 2)])
def test_one_line_says_which_extra_is_needed(program: str, lines: int, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: t.jsonl, dev: d.jsonl}\nout: run\n")
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT + program, "train", str(recipe)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    told = ended.stderr.splitlines()
    assert len(told) == lines
    for line in told:
        assert line.startswith("error: expected the Python module")
        assert line.endswith("pip install 'lstm-asr[train]'")
