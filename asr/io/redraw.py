"""Text at the bottom of a terminal that is drawn again in place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from asr.io.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

_UP = "\x1b[{}A"  # so many rows
_ERASE = "\r\x1b[J"  # from the beginning of the row to the end of the screen


class Redrawn:
    """Text that `draw` replaces and `clear` removes. Everything printed after `clear` stays.

    Rows that a narrower terminal has folded since are counted with its present width.
    """

    def __init__(self, stream: TextIO, size: Callable[[], os.terminal_size] | None = None) -> None:
        """`size` gives columns and rows; by default those of the terminal."""
        self._stream = stream
        self._size = size or (lambda: os.get_terminal_size(stream.fileno()))
        self._widths: list[int] = []  # of the rows on the screen, in cells

    def draw(self, text: str, faint: str = "") -> None:
        """Show a text and its rest, which is displayed faintly. A text that is higher than the
        screen loses its first rows."""
        columns, height = self._columns_and_rows()
        console = _console(max(2, columns - 1))
        from rich.text import Text

        whole = Text(printable(text)).append(printable(faint), "dim")
        rows = whole.wrap(console, console.width, overflow="fold")[-max(1, height - 1) :]
        with console.capture() as captured:
            for number, row in enumerate(rows):
                row.rstrip()
                console.print(row, end="\n" if number + 1 < len(rows) else "", soft_wrap=True)
        self._write(self._erasing() + captured.get())
        self._widths = [row.cell_len for row in rows]

    def clear(self) -> None:
        if self._widths:
            self._write(self._erasing())
            self._widths = []

    def _erasing(self) -> str:
        columns, _ = self._columns_and_rows()
        above = sum(max(1, -(-width // columns)) for width in self._widths) - 1
        return (_UP.format(above) if above > 0 else "") + _ERASE

    def _columns_and_rows(self) -> tuple[int, int]:
        try:
            size = self._size()
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24  # 0 if the terminal does not know

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _console(width: int) -> Console:
    from rich.console import Console

    return Console(width=width, force_terminal=True, color_system="standard", highlight=False)
