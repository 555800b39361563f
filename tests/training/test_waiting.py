"""How OpenMP's threads wait: briefly, unless the user has said how."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("OMP_", "GOMP_", "KMP_")


def python(program: str, **variables: str) -> str:
    """What a program writes, where only these variables of OpenMP are set."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith(SETTINGS)}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OMP_NUM_THREADS": "2"},
        {"GOMP_SPINCOUNT": "7"},
        {"GOMP_SPINCOUNT": "infinity"},
        {"OMP_WAIT_POLICY": "PASSIVE"},
        {"KMP_BLOCKTIME": "0"},
    ],
    ids=str,
)
def test_threads_wait_briefly_unless_the_user_says_how(variables: dict[str, str]) -> None:
    said = python("import asr, os; print(os.environ.get('GOMP_SPINCOUNT'))", **variables)
    chosen = any(name != "OMP_NUM_THREADS" for name in variables)
    assert said.strip() == (str(variables.get("GOMP_SPINCOUNT")) if chosen else "1000")


def test_nothing_is_set_once_torch_is_loaded() -> None:
    program = "import os, sys; sys.modules['torch'] = sys; import asr; print(os.environ)"
    assert "GOMP_SPINCOUNT" not in python(program)


def test_torch_s_openmp_library_reads_it() -> None:
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    libraries = sorted((Path(spec.origin).parent / "lib").glob("libgomp*"))
    if not libraries:
        pytest.skip("torch comes without libgomp")
    program = f"import asr, ctypes; ctypes.CDLL({str(libraries[0])!r})"
    assert "GOMP_SPINCOUNT = '1000'" in python(program, OMP_DISPLAY_ENV="VERBOSE")


def test_the_package_alone_is_light() -> None:
    said = python("import sys, asr; print(set(sys.modules) - sys.stdlib_module_names)")
    assert not {"numpy", "torch", "typer", "numba", "asr.cli.main"} & ast.literal_eval(said)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes").rglob("*.py")), ids=lambda path: path.parent.name
)
def test_scripts_import_asr_before_torch(path: Path) -> None:
    imported = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            imported += [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append(str(node.module).split(".")[0])
    for heavy in {"torch", "torchaudio", "accelerate"} & set(imported):
        assert "asr" in imported[: imported.index(heavy)]
