"""Words and tokens with their times, as JSON, ctm and TextGrid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from asr.io.printable import printable, printable_name


@dataclass(frozen=True)
class TokenTime:
    """A token, as written, and its time in seconds."""

    unit: str
    start: float
    end: float


@dataclass(frozen=True)
class Word:
    """A word, its time in seconds, and further facts about it.

    This type is used from recognition and alignment to every format, report and page. `to_json`
    writes each of its fields, and pydantic reads them back.
    """

    text: Annotated[str, Field(validation_alias="word")]
    start: float
    end: float
    confidence: float | None = None
    """The probability that it is correct; None in a known text, and where it was not computed."""
    units: tuple[TokenTime, ...] = ()
    """The tokens that spell it, if they are known."""


def shifted(word: Word, seconds: float) -> Word:
    """A word and its tokens, later by some seconds; times have three decimals."""
    if not seconds:
        return word

    def later(time: float) -> float:
        return round(time + seconds, 3)

    units = tuple(TokenTime(u.unit, later(u.start), later(u.end)) for u in word.units)
    return replace(word, start=later(word.start), end=later(word.end), units=units)


def to_json(words: Sequence[Word], units: bool = True) -> list[dict[str, Any]]:
    """Plain JSON values, with or without the tokens; times in seconds.

    >>> to_json([Word("yes", 0.5, 0.75, 0.91234)], units=False)
    [{'word': 'yes', 'start': 0.5, 'end': 0.75, 'confidence': 0.9123}]
    """
    rows = []
    for word in words:
        row = {"word": word.text} | asdict(word)
        del row["text"]
        if word.confidence is None:
            del row["confidence"]
        else:
            row["confidence"] = round(word.confidence, 4)
        if not units:
            del row["units"]
        rows.append(row)
    return rows


def to_ctm(name: str, words: Sequence[Word], start: float = 0.0, channel: int = 1) -> str:
    """Lines of NIST's time-marked conversation format: file, channel, start, duration, word and, if
    there is one, confidence. Times count from the start of the recording, `start` seconds before
    that of the utterance.

    >>> print(to_ctm("talk", [Word("yes", 0.5, 0.75, 0.9)], 60.0), end="")
    talk 1 60.500 0.250 yes 0.9000
    """
    lines = []
    for word in words:
        sure = "" if word.confidence is None else f" {word.confidence:.4f}"
        times = f"{start + word.start:.3f} {word.end - word.start:.3f}"
        lines.append(f"{name} {channel} {times} {word.text}{sure}\n")
    return "".join(lines)


def ctm_names(paths: Iterable[Path]) -> dict[Path, str]:
    """The name of each recording in ctm: its file name without the suffix; if others share it, its
    path without the suffix, or else with it. Spaces, which would split it, become underscores, and
    unprintable characters escapes, such as \\x1b.

    >>> list(ctm_names(map(Path, ["a/x.wav", "b/x.wav", "b/x.mp3", "my talk.wav"])).values())
    ['a/x', 'b/x.wav', 'b/x.mp3', 'my_talk']
    """
    forms = {
        path: [
            *(_one_field(form) for form in (path.stem, str(path.with_suffix("")), str(path))),
            "".join(f"\\u{ord(c):04x}" if c.isspace() else c for c in printable_name(path)),
        ]
        for path in paths
    }
    taken = Counter(form for row in forms.values() for form in set(row))
    return {
        path: next((form for form in row if taken[form] == 1), row[-1])
        for path, row in forms.items()
    }


def _one_field(name: str) -> str:
    field = "_".join(printable_name(name).split())
    return f"_{field}" if field.startswith(";;") else field  # would begin a comment


def to_textgrid(speakers: Mapping[str, Sequence[Word]], seconds: float) -> str:
    """A TextGrid file for Praat, with the tiers "words" and "units" of each speaker, whose name
    precedes theirs. Words that overlap others of their tier are shortened.
    """
    tiers = {}
    for name, words in speakers.items():
        units = [unit for word in words for unit in word.units]
        tiers[f"{name}words"] = _apart((word.start, word.end, word.text) for word in words)
        tiers[f"{name}units"] = _apart((unit.start, unit.end, unit.unit) for unit in units)
    # Rounded like the times, so that the last interval is not empty.
    seconds = max([round(seconds, 3), *(rows[-1][1] for rows in tiers.values() if rows)])
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {seconds:.3f}", "tiers? <exists>", f"size = {len(tiers)}"]
    lines.append("item []:")
    for number, (name, rows) in enumerate(tiers.items(), start=1):
        intervals = _filled(rows, seconds)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f'        name = "{name}"', "        xmin = 0", f"        xmax = {seconds:.3f}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for place, (start, end, label) in enumerate(intervals, start=1):
            quoted = printable(label).replace('"', '""')
            lines += [f"        intervals [{place}]:", f"            xmin = {start:.3f}"]
            lines += [f"            xmax = {end:.3f}", f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


_Interval = tuple[float, float, str]


def _apart(rows: Iterable[_Interval]) -> list[_Interval]:
    """Intervals that do not overlap, of a millisecond at least."""
    apart: list[_Interval] = []
    reached = 0.0
    for start, end, label in rows:
        start = max(round(start, 3), reached)
        reached = max(round(end, 3), round(start + 0.001, 3))
        apart.append((start, reached, label))
    return apart


def _filled(rows: Sequence[_Interval], seconds: float) -> list[_Interval]:
    """Intervals without gaps from 0 to the end, as Praat requires."""
    filled: list[_Interval] = []
    reached = 0.0
    for start, end, label in rows:
        if start > reached:
            filled.append((reached, start, ""))
        filled.append((start, end, label))
        reached = end
    if reached < seconds or not filled:
        filled.append((reached, seconds, ""))
    return filled


@dataclass(frozen=True)
class Posteriors:
    """The network's output over time, with the precision of a picture.

    `entries` are (token, frame, percent), all integers, by frame: the most probable tokens but the
    blank, whose share is the remainder. `step` is seconds per frame.
    """

    frames: int
    step: float
    entries: tuple[tuple[int, int, int], ...]
