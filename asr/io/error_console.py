"""The console on stderr after its reader has closed it."""

from __future__ import annotations

import os

from rich.console import Console


class ErrorConsole(Console):
    """A console that raises BrokenPipeError at the first print after its reader has closed it, and
    prints nothing afterwards. rich itself redirects stdout, which may carry results, and exits."""

    closed = False
    """Whether the reader has closed the console."""

    def on_broken_pipe(self) -> None:
        self.closed = True
        # Buffered output is written there at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise BrokenPipeError
