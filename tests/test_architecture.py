"""Rules of the house that a program can check: who imports whom, sizes, and no unpickling."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 60

# The import rank of every module of asr (a package counts as one): it may import from its own row
# and from lower ones. A new module gets its row here, after docs/design.md.
ROWS = {
    "errors": 0,
    "padded": 0,
    "io": 1,
    "audio": 2,
    "config": 2,
    "jit": 2,
    "plotting": 2,
    "features": 3,
    "text": 3,
    "augment": 4,
    "ctc": 4,
    "models": 4,
    "dataset": 5,
    "lm": 6,
    "decoding": 7,
    "inference": 8,
    "evaluation": 9,
    "training": 10,
    "demo": 11,
    "experiments": 11,
    "project": 11,
    "cli": 12,
}
FACE_ROW = 12  # asr/__init__.py offers what users call; nothing inside imports it
DATA_ROW = 5  # corpora need audio and manifests, nothing above
HOUSE = {"asr", "data", "recipes", "tests"}

# Each can run code that a file brings along. safetensors and JSON cannot.
UNPICKLING_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPICKLING_CALLS = {
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.hub.load",
    "torch.package",
    "numpy.load",
    "np.load",
    "pandas.read_pickle",
    "accelerator.load_state",
    "accelerator.save_state",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
}


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no source in {folder}"
    return found


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, also within functions."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{place(path)}:{node.lineno}: write the import out from asr"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def row_of_import(name: str, where: str) -> int:
    """The row of `asr.x` or `asr.x.y`."""
    parts = name.split(".")
    assert len(parts) > 1, f"{where}: import the module, not asr as a whole"
    assert parts[1] in ROWS, f"{where}: {name} has no row: give asr/{parts[1]} one in ROWS"
    return ROWS[parts[1]]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "asr").with_suffix("").parts
    return parts[0]


def test_every_module_has_a_row_and_every_row_a_module() -> None:
    modules = {module_of(path) for path in sources("asr")} - {"__init__"}
    assert modules == set(ROWS)


def test_packages_are_one_level_deep() -> None:
    for path in sources("asr"):
        depth = len(path.relative_to(ROOT / "asr").parts)
        assert depth <= 2 or path.parent == ROOT / "asr" / "models" / "kernels", place(path)


@pytest.mark.parametrize("path", sources("asr"), ids=place)
def test_asr_imports_from_its_own_row_or_a_lower_one(path: Path) -> None:
    own = ROWS.get(module_of(path), FACE_ROW)
    for line, name in imports(path):
        where = f"{place(path)}:{line}"
        top = name.split(".")[0]
        assert top == "asr" or top not in HOUSE, f"{where}: asr imports {name}"
        if top == "asr":
            row = row_of_import(name, where)
            assert row <= own, f"{where}: row {own} imports {name} of row {row}"


@pytest.mark.parametrize("path", sources("data"), ids=place)
def test_data_imports_the_lowest_rows_only(path: Path) -> None:
    for line, name in imports(path):
        where = f"{place(path)}:{line}"
        top = name.split(".")[0]
        assert top not in {"recipes", "tests"}, f"{where}: data imports {name}"
        if top == "asr":
            assert row_of_import(name, where) <= DATA_ROW, f"{where}: data imports {name}"


@pytest.mark.parametrize("path", sources("recipes"), ids=place)
def test_recipes_do_not_import_each_other(path: Path) -> None:
    for line, name in imports(path):
        where = f"{place(path)}:{line}"
        assert name.split(".")[0] not in {"recipes", "tests"}, f"{where}: a recipe imports {name}"


@pytest.mark.parametrize("folder", ["asr", "data", "recipes"])
def test_files_and_functions_are_short(folder: str) -> None:
    too_long = []
    for path in sources(folder):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            too_long.append(f"{place(path)}: {lines} lines")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    too_long.append(f"{place(path)}:{node.lineno}: {node.name}, {length} lines")
    assert not too_long


@pytest.mark.parametrize("folder", ["asr", "data", "recipes"])
def test_nothing_unpickles(folder: str) -> None:
    found = []
    for path in sources(folder):
        for line, name in imports(path):
            parts = name.split(".")
            if UNPICKLING_MODULES & set(parts) or name in UNPICKLING_CALLS:
                found.append(f"{place(path)}:{line}: {name}")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in UNPICKLING_CALLS:
                found.append(f"{place(path)}:{node.lineno}: {ast.unparse(node)}")
            if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "weights_only"}:
                found.append(f"{place(path)}:{node.value.lineno}: {node.arg}")
    assert not found
