"""Shared fixtures: where real speech lies, and one thread per test so that results repeat.

Nothing waits for the disk: no test outlives a failure of power. What must be synced, and when,
`tests/io/test_files.py` checks.

pytest-xdist's first process loads this file before it starts the others. It runs no test, and torch
and what needs torch would take it three seconds, so they are imported where they are used.
"""

from __future__ import annotations

import http.server
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.commands import Command, Ended

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    os.fsync = lambda fd: None
    hypothesis.settings.register_profile("asr", deadline=None)  # a busy machine is no failure
    hypothesis.settings.load_profile("asr")
    if not config.getoption("numprocesses", None):
        import torch

        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("real speech: ../shared/data is missing")
    return SHARED


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """Gives the address at which a file or folder below `tmp_path` is served over http."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        home = f"http://127.0.0.1:{listening.server_port}/"
        yield lambda path: home + path.relative_to(tmp_path).as_posix()
        listening.shutdown()
        thread.join()


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports come without their picture, which takes longer than the rest of a small report."""
    monkeypatch.setattr("asr.evaluation.report_folder.write_picture", lambda *_: None)


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """`asr tune` tries 6 pairs of weight and bonus and 2 beams in place of 110 and 5."""
    monkeypatch.setattr("asr.evaluation.tune_decoder.WEIGHTS", (0.0, 0.3, 2.0))
    monkeypatch.setattr("asr.evaluation.tune_decoder.BONUSES", (-50.0, 0.0))
    monkeypatch.setattr("asr.evaluation.tune_decoder.SIZES", (1, 4))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Runs `asr` with arguments, or a function as the recipes run theirs."""
    from asr.cli.console import run_command
    from asr.cli.main import main
    from tests.tones import one_thread

    def command(*arguments: object, function: Callable[[], object] | None = None) -> Ended:
        monkeypatch.setattr(sys, "argv", ["asr", *map(str, arguments)])
        capsys.readouterr()
        status: Any = 0
        try:
            main() if function is None else run_command(function)
        except SystemExit as stop:
            status = stop.code or 0
        said = capsys.readouterr()
        assert isinstance(status, int)
        return Ended(status, said.out, said.err)

    with one_thread():
        yield command


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    """Manifests of a corpus of tones, and a model trained on it."""
    from tests.tones import trained_tones

    return trained_tones(tmp_path_factory.getbasetemp())
