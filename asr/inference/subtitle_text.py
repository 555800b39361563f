"""The text of subtitles: pieces with times, their width on the screen, and lines.

Times are whole milliseconds.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import regex

from asr.inference.time_formats import Word
from asr.inference.transcript import Segment
from asr.io.printable import printable
from asr.text.characters import breakable
from asr.text.tokens import WORD_START

_SENTENCE_END = regex.compile(r"[.?!…。？！]\p{P}*$")
_PHRASE_END = regex.compile(r"[,;:，、；：–—]\p{P}*$")

SHORT_WORD = 3  # columns

LONG_PAUSE = 500
"""A pause of so many milliseconds separates phrases."""


@dataclass(frozen=True)
class SubtitleWord:
    """What is not broken: a word; in scripts without spaces a character."""

    text: str
    start: int
    end: int
    joined: bool = False
    """Whether no space precedes it."""

    @property
    def columns(self) -> int:
        return columns(self.text)


def columns(text: str) -> int:
    """Width on a screen: two for wide East Asian characters, none for combining marks.

    >>> columns("né"), columns("ne\u0301"), columns("京都")
    (2, 2, 4)
    """
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def text_of(pieces: Sequence[SubtitleWord]) -> str:
    """Pieces as one text.

    >>> words = [SubtitleWord("a", 0, 1), SubtitleWord("b", 1, 2)]
    >>> text_of([*words, SubtitleWord("c", 2, 3, joined=True)])
    'a bc'
    """
    return "".join(f"{space(p) if at else ''}{p.text}" for at, p in enumerate(pieces))


def space(piece: SubtitleWord) -> str:
    """What separates a piece from the one before it on the same line."""
    return "" if piece.joined else " "


# --- from words ---


def pieces_of(segments: Iterable[Segment]) -> list[SubtitleWord]:
    """The pieces of one speaker, sorted by time. Words that overlap are cut at the next one's
    start; the words of a segment that has only its text are spread over its time."""
    words = [
        word
        for segment in segments
        for word in segment.words or [Word(segment.text, segment.start, segment.end)]
    ]
    found = [p for word in sorted(words, key=lambda word: word.start) for p in _pieces(word)]
    found.sort(key=lambda piece: piece.start)
    for at, after in enumerate(found[1:]):
        found[at] = replace(found[at], end=max(found[at].start, min(found[at].end, after.start)))
    return found


def _pieces(word: Word) -> Iterator[SubtitleWord]:
    times = list(_character_times(word))
    for part in re.finditer(r"\S+", word.text):
        at = part.start()
        for text in breakable(part.group()):
            start, end = times[at][0], times[at + len(text) - 1][1]
            first = max(0, round(1000 * start))
            yield SubtitleWord(
                printable(text), first, max(first, round(1000 * end)), joined=at > part.start()
            )
            at += len(text)


def _character_times(word: Word) -> Iterator[tuple[float, float]]:
    """Seconds of each character of a word, from its tokens if these spell it."""
    spans = [(unit.unit.replace(WORD_START, ""), unit.start, unit.end) for unit in word.units]
    if "".join(text for text, _, _ in spans) != word.text:
        spans = [(word.text, word.start, word.end)]
    for text, start, end in spans:
        step = (end - start) / max(1, len(text))
        yield from ((start + i * step, start + (i + 1) * step) for i in range(len(text)))


# --- breaks ---


def break_cost(before: SubtitleWord, after: SubtitleWord) -> float:
    """How bad a break between two pieces is: 0 at the end of a sentence or in a long pause, 1
    within a phrase, and more after a short word, which is mostly an article, a pronoun or a
    preposition and belongs to the next word."""
    if _SENTENCE_END.search(before.text):
        return 0.0
    pause = min(1.0, max(0, after.start - before.end) / LONG_PAUSE)
    if _PHRASE_END.search(before.text):
        return min(1.0 - pause, 0.3)
    return (1.0 - pause) * (1.4 if before.columns <= SHORT_WORD else 1.0)


def ends_sentence(piece: SubtitleWord) -> bool:
    return bool(_SENTENCE_END.search(piece.text))


def lines_needed(pieces: Sequence[SubtitleWord], width: int, label: int = 0) -> int:
    """Lines of at most `width` columns. A wider piece has a line to itself; `label` columns precede
    the first piece."""
    counter = LineCounter(width, label)
    for piece in pieces:
        counter.add(piece)
    return counter.lines


class LineCounter:
    """The lines that pieces need, counted as pieces are added."""

    def __init__(self, width: int, label: int = 0) -> None:
        self.width, self.lines = width, 0
        self._used = label

    def add(self, piece: SubtitleWord) -> None:
        own = piece.columns
        gap = 0 if piece.joined or not self.lines else 1
        if self.lines and self._used + gap + own <= self.width:
            self._used += gap + own
        else:
            self._used = own + (0 if self.lines else self._used)
            self.lines += 1


def lay_out(
    pieces: Sequence[SubtitleWord], width: int, label: int = 0
) -> list[Sequence[SubtitleWord]]:
    """Pieces as the fewest lines of at most `width` columns: of similar length, broken at
    punctuation and pauses rather than within a phrase."""
    count = lines_needed(pieces, width, label)
    if count < 2:
        return [pieces] if pieces else []
    ends = [0, *itertools.accumulate(p.columns + (not p.joined) for p in pieces)]

    def cost(first: int, stop: int) -> float:
        """Of a line, with the break after it."""
        used = ends[stop] - ends[first] - (not pieces[first].joined) + (0 if first else label)
        if used > width and stop - first > 1:
            return float("inf")
        broken = 0.3 * break_cost(pieces[stop - 1], pieces[stop]) if stop < len(pieces) else 0.0
        lonely = 0.2 if stop - first == 1 else 0.0
        return (used / width) ** 2 + broken + lonely

    # The best cost and beginnings of lines for the first pieces, by the number of lines.
    best: list[tuple[float, tuple[int, ...]]]
    best = [(0.0, ()), *[(float("inf"), ())] * len(pieces)]
    for _ in range(count):
        best = [
            min(
                ((best[first][0] + cost(first, stop), (*best[first][1], first))
                 for first in range(stop)),
                default=(float("inf"), ()),
            )
            for stop in range(len(pieces) + 1)
        ]  # fmt: skip
    firsts = best[-1][1]
    return [pieces[a:b] for a, b in itertools.pairwise([*firsts, len(pieces)])]
