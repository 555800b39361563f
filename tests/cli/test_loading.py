"""What a terminal shows while modules load, and how garbage collection pauses."""

from __future__ import annotations

import gc
import importlib
import io
import sys
import time
from pathlib import Path

import pytest

from asr.cli import loading
from asr.cli.loading import loading_fast, loading_shown

SECONDS = 0.5


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def slow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_module.py").write_text(f"import time; time.sleep({SECONDS})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_module", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(loading, "AFTER", SECONDS / 5)


def test_loading_is_shown_until_modules_are_loaded() -> None:
    terminal = Terminal()
    with loading_shown(terminal):
        importlib.import_module("slow_module")
        assert terminal.getvalue().startswith("loading ...")
        for _ in range(100):  # the watcher needs its turn on a busy machine
            time.sleep(0 if terminal.getvalue().endswith("K") else loading.POLL)
        assert terminal.getvalue() == "loading ...\r\x1b[K"
    assert terminal.getvalue() == "loading ...\r\x1b[K"


def test_it_is_erased_where_loading_ends_in_an_error(tmp_path: Path) -> None:
    terminal = Terminal()
    (tmp_path / "slow_module.py").write_text(f"import time; time.sleep({SECONDS}); 1 / 0")
    with pytest.raises(ZeroDivisionError), loading_shown(terminal):
        importlib.import_module("slow_module")
    assert terminal.getvalue() == "loading ...\r\x1b[K"


def test_quick_loading_and_slow_work_are_not_announced() -> None:
    terminal = Terminal()
    with loading_shown(terminal):
        time.sleep(SECONDS)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("kind", ["a file", "a dumb terminal"])
def test_nothing_else_than_a_terminal_shows_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO() if kind == "a file" else Terminal()
    if kind != "a file":
        monkeypatch.setenv("TERM", "dumb")
    with loading_shown(stream):
        importlib.import_module("slow_module")
    assert stream.getvalue() == ""


def test_garbage_is_collected_again_after_loading() -> None:
    with loading_fast():
        assert not gc.isenabled()
    assert gc.isenabled()
    importlib.import_module("scipy.linalg")  # which is hidden from numba alone
