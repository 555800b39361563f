"""Loading modules and models, which takes seconds: faster, and with a message on the terminal."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

AFTER = 2.0  # seconds without output
POLL = 0.1


@contextmanager
def loading_fast() -> Iterator[None]:
    """Context manager for the imports of a command, and for loading its model: saves about a sixth
    of the time to the first text.

    Garbage collection is off, since it would search all modules again and again. The first time,
    what was loaded is excluded from later collections too. numba does not get scipy.linalg: it
    imports all of it to find out whether it can compile np.cov, which no function here uses.
    """
    gc.disable()
    try:
        _load_numba()
        yield
    finally:
        if gc.get_freeze_count() == 0:
            gc.freeze()
        gc.enable()


def _load_numba() -> None:
    hidden = "scipy.linalg"
    if hidden in sys.modules:
        return
    sys.modules[hidden] = None  # type: ignore[assignment]  # an import of it then fails
    try:
        import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules[hidden]


@contextmanager
def loading_shown(stream: TextIO) -> Iterator[None]:
    """Context manager that writes "loading ..." to a terminal if imports of this thread take over
    two seconds, and erases it afterwards. Commands import what they need when they run."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(threading.get_ident(), stream, ended))
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(thread: int, stream: TextIO, ended: threading.Event) -> None:
    if ended.wait(AFTER) or not _is_importing(thread):
        return
    stream.write("loading ...")
    stream.flush()
    while not ended.wait(POLL) and _is_importing(thread):
        pass
    stream.write("\r\x1b[K")
    stream.flush()


def _is_importing(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
