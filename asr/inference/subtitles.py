"""Subtitles from the words of a transcript: which words a cue holds, its lines and its times.

Rules, with their sources:

- At most two lines of 42 characters; a cue lasts 5/6 to 7 seconds; two frames at least separate
  cues; a shorter gap than half a second is closed to that (Netflix, "Timed Text Style Guide:
  General Requirements" and "Subtitle Timing Guidelines").
- A cue begins with its first word. It ends with its last one, or up to 1.5 seconds later if it
  could not be read before (BBC, "Subtitle Guidelines", on the pace of speaking), at 20 characters
  a second (Netflix, "English Timed Text Style Guide").
- Cues end in pauses and after sentences, lines after punctuation (both guides). Silence is left
  without a cue.

Where rules conflict, the later of these yields: no word is lost; cues do not overlap; size of the
lines; longest duration; shortest duration; start with the first word; reading speed. A cue of one
word may break the rules of size: the word has a line to itself.

Wide East Asian characters count as two, so that a line holds 21 of them, to be read at 10 a second.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asr.errors import ConfigError
from asr.inference.subtitle_text import (
    LONG_PAUSE,
    LineCounter,
    SubtitleWord,
    break_cost,
    columns,
    ends_sentence,
    lay_out,
    pieces_of,
    text_of,
)
from asr.inference.transcript import Transcript

LINGER = 1500
"""Milliseconds that a cue may stay after its last word in order to be read."""
CLOSED = 500
"""Gaps of fewer milliseconds are closed to the smallest gap."""
LATE = 1500
"""Milliseconds that a cue may wait for another speaker's to be read."""


@dataclass(frozen=True)
class SubtitleConfig:
    """Raises ConfigError for values outside of their range."""

    width: int = 42
    """Characters of a line."""
    lines: int = 2
    shortest: float = 5 / 6
    """Seconds that a cue is shown at least,"""
    longest: float = 7.0
    """and at most."""
    reading_speed: float = 20.0
    """Characters a second that can be read."""
    gap: float = 2 / 24
    """Seconds between two cues: two frames."""
    pause: float = 1.0
    """Seconds without a word that always end a cue."""

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("lines", 1), ("shortest", 0.001), ("gap", 0),
                            ("reading_speed", 0.1), ("pause", 0.001)):  # fmt: skip
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise ConfigError(
                    f"expected {name} of subtitles >= {least}, got {value}: correct it"
                )
        if not self.shortest <= self.longest < math.inf:
            raise ConfigError(
                f"expected the longest subtitle to last at least {self.shortest:.3g} s, as the "
                f"shortest, got {self.longest} s: correct one of them"
            )


@dataclass(frozen=True)
class Cue:
    """A subtitle. Times are whole milliseconds since the beginning of the recording."""

    start: int
    end: int
    lines: tuple[tuple[SubtitleWord, ...], ...]
    channel: int | None = None

    @property
    def pieces(self) -> tuple[SubtitleWord, ...]:
        return tuple(itertools.chain.from_iterable(self.lines))

    def highlights(self) -> Iterator[tuple[int, int, int]]:
        """The times in which each piece is the one being said: start, end, index. They cover the
        cue; a piece whose time has passed when the cue appears is left out."""
        starts = [min(max(piece.start, self.start), self.end) for piece in self.pieces]
        starts[0] = self.start
        for at, (start, end) in enumerate(itertools.pairwise([*starts, self.end])):
            if start < end:
                yield start, end, at


def label_of(channel: int | None) -> str:
    """What precedes the words of a channel.

    >>> label_of(2), label_of(None)
    ('channel 2: ', '')
    """
    return "" if channel is None else f"channel {channel}: "


def subtitles(transcript: Transcript, config: SubtitleConfig | None = None) -> list[Cue]:
    """The cues of a transcript, in the order of their start, by the rules above.

    Each holds the words of one channel. Where two channels speak at once, the earlier cue is cut
    short or the later one waits.
    """
    config = config or SubtitleConfig()
    groups = []
    for channel in dict.fromkeys(segment.channel for segment in transcript.segments):
        pieces = pieces_of(s for s in transcript.segments if s.channel == channel)
        for run in _runs(pieces, round(1000 * config.pause)):
            groups += [_Group(channel, part) for part in _Grouping(config, channel, run).groups()]
    groups.sort(key=lambda group: group.pieces[0].start)
    return list(_timed(groups, config))


