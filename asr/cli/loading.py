"""A message on the terminal while modules load, which takes many seconds on a busy machine."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

AFTER = 2.0  # seconds without output
POLL = 0.1


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
