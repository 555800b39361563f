"""Loading modules and models, which takes seconds: faster, and with a message on the terminal."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import TextIO

AFTER = 2.0  # seconds without output
POLL = 0.1


@contextmanager
def loading_fast() -> Iterator[None]:
    """Context manager for the imports of a command, and for loading its model: saves about a sixth
    of the time to the first text.

    Garbage collection is off, since it would search all modules again and again. The first time,
    what was loaded is excluded from later collections too. If numba is needed, now or later, it
    does not get scipy.linalg.
    """
    gc.disable()
    if _WITHOUT_SCIPY not in sys.meta_path:
        sys.meta_path.insert(0, _WITHOUT_SCIPY)
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:
            gc.freeze()
        gc.enable()


class _WithoutScipy(MetaPathFinder):
    """Refuses scipy.linalg to numba, which imports all of it to find out whether it can compile
    np.cov. No function here uses that."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        importer = sys.modules.get("numba.np.arraymath")
        is_loading = getattr(importer.__spec__, "_initializing", False) if importer else False
        if name == "scipy.linalg" and is_loading:
            raise ModuleNotFoundError("numba does not need scipy.linalg here", name=name)


_WITHOUT_SCIPY = _WithoutScipy()


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
