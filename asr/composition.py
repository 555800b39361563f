"""New training utterances from old ones: two joined to one, words of a speaker in new order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LONGEST_STRETCH = 3  # words that stay together when a sentence is spliced


@dataclass(frozen=True)
class Stretch:
    """Words [first, last) of utterance `index`, spoken from `start` to `end` seconds of it."""

    index: int
    start: float
    end: float
    first: int
    last: int


@dataclass(frozen=True)
class Item:
    """One utterance of a batch: its place in the dataset, its speed, and what is joined to it."""

    index: int
    speed: float = 1.0
    then: tuple[int, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    """Played instead, where there are any."""

    @property
    def indices(self) -> tuple[int, ...]:
        """Utterances of the dataset that are played one after another."""
        return (self.index, *self.then)

    def seconds(self, durations: Sequence[float]) -> float:
        """How long it plays."""
        if self.stretches:
            return sum(s.end - s.start for s in self.stretches) / self.speed
        return sum(durations[index] for index in self.indices) / self.speed


def joined(
    durations: Sequence[float], speakers: Sequence[str], join: float, random: np.random.Generator
) -> list[tuple[int, ...]]:
    """Every utterance once, some of them in pairs of one speaker."""
    if not join or not speakers:
        return [(i,) for i in range(len(durations))]
    groups: list[tuple[int, ...]] = []
    waiting: dict[str, int] = {}
    longest = max(durations)
    for i in (int(i) for i in random.permutation(len(durations))):
        mate = waiting.pop(speakers[i], None)
        if mate is not None and durations[mate] + durations[i] <= longest:
            groups.append((mate, i))
        else:
            groups += [] if mate is None else [(mate,)]
            # Both utterances of a pair count towards the share, hence the draw by the first alone.
            if speakers[i] and random.random() < join:
                waiting[speakers[i]] = i
            else:
                groups.append((i,))
    return groups + [(i,) for i in waiting.values()]


def spliced(
    items: Sequence[Item],
    durations: Sequence[float],
    speakers: Sequence[str],
    word_starts: Mapping[int, Sequence[float]],
    splice: float,
    random: np.random.Generator,
) -> list[Item]:
    """Replace a share `splice` of the items by words of the same speaker, about as long.

    `word_starts` holds the seconds at which each word of an utterance begins; speakers without a
    name are left as they are.
    """
    words: dict[str, list[tuple[int, int]]] = {}
    for index, starts in word_starts.items():
        if speakers[index]:
            words.setdefault(speakers[index], []).extend((index, i) for i in range(len(starts)))
    result = []
    for item in items:
        own = words.get(speakers[item.index])
        if own and random.random() < splice:
            seconds = sum(durations[index] for index in item.indices)
            stretches = _new_sentence(own, word_starts, durations, seconds, random)
            item = Item(item.index, item.speed, stretches=stretches)
        result.append(item)
    return result


def _new_sentence(
    words: Sequence[tuple[int, int]],
    word_starts: Mapping[int, Sequence[float]],
    durations: Sequence[float],
    seconds: float,
    random: np.random.Generator,
) -> tuple[Stretch, ...]:
    """Random stretches from (utterance, word) on, together about `seconds` long; at least one."""
    chosen: list[Stretch] = []
    total = 0.0
    while total < seconds:
        index, first = words[int(random.integers(len(words)))]
        bounds = [*word_starts[index], durations[index]]
        last = min(first + int(random.integers(1, LONGEST_STRETCH + 1)), len(bounds) - 1)
        length = bounds[last] - bounds[first]
        if chosen and total + length / 2 > seconds:
            break
        chosen.append(Stretch(index, bounds[first], bounds[last], first, last))
        total += length
    return tuple(chosen)
