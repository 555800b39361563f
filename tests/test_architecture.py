"""Rules of the house that a program can check: who imports whom, sizes, and no unpickling."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DESIGN = ROOT / "docs" / "design.md"
LONGEST_FILE = 400  # lines
LONGEST_FUNCTION = 60

# The packages and ground modules of asr, from the ground up. Each imports only itself and what
# stands before it. `docs/design.md` has the same table.
ROOMS = (
    "errors",
    "io",
    "config",
    "padded",
    "shares",
    "jit",
    "plotting",
    "audio",
    "text",
    "features",
    "augment",
    "models",
    "ctc",
    "dataset",
    "lm",
    "decoding",
    "inference",
    "evaluation",
    "export",
    "sharing",
    "serving",
    "training",
    "project",
    "demo",
    "experiments",
    "cli",
)
FRONT_DOOR = ("__init__", "__main__")  # offer what users call; nothing inside imports them
MOST_AT_THE_ROOT = 8  # modules
DATA_ROOMS = {"errors", "io", "audio", "dataset"}  # all that corpora need
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
UNPICKLING_NAMES = {name.rpartition(".")[2] for name in UNPICKLING_CALLS}


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no source in {folder}"
    return found


@functools.cache
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


def room_of_import(name: str, where: str) -> str:
    """The room of `asr.x` or `asr.x.y`."""
    parts = name.split(".")
    assert len(parts) > 1, f"{where}: import the module, not asr as a whole"
    assert parts[1] in ROOMS, f"{where}: {name} is in no room: give asr/{parts[1]} one in ROOMS"
    return parts[1]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "asr").with_suffix("").parts[0]


def test_every_room_exists_and_every_module_is_in_one() -> None:
    rooms = [room_of(path) for path in sources("asr")]
    assert set(rooms) - set(FRONT_DOOR) == set(ROOMS)


def test_the_root_is_small() -> None:
    assert len(list((ROOT / "asr").glob("*.py"))) <= MOST_AT_THE_ROOT


def test_the_table_of_the_design_has_the_same_rooms() -> None:
    table = re.findall(r"^\| `asr/(\w+)(?:/|\.py)` \|", DESIGN.read_text("utf-8"), re.MULTILINE)
    assert tuple(table) == ROOMS


def test_every_module_has_a_test() -> None:
    """In the room of the same name, or in a test that says which modules it covers."""
    named = set()
    for path in sources("tests"):
        named |= set(re.findall(r"`(asr/[\w/]+\.py)`", ast.get_docstring(parsed(path)) or ""))
    for path in sources("asr"):
        below = path.relative_to(ROOT / "asr")
        own = ROOT / "tests" / below.parent / f"test_{below.name}"
        assert path.name == "__init__.py" or own.exists() or place(path) in named, place(path)


def test_packages_are_one_level_deep() -> None:
    for path in sources("asr"):
        depth = len(path.relative_to(ROOT / "asr").parts)
        assert depth <= 2 or path.parent == ROOT / "asr" / "models" / "kernels", place(path)


@pytest.mark.parametrize("path", sources("asr"), ids=place)
def test_a_room_imports_only_itself_and_what_stands_before_it(path: Path) -> None:
    own = room_of(path)
    for line, name in imports(path):
        where = f"{place(path)}:{line}"
        top = name.split(".")[0]
        assert top == "asr" or top not in HOUSE, f"{where}: asr imports {name}"
        if top == "asr" and own not in FRONT_DOOR and name != "asr.__version__":
            room = room_of_import(name, where)
            assert ROOMS.index(room) <= ROOMS.index(own), f"{where}: {own} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {dotted(path): path for path in sources("asr")}
    wanted = {
        module: {longest_module(name, modules) for _, name in imports(path)} - {module, ""}
        for module, path in modules.items()
    }
    sorter = TopologicalSorter(wanted)
    sorter.prepare()  # raises CycleError, with the circle


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def longest_module(name: str, modules: Collection[str]) -> str:
    """`asr.x.y` of the imported `asr.x.y` or `asr.x.y.z`; "" for other packages."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


@pytest.mark.parametrize("path", sources("data"), ids=place)
def test_data_imports_few_rooms(path: Path) -> None:
    for line, name in imports(path):
        where = f"{place(path)}:{line}"
        top = name.split(".")[0]
        assert top not in {"recipes", "tests"}, f"{where}: data imports {name}"
        if top == "asr":
            assert room_of_import(name, where) in DATA_ROOMS, f"{where}: data imports {name}"


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
            if isinstance(node, ast.Attribute) and node.attr in UNPICKLING_NAMES:
                name = ast.unparse(node)
                found += [f"{place(path)}:{node.lineno}: {name}"] * (name in UNPICKLING_CALLS)
            if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "weights_only"}:
                found.append(f"{place(path)}:{node.value.lineno}: {node.arg}")
    assert not found