@dataclass(frozen=True)
class _Group:
    """The words of a cue."""

    channel: int | None
    pieces: Sequence[SubtitleWord]

    @property
    def start(self) -> int:
        return self.pieces[0].start

    @property
    def columns(self) -> int:
        return columns(text_of(self.pieces))


def _runs(pieces: Sequence[SubtitleWord], pause: int) -> Iterator[Sequence[SubtitleWord]]:
    """The pieces between pauses that always end a cue."""
    first = 0
    for at in range(1, len(pieces) + 1):
        if at == len(pieces) or pieces[at].start - pieces[at - 1].end >= pause:
            yield pieces[first:at]
            first = at


# --- words of each cue ---


class _Grouping:
    """Divides the pieces of a run into cues at the least cost, by dynamic programming.

    A cue costs 1, and more for every rule that it breaks; the weights are in their order.
    """

    def __init__(
        self, config: SubtitleConfig, channel: int | None, run: Sequence[SubtitleWord]
    ) -> None:
        self.config, self.run = config, run
        self.label = columns(label_of(channel))
        self.ends = [0, *itertools.accumulate(p.columns + (not p.joined) for p in run)]
        inner = (self._inner(a, b) for a, b in itertools.pairwise(run))
        self.inner = [0.0, *itertools.accumulate(inner)]  # costs of breaks that are not used

    def groups(self) -> list[Sequence[SubtitleWord]]:
        count = len(self.run)
        best = [0.0] + [math.inf] * count  # for the first pieces
        firsts = [0] * (count + 1)
        for first in range(count):
            lines = LineCounter(self.config.width, self.label)
            for stop in range(first + 1, count + 1):
                lines.add(self.run[stop - 1])
                spoken = self.run[stop - 1].end - self.run[first].start
                fits = lines.lines <= self.config.lines and spoken <= 1000 * self.config.longest
                if not fits and stop > first + 1:
                    break
                cost = best[first] + self._cost(first, stop)
                if cost < best[stop]:
                    best[stop], firsts[stop] = cost, first
        found, stop = [], count
        while stop:
            found.append(self.run[firsts[stop] : stop])
            stop = firsts[stop]
        return found[::-1]

    def _inner(self, before: SubtitleWord, after: SubtitleWord) -> float:
        """Cost of two pieces in one cue: of a pause within it, or of two sentences."""
        pause = max(0, after.start - before.end) / (1000 * self.config.pause)
        return 2 * pause**2 + (0.7 if ends_sentence(before) else 0.0)

    def _cost(self, first: int, stop: int) -> float:
        config, run = self.config, self.run
        width = self.ends[stop] - self.ends[first]
        fill = (width + self.label) / (config.width * config.lines)
        cost = 1 + fill**2 + self.inner[stop - 1] - self.inner[first]
        if stop < len(run):
            cost += 0.8 * break_cost(run[stop - 1], run[stop])
            room = (run[stop].start - run[first].start) / 1000 - config.gap
            needed = min(max(config.shortest, width / config.reading_speed), config.longest)
            cost += 10 * max(0.0, 1 - room / config.shortest) + 3 * max(0.0, 1 - room / needed)
        return cost + (3.0 if stop == first + 1 and self._is_torn(first) else 0.0)

    def _is_torn(self, at: int) -> bool:
        """Whether a piece belongs to a neighbour: no long pause and no end of a sentence lies
        between them."""
        around = itertools.pairwise(self.run[max(0, at - 1) : at + 2])
        return any(
            after.start - before.end < LONG_PAUSE and not ends_sentence(before)
            for before, after in around
        )


# --- times ---


def _timed(groups: Sequence[_Group], config: SubtitleConfig) -> Iterator[Cue]:
    shortest, longest = max(1, round(1000 * config.shortest)), round(1000 * config.longest)
    gap, free = round(1000 * config.gap), 0
    for group, following in itertools.zip_longest(groups, groups[1:]):
        start = max(group.start, free)
        spoken = group.pieces[-1].end
        read = start + math.ceil(1000 * group.columns / config.reading_speed)
        end = max(spoken, start + shortest, min(read, spoken + LINGER))
        if following is not None:
            room = following.start - gap
            if end > room:
                late = room + (LATE if following.channel != group.channel else 0)
                end = max(room, start + shortest, min(read, end, late))
            elif following.start - end < CLOSED:
                end = max(end, min(room, spoken + LINGER))
        end = min(end, start + max(shortest, longest))
        free = end + gap
        lines = lay_out(group.pieces, config.width, columns(label_of(group.channel)))
        yield Cue(start, end, tuple(map(tuple, lines)), group.channel)
