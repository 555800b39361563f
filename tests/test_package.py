"""What is installed: all of asr with its data files, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUILD = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
NEEDED = {
    "asr/cli/main.py",
    "asr/evaluation/templates/report.html",
    "asr/evaluation/templates/report.js",
    "asr/evaluation/templates/style.css",
    "asr/inference/default_model/config.json",
    "asr/inference/default_model/lstm/model.safetensors",
    "asr/inference/default_model/model.safetensors",
    "asr/inference/default_onnx/model.onnx",
    "asr/inference/default_onnx/lstm/model.onnx",
}


@pytest.mark.skipif(
    int(version("setuptools").partition(".")[0]) < 77,
    reason="needs setuptools 77, of the extra dev",
)
def test_the_wheel_holds_all_of_asr_and_nothing_else(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("asr", "data", "recipes"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / "tests").mkdir()
    shutil.copy(Path(__file__), tmp_path / "tests" / "__init__.py")
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, tmp_path)
    ended = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    (wheel,) = (tmp_path / "dist").glob("lstm_asr-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    files = (path for path in (tmp_path / "asr").rglob("*") if path.is_file())
    assert packed == {path.relative_to(tmp_path).as_posix() for path in files}
    assert packed >= NEEDED
    assert {name.rpartition("/")[2] for name in names - packed} >= {"LICENSE", "entry_points.txt"}
