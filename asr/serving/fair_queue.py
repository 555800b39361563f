"""The queue of recognition: fair between requests, and in batches of similar length.

Fairness is that of weighted fair queueing (Demers, Keshav and Shenker 1989, "Analysis and
simulation of a fair queueing algorithm"): each piece of audio gets the virtual time at which it
would end if all requests were served at once, a second each in turn. A short recording so passes
the later pieces of a long one, and a long one is never passed for ever.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_PADDING = 0.25
"""The share of a batch that padding may have."""


@dataclass(eq=False)
class Flow:
    """The pieces of one request."""

    end: float = 0.0
    """Virtual time at which its last piece ends."""
    is_cancelled: bool = False
    """Its pieces are dropped."""


@dataclass(frozen=True, order=True)
class _Entry(Generic[T]):
    end: float
    number: int
    seconds: float = field(compare=False)
    key: Hashable = field(compare=False)
    flow: Flow = field(compare=False)
    item: T = field(compare=False)


class FairQueue(Generic[T]):
    """Pieces of audio that wait. Not safe for threads: the owner holds a lock."""

    def __init__(self, most_seconds: float, most_pieces: int) -> None:
        """The most seconds of a batch, with padding, and the most pieces."""
        self._most_seconds, self._most_pieces = most_seconds, most_pieces
        self._entries: list[_Entry[T]] = []  # by virtual end
        self._numbers = itertools.count()
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def seconds(self) -> float:
        """Of all pieces that wait."""
        return sum(entry.seconds for entry in self._entries if not entry.flow.is_cancelled)

    def put(self, flow: Flow, key: Hashable, seconds: float, item: T) -> None:
        """Add a piece; only pieces with the same key come in one batch."""
        flow.end = max(self._now, flow.end) + seconds
        entry = _Entry(flow.end, next(self._numbers), seconds, key, flow, item)
        bisect.insort(self._entries, entry)

    def take(self) -> list[T]:
        """The next batch: the piece that is due first, and others of similar length. Empty if
        nothing waits."""
        self._entries = [entry for entry in self._entries if not entry.flow.is_cancelled]
        if not self._entries:
            return []
        first = self._entries[0]
        self._now = max(self._now, first.end)
        batch, total, longest = [first], first.seconds, first.seconds
        for entry in self._entries[1:]:
            if len(batch) == self._most_pieces:
                break
            if entry.key != first.key:
                continue
            widest = max(longest, entry.seconds)
            padded = widest * (len(batch) + 1)
            if padded > self._most_seconds or total + entry.seconds < (1 - MOST_PADDING) * padded:
                continue
            batch.append(entry)
            total, longest = total + entry.seconds, widest
        taken = {entry.number for entry in batch}
        self._entries = [entry for entry in self._entries if entry.number not in taken]
        return [entry.item for entry in batch]
