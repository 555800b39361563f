"""How a command of `asr` ended, for tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Its error lines; that they are lines, and not a traceback, is checked here."""
        assert "Traceback" not in self.err
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    def error(self) -> str:
        """The one line of a command that could do nothing."""
        assert self.status == 1
        assert self.out == ""
        (line,) = self.errors
        assert self.err.strip().splitlines()[-1] == line
        return line


Command = Callable[..., Ended]
