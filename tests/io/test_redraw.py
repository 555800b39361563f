"""Redrawn text leaves no remnants, whatever its length and the size of the terminal."""

from __future__ import annotations

import io
import os
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from asr.io.redraw import Redrawn


class Screen:
    """A terminal that knows line feeds, carriage returns, automatic folding, and the sequences that
    `Redrawn` writes."""

    def __init__(self, columns: int, height: int) -> None:
        self.columns, self.height = columns, height
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[\d;]*[A-Za-z]|.", text, re.DOTALL):
            if part.startswith("\x1b"):
                self._command(int(re.sub(r"\D", "", part) or 1), part[-1])
            elif part == "\n":
                self._down()
            elif part == "\r":
                self.column = 0
            else:
                width = cell_len(part)
                if self.column + width > self.columns:
                    self._down()
                row = self.rows[self.row]
                row.extend(" " * (self.column - len(row)))
                row[self.column : self.column + width] = [part, *[""] * (width - 1)]
                self.column += width

    def _command(self, number: int, letter: str) -> None:
        if letter == "A":
            assert number <= self.row, "above the first row"
            assert number < self.height, "above the screen"
            self.row -= number
        elif letter == "J":
            assert self.column == 0
            self.rows = [*self.rows[: self.row], []]
        else:
            assert letter == "m", letter

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.rows):
            self.rows.append([])

    @property
    def lines(self) -> list[str]:
        return ["".join(row) for row in self.rows]


class Stream(io.StringIO):
    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.screen = screen

    def write(self, text: str) -> int:
        self.screen.write(text)
        return len(text)


def opened(columns: int, height: int) -> tuple[Screen, Redrawn]:
    screen = Screen(columns, height)
    size = os.terminal_size((columns, height))
    return screen, Redrawn(Stream(screen), lambda: size)


WORDS = st.text(st.sampled_from("ab 語\x1b\n"), max_size=60)


@settings(max_examples=100)
@given(st.integers(4, 30), st.integers(2, 6), st.lists(st.tuples(WORDS, WORDS), max_size=5))
def test_only_the_last_text_is_on_the_screen(
    columns: int, height: int, texts: list[tuple[str, str]]
) -> None:
    screen, redrawn = opened(columns, height)
    screen.write("old\n")
    kept = screen.lines[:-1]
    for text, faint in texts:
        redrawn.draw(text, faint)
        assert screen.lines[: len(kept)] == kept
        fresh, again = opened(columns, height)
        again.draw(text, faint)
        assert screen.lines[len(kept) :] == fresh.lines
        assert len(fresh.lines) <= max(1, height - 1)
        whole = (text + faint).replace("\x1b", "\\x1b").replace("\n", "\\n")
        shown = "".join(fresh.lines).replace(" ", "")
        assert whole.replace(" ", "").endswith(shown)
        if len(fresh.lines) < height - 1:
            assert whole.replace(" ", "") == shown
    redrawn.clear()
    assert screen.lines == [*kept, ""]
    redrawn.clear()
    assert screen.lines == [*kept, ""]


def test_words_stay_whole_and_the_rest_is_faint() -> None:
    screen, redrawn = opened(12, 10)
    redrawn.draw("one two three", " four five")
    assert screen.lines == ["one two", "three four", "five"]
    stream = io.StringIO()
    Redrawn(stream, lambda: os.terminal_size((80, 24))).draw("one", " two")
    assert stream.getvalue() == "\r\x1b[Jone\x1b[2m two\x1b[0m"


def test_a_terminal_that_became_narrower_is_cleared() -> None:
    """Most terminals fold the rows on the screen again."""
    sizes = [os.terminal_size((20, 10))]
    screen = Screen(20, 10)
    redrawn = Redrawn(Stream(screen), lambda: sizes[-1])
    redrawn.draw("one two three four five six seven")
    sizes.append(os.terminal_size((10, 10)))
    folded = Screen(10, 10)
    folded.write("\n".join(screen.lines))
    redrawn._stream.screen = folded  # type: ignore[attr-defined]
    redrawn.draw("end")
    assert folded.lines == ["end"]


def test_a_terminal_without_a_size() -> None:
    def unknown() -> os.terminal_size:
        raise OSError

    for size in (unknown, lambda: os.terminal_size((0, 0))):
        screen = Screen(80, 24)
        Redrawn(Stream(screen), size).draw("word " * 30)
        assert len(screen.lines) == 2
