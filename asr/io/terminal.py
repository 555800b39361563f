"""Lines and progress bars on a terminal, with control characters escaped."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asr.io.printable import printable, printable_lines

if TYPE_CHECKING:
    from asr.io.error_console import ErrorConsole

IMPATIENT_S = 1.0
"""Seconds after the first signal from which Ctrl-C counts as a second request: shells, timeout and
program runners forward a signal that their child has already received, so that one Ctrl-C arrives
twice."""

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Print only errors to stderr: no notes, warnings or progress (`asr --quiet`)."""
    global _quiet
    _quiet = quiet


def errors() -> ErrorConsole:
    """The console on stderr, for notes and progress; silent with `asr --quiet`."""
    console = _console()
    console.quiet = _quiet
    return console


@functools.cache
def _console() -> ErrorConsole:
    from asr.io.error_console import ErrorConsole  # rich is imported when a line is printed

    return ErrorConsole(stderr=True, highlight=False, markup=False, soft_wrap=True)


def tell(message: object) -> None:
    """Print one line on stderr, with control characters escaped."""
    line = printable(str(message))
    console = errors()
    console.quiet = _quiet and not line.startswith("error: ")
    console.print(line)
    console.quiet = _quiet


def write_utf8() -> None:
    """Make stdout UTF-8, which JSON must be, whatever the locale; on a terminal with another
    encoding, escape what it lacks."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and (out.encoding or "").lower() not in ("utf-8", "utf8"):
        if out.isatty():
            out.reconfigure(errors="backslashreplace")
        else:
            out.reconfigure(encoding="utf-8")


def show(text: str, end: str = "\n") -> None:
    """Print lines on stdout and flush, with control characters escaped."""
    print(printable_lines(text), end=end, flush=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, float], None]]:
    """A progress bar with the time left on stderr, as a function of (done, total)."""
    if _quiet or not sys.stderr.isatty():  # without a terminal, rich would leave an empty line
        yield lambda done, total: None
        return
    from rich.progress import Progress

    # If stdout and stderr are the same terminal, rich prints stdout above the bar; a file or a pipe
    # must get stdout directly.
    terminal = sys.stdout.isatty()
    with Progress(console=errors(), transient=True, redirect_stdout=terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
