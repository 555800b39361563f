"""NIST's files of words and texts with times: ctm, recognised words, and stm, segments.

    ctm: file channel start duration word [confidence]
    stm: file channel speaker start end [<label>] text

Times are in seconds. Lines that begin with ;; are comments.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np

from asr.dataset.lines import (
    check_new,
    is_whole,
    numbered_lines,
    shown,
    split_fields,
    write_lines,
)
from asr.errors import TranscriptError
from asr.text.characters import canonical

_IGNORED = "ignore_time_segment_in_scoring"
_GAP = "inter_segment_gap"
_ALTERNATION = re.compile(r"\{.*/.*\}")
_ALTERNATION_MARKS = frozenset({"<alt_begin>", "<alt>", "<alt_end>"})
_LABEL = re.compile(r"<\S*>(?=\s|$)")
_FIRST_CHANNELS = frozenset({"1", "A"})


@dataclass(frozen=True)
class CtmWord:
    """A recognised word, with its times and confidence."""

    file: str
    channel: str
    start: float
    duration: float
    word: str
    confidence: float | None = None

    @property
    def source(self) -> str:
        """The recording of the word: the file, with its channel unless that is 1 or A."""
        return _source(self.file, self.channel)

    @property
    def middle(self) -> float:
        """The middle of the word, which determines its segment."""
        return self.start + self.duration / 2


@dataclass(frozen=True)
class StmSegment:
    """A segment of a recording, and the text of one speaker in it."""

    file: str
    channel: str
    speaker: str
    start: float
    end: float
    text: str

    @property
    def source(self) -> str:
        """The recording of the segment: the file, with its channel unless that is 1 or A."""
        return _source(self.file, self.channel)

    @property
    def id(self) -> str:
        """The utterance id of the segment; without the speaker, which a hypothesis may not contain.

        >>> StmSegment("talk", "A", "ann", 0.5, 12.25, "yes").id
        'talk-0.500-12.250'
        """
        return f"{self.source}-{self.start:.3f}-{self.end:.3f}"

    @property
    def ignored(self) -> bool:
        """Whether the segment is excluded from scoring."""
        return self.text.lower() == _IGNORED

    @property
    def scored(self) -> bool:
        """Whether the segment is an utterance: neither ignored nor a gap between utterances."""
        gap = (self.speaker.lower() == _GAP and not self.text) or self.text.lower() == _GAP
        return not (self.ignored or gap)


def _source(file: str, channel: str) -> str:
    return file if channel in _FIRST_CHANNELS else f"{file}-{channel}"


def read_ctm(path: str | Path) -> list[CtmWord]:
    """The words of a ctm file, in order.

    Raises TranscriptError: the first wrong line; alternatives (<ALT_BEGIN>); two files or channels
    with one id; a file that is missing, empty or not UTF-8.
    """
    words: list[CtmWord] = []
    origins: dict[str, tuple[int, CtmWord]] = {}
    for number, line in numbered_lines(path, comments=True):
        try:
            word = _ctm_word(line)
        except ValueError as error:
            raise TranscriptError(f"{path}:{number}: {error}") from None
        _check_origin(origins, word, number, path)
        words.append(word)
    if not words:
        raise TranscriptError(
            f"{path}:1: expected at least one word, got comments alone; write it again"
        )
    return words


def _check_origin(
    origins: dict[str, tuple[int, CtmWord]], word: CtmWord, line: int, path: str | Path
) -> None:
    """Raise TranscriptError if two files or channels have the same id."""
    first, other = origins.setdefault(word.source, (line, word))
    if (word.file, word.channel) != (other.file, other.channel):
        raise TranscriptError(
            f"{path}:{line}: expected one file and channel for the id {shown(word.source)}, got"
            f" another than in line {first}; rename one of them"
        )


def _ctm_word(line: str) -> CtmWord:
    """The word of a line. Raises ValueError saying what is wrong with it."""
    fields = split_fields(line)
    if any(field.lower() in _ALTERNATION_MARKS for field in fields):
        raise ValueError(f"expected one word, got alternatives in {shown(line)}; choose one")
    if not 5 <= len(fields) <= 6:
        raise ValueError(
            "expected file, channel, start, duration, word and perhaps a confidence, got"
            f" {shown(line)}; correct the line"
        )
    start, duration = _number(fields[2], "a start"), _number(fields[3], "a duration")
    sure = None
    if len(fields) == 6 and fields[5] != "NA":
        sure = _number(fields[5], "a confidence")
    return CtmWord(fields[0], fields[1], start, duration, fields[4], sure)


def read_stm(path: str | Path) -> list[StmSegment]:
    """The segments of an stm file, in order, including those that are not `scored`.

    Labels (<o,f0,male>) are ignored, so a text whose first word is in angle brackets needs one.

    Raises TranscriptError: the first wrong line; alternatives ({ a / b }); two scored segments of
    one file and channel with the same times; a file that is missing, empty or not UTF-8.
    """
    segments: list[StmSegment] = []
    seen: dict[str, int] = {}
    for number, line in numbered_lines(path, comments=True):
        try:
            segment = _segment(line)
        except ValueError as error:
            raise TranscriptError(f"{path}:{number}: {error}") from None
        if segment.scored:
            check_new(seen, segment.id, number, path)
        segments.append(segment)
    if not segments:
        raise TranscriptError(
            f"{path}:1: expected at least one segment, got comments alone; write it again"
        )
    return segments


def _segment(line: str) -> StmSegment:
    """The segment of a line. Raises ValueError saying what is wrong with it."""
    fields = split_fields(line)
    if len(fields) < 5:
        raise ValueError(
            "expected file, channel, speaker, start, end, perhaps a <label>, and the text, got"
            f" {shown(line)}; correct the line"
        )
    start, end = _number(fields[3], "a start"), _number(fields[4], "an end")
    if end < start:
        raise ValueError(f"expected an end after the start {start:g}, got {end:g}; correct it")
    text = " ".join(" ".join(fields[5:]).split())
    text = _LABEL.sub("", text, count=1).strip() if _LABEL.match(text) else text
    check_alternation(text)
    return StmSegment(fields[0], fields[1], fields[2], start, end, text)


def check_alternation(text: str) -> None:
    """Raise ValueError if a text contains alternatives, { a / b / @ }."""
    found = _ALTERNATION.search(text)
    if found:
        raise ValueError(
            f"expected one text, got the alternatives {shown(found.group())}; choose one of them"
        )


def _number(field: str, name: str) -> float:
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0) or "_" in field:
        raise ValueError(f"expected {name} of 0 or more, got {shown(field)}; correct it")
    return value


def ctm_texts(words: Iterable[CtmWord]) -> dict[str, str]:
    """The text of each file and channel: its words by their start."""
    spoken: dict[str, list[CtmWord]] = defaultdict(list)
    for word in words:
        spoken[word.source].append(word)
    return {source: _joined(found) for source, found in spoken.items()}


def _joined(words: Iterable[CtmWord]) -> str:
    return " ".join(word.word for word in sorted(words, key=lambda word: word.start))


def stm_texts(segments: Iterable[StmSegment]) -> dict[str, str]:
    """The texts of the scored segments, by their ids."""
    return {segment.id: segment.text for segment in segments if segment.scored}


def cut_texts(words: Sequence[CtmWord], segments: Sequence[StmSegment]) -> dict[str, str]:
    """The recognised words by the ids of their scored segments.

    A word lies where its middle is, as in NIST's sclite: in a scored segment, else in an ignored
    one, where it is dropped. A word outside all segments goes to the nearest scored segment of its
    file and channel, where it counts as inserted. Segments without words get an empty text if their
    file has words elsewhere. Words of a file without scored segments are returned under the file's
    own name, which matches no reference.

    Raises TranscriptError if no word lies in a segment, that is, names or times differ.

    >>> yes = StmSegment("a", "1", "ann", 0, 1, "yes")
    >>> no = StmSegment("a", "1", "bob", 2, 3, "no")
    >>> cut_texts([CtmWord("a", "1", 0.9, 0.4, "yet"), CtmWord("a", "1", 2, 0.5, "no")], [yes, no])
    {'a-0.000-1.000': 'yet', 'a-2.000-3.000': 'no'}
    """
    by_source: dict[str, list[StmSegment]] = defaultdict(list)
    for segment in segments:
        by_source[canonical(segment.source)].append(segment)
    spoken: dict[str, list[CtmWord]] = defaultdict(list)
    for word in words:
        spoken[canonical(word.source)].append(word)
    texts: dict[str, str] = {}
    inside = 0
    for source, found in spoken.items():
        cut, count = _cut(found, by_source.get(source, []))
        inside += count
        texts |= cut
    if not inside:
        raise TranscriptError(
            f"expected words within the segments of {_some(by_source)}, got {len(words)} words of"
            f" {_some(spoken)}, none of them within; give both the same names and times"
        )
    return texts


def _cut(words: Sequence[CtmWord], segments: Sequence[StmSegment]) -> tuple[dict[str, str], int]:
    """The texts of one file and channel, and how many of its words lie in a segment."""
    scored = [segment for segment in segments if segment.scored]
    bounds = _bounds(scored)
    ignored = _bounds([segment for segment in segments if segment.ignored])
    placed: dict[str, list[CtmWord]] = {segment.id: [] for segment in scored}
    inside = 0
    for word in words:
        away = _distances(word.middle, bounds)
        within = bool(np.any(away == 0))
        if not within and np.any(_distances(word.middle, ignored) == 0):
            inside += 1
            continue
        inside += within
        nearest = scored[int(away.argmin())].id if scored else word.source
        placed.setdefault(nearest, []).append(word)
    return {id_: _joined(found) for id_, found in placed.items()}, inside


def _bounds(segments: Sequence[StmSegment]) -> np.ndarray:
    """Start and end of each segment. Shape: [segments, 2]."""
    return np.array([(segment.start, segment.end) for segment in segments]).reshape(-1, 2)


def _distances(time: float, bounds: np.ndarray) -> np.ndarray:
    """Seconds from a time to each segment, 0 within it. Shape: [segments, 2] -> [segments]."""
    return np.maximum(np.maximum(bounds[:, 0] - time, time - bounds[:, 1]), 0.0)


def _some(names: Mapping[str, object]) -> str:
    return ", ".join(shown(name) for name in list(names)[:3]) + (", ..." if len(names) > 3 else "")


# --- writing ---


def write_ctm(path: str | Path, words: Iterable[CtmWord]) -> None:
    """Write words as a ctm file, atomically.

    Raises TranscriptError: words that `read_ctm` would refuse or misread, no words, or an
    unwritable path.
    """
    lines: list[str] = []
    origins: dict[str, tuple[int, CtmWord]] = {}
    for number, word in enumerate(words, start=1):
        sure = "" if word.confidence is None else f" {_exact(word.confidence)}"
        times = f"{_exact(word.start)} {_exact(word.duration)}"
        line = f"{word.file} {word.channel} {times} {word.word}{sure}"
        _check_origin(origins, word, number, path)
        try:
            if not is_whole(line) or line.startswith(";;") or _ctm_word(line) != word:
                raise ValueError(
                    f"expected names and a word without spaces, got {shown(line)}; correct it"
                )
        except ValueError as error:
            raise TranscriptError(f"{path}:{number}: {error}") from None
        lines.append(line)
    write_lines(path, lines)


def write_stm(path: str | Path, segments: Iterable[StmSegment]) -> None:
    """Write segments as an stm file, atomically; spaces in texts are collapsed.

    Raises TranscriptError: segments that `read_stm` would refuse or misread, a text of several
    lines, no segments, or an unwritable path.
    """
    lines: list[str] = []
    seen: dict[str, int] = {}
    for number, segment in enumerate(segments, start=1):
        try:
            text = one_line(segment.text)
            line = f"{segment.file} {segment.channel} {segment.speaker} {_exact(segment.start)} "
            # Without a label, a first word in angle brackets would be read as one.
            line += _exact(segment.end) + (" <NA>" if _LABEL.match(text) else "") + f" {text}"
            line = line.rstrip()
            if line.startswith(";;") or _segment(line) != replace(segment, text=text):
                raise ValueError(f"expected names without spaces, got {shown(line)}; correct it")
            if not is_whole(line):
                raise ValueError(f"expected whole characters, got {shown(line)}; correct it")
        except ValueError as error:
            raise TranscriptError(f"{path}:{number}: {error}") from None
        if segment.scored:
            check_new(seen, segment.id, number, path)
        lines.append(line)
    write_lines(path, lines)


def one_line(text: str) -> str:
    """The text with single spaces between words. Raises ValueError for a text of several lines."""
    if "\n" in text or "\r" in text:
        raise ValueError(f"expected a text of one line, got {shown(text)}; join its lines")
    return " ".join(text.split())


def _exact(seconds: float) -> str:
    """The number with three decimals, or with more if it has more."""
    short = f"{seconds:.3f}"
    return short if float(short) == seconds else format(Decimal(repr(float(seconds))), "f")
