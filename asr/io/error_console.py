"""The console of stderr when its reader has gone."""

from __future__ import annotations

import os

from rich.console import Console


class ErrorConsole(Console):
    """A console that raises BrokenPipeError at the first print after its reader has gone, and
    prints nothing from then on. rich's own redirects stdout, where results may go, and exits."""

    closed = False
    """Whether the reader has gone."""

    def on_broken_pipe(self) -> None:
        self.closed = True
        # What is still buffered is written there at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise BrokenPipeError
