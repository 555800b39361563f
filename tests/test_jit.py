"""Compiled functions run wherever they are installed, at worst without a cache."""

from __future__ import annotations

import errno
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numba.core.caching import IndexDataCacheFile

from asr import jit

SOURCE = """
from asr.jit import compiled

@compiled
def double(x):
    return 2 * x
"""
Load = Callable[[], Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports a module with a compiled function, as a new process would."""
    path = tmp_path / "package" / "module.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    monkeypatch.setattr(jit._config, "CACHE_DIR", "")

    def module() -> Any:
        spec = importlib.util.spec_from_file_location("module", path)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found.double

    return module


def no_writing(monkeypatch: pytest.MonkeyPatch, private: Path | None) -> None:
    """As in a read-only installation; with a cache of the user's own, or none."""
    monkeypatch.setattr(jit, "_is_writable", lambda folder: False)
    monkeypatch.setattr(jit, "private_folder", lambda: private)


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


def files(folder: Path) -> set[str]:
    return {path.suffix for path in folder.rglob("*") if path.suffix in {".nbi", ".nbc"}}


def test_machine_code_is_kept_beside_the_source(load: Load, tmp_path: Path) -> None:
    assert load()(3) == 6
    assert files(tmp_path / "package" / "__pycache__") == {".nbi", ".nbc"}
    again = load()
    assert again(4) == 8
    assert hits(again) == 1


def test_a_read_only_installation_uses_the_user_s_cache(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_writing(monkeypatch, tmp_path / "private")
    assert load()(3) == 6
    assert files(tmp_path / "private" / "numba") == {".nbi", ".nbc"}
    assert not files(tmp_path / "package")
    again = load()
    assert again(4) == 8
    assert hits(again) == 1
    assert jit._config.CACHE_DIR == ""  # other packages' functions are not concerned


def test_without_any_cache_it_is_compiled_again(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_writing(monkeypatch, None)
    monkeypatch.setenv("HOME", "/proc/no-home")
    assert load()(3) == 6
    assert not files(tmp_path)


def test_a_folder_that_the_user_names_is_used(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit._config, "CACHE_DIR", str(tmp_path / "named"))
    assert load()(3) == 6
    assert files(tmp_path / "named") == {".nbi", ".nbc"}
    assert str(tmp_path / "named") == jit._config.CACHE_DIR


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"no pickle", None], ids=["empty", "text", "cut"])
def test_a_damaged_cache_is_written_anew(
    load: Load, tmp_path: Path, suffix: str, content: bytes | None
) -> None:
    load()(3)
    (damaged,) = (tmp_path / "package" / "__pycache__").glob(f"*{suffix}")
    damaged.write_bytes(damaged.read_bytes()[:-9] if content is None else content)
    assert load()(4) == 8
    again = load()
    assert again(5) == 10
    assert hits(again) == 1


def test_a_full_disk_costs_the_cache_alone(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert load()(3) == 6


def test_a_change_to_what_it_may_call_is_noticed(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()(3)
    monkeypatch.setattr(jit, "_source_stamp", lambda: "another version")
    again = load()
    assert again(4) == 8
    assert hits(again) == 0
