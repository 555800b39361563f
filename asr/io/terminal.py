"""Lines and progress bars on a terminal, with control characters escaped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from asr.io.printable import printable, printable_lines

errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def tell(message: object) -> None:
    """Print one line on stderr, without anything that a terminal would obey."""
    errors.print(printable(str(message)))


def show(text: str, end: str = "\n") -> None:
    """Print lines on stdout at once, without anything that a terminal would obey."""
    print(printable_lines(text), end=end, flush=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with the time left on stderr, as a function of (done, total)."""
    from rich.progress import Progress

    # Where both are the terminal, rich prints above the bar what goes to stdout; a file or a pipe
    # must get it itself.
    terminal = sys.stdout.isatty()
    # Without a terminal, rich would leave a blank line in the place of the bar.
    hidden = not errors.is_terminal
    with Progress(console=errors, transient=True, redirect_stdout=terminal, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
