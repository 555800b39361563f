"""Work in processes of its own, forked from one that has imported everything already.

To import torch and what an optimiser needs of it takes longer than to train as briefly as tests do.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from asr.io import files

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["asr.cli.main", "asr.training.trainer", "torch._dynamo"])


_started: list[BaseProcess] = []


def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
    process = _server.Process(target=function, args=arguments)
    process.start()
    _started.append(process)
    return process


@atexit.register
def _end() -> None:
    """Kill what a failed test has left running, for which Python would wait."""
    for process in _started:
        if process.is_alive():
            process.kill()


def start_asr(arguments: list[str], said: Path) -> BaseProcess:
    """`asr` with these arguments, on one thread; what it writes to stderr goes to `said`."""
    return start(_asr, arguments, said)


def _asr(arguments: list[str], said: Path) -> None:
    import torch

    from asr.cli.main import main

    with said.open("w") as file, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    os.fsync = lambda fd: None  # a killed process loses nothing that it has written
    sys.argv = ["asr", *arguments]
    main()


NOBODY = 2**31 - 1
"""A number that no process has."""


def left_by(process: int, place: str = "") -> str:
    """What the temporary names of a process hold, here or at another place."""
    return f"{process}-{place or files._place()}-{'ab' * 8}"
