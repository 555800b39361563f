"""New training utterances from old ones: two concatenated, words of a speaker in new order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from asr.augment.codecs import Codec

LONGEST_STRETCH = 3  # words that stay together when a sentence is spliced


@dataclass(frozen=True)
class Corpus:
    """What is known of the training utterances before their audio is read, by place."""

    durations: Sequence[float]
    """Seconds."""
    speakers: Sequence[str] = ()
    fastest: Sequence[float] = ()
    """The highest speed at which each transcript still fits; empty: any speed does."""
    word_starts: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """Seconds at which each word begins, of the utterances whose words are known."""
    shards: Sequence[int] = ()
    """The shard of each utterance, where they are fetched; empty: all are at hand."""
    shard_bytes: Sequence[int] = ()
    room: int = 0
    """Bytes of shards that batches may be drawn from at a time."""


@dataclass(frozen=True)
class Stretch:
    """Utterance `index`, or words [first, last) of it, spoken from `start` to `end` seconds.

    None is the end of the utterance.
    """

    index: int
    start: float = 0.0
    end: float | None = None
    first: int = 0
    last: int | None = None

    @property
    def whole(self) -> bool:
        return self.start == 0.0 and self.end is None

    def seconds(self, durations: Sequence[float]) -> float:
        end = durations[self.index] if self.end is None else self.end
        return end - self.start


@dataclass(frozen=True)
class Item:
    """One row of a batch: what is played, one stretch after another, and how."""

    stretches: tuple[Stretch, ...]
    speed: float = 1.0
    tempo: float = 1.0
    codec: Codec | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """The utterances it is made of."""
        return tuple(stretch.index for stretch in self.stretches)

    def seconds(self, durations: Sequence[float]) -> float:
        """How long it plays."""
        return sum(stretch.seconds(durations) for stretch in self.stretches) / (
            self.speed * self.tempo
        )


def whole(*indices: int, speed: float = 1.0) -> Item:
    """Whole utterances, one after another.

    >>> whole(3, 5).indices
    (3, 5)
    """
    return Item(tuple(Stretch(index) for index in indices), speed)


def windows(corpus: Corpus, random: np.random.Generator) -> list[np.ndarray]:
    """All places of utterances: in random parts of a few shards each, which take no more than
    `corpus.room`, or in one part where there is room for all."""
    places = np.arange(len(corpus.durations))
    if sum(corpus.shard_bytes) <= corpus.room:
        return [places]
    parts: list[list[int]] = []
    left = 0
    for shard in random.permutation(len(corpus.shard_bytes)).tolist():
        if not parts or left < corpus.shard_bytes[shard]:
            parts.append([])
            left = corpus.room
        parts[-1].append(shard)
        left -= corpus.shard_bytes[shard]
    of = np.asarray(corpus.shards)
    return [places[np.isin(of, part)] for part in parts]


def concatenated(
    corpus: Corpus, prob: float, random: np.random.Generator, places: np.ndarray
) -> list[tuple[int, ...]]:
    """Every utterance of `places` once, some of them in pairs of one speaker."""
    durations, speakers = corpus.durations, corpus.speakers
    if not prob or not speakers:
        return [(i,) for i in places.tolist()]
    groups: list[tuple[int, ...]] = []
    waiting: dict[str, int] = {}
    longest = max(durations)
    for i in random.permutation(places).tolist():
        mate = waiting.pop(speakers[i], None)
        if mate is not None and durations[mate] + durations[i] <= longest:
            groups.append((mate, i))
        else:
            groups += [] if mate is None else [(mate,)]
            # Both utterances of a pair count, hence the draw by the first alone.
            if speakers[i] and random.random() < prob:
                waiting[speakers[i]] = i
            else:
                groups.append((i,))
    return groups + [(i,) for i in waiting.values()]


def spliced(
    items: Sequence[Item],
    corpus: Corpus,
    prob: float,
    random: np.random.Generator,
    places: np.ndarray,
) -> list[Item]:
    """Replace each item, with the probability `prob`, by words of the same speaker, about as long,
    from the utterances of `places`.

    Speakers without a name, or of whom no words are known, are left as they are.
    """
    words: dict[str, list[tuple[int, int]]] = {}
    near = set(places.tolist())
    for index, starts in corpus.word_starts.items():
        if index in near and (speaker := corpus.speakers[index]):
            words.setdefault(speaker, []).extend((index, i) for i in range(len(starts)))
    result = []
    for item in items:
        own = words.get(corpus.speakers[item.indices[0]])
        if own and random.random() < prob:
            seconds = item.seconds(corpus.durations) * item.speed * item.tempo
            item = replace(item, stretches=_new_sentence(own, corpus, seconds, random))
        result.append(item)
    return result


def _new_sentence(
    words: Sequence[tuple[int, int]], corpus: Corpus, seconds: float, random: np.random.Generator
) -> tuple[Stretch, ...]:
    """Random stretches from (utterance, word) on, together about `seconds` long; at least one."""
    chosen: list[Stretch] = []
    total = 0.0
    while total < seconds:
        index, first = words[int(random.integers(len(words)))]
        bounds = [*corpus.word_starts[index], corpus.durations[index]]
        last = min(first + int(random.integers(1, LONGEST_STRETCH + 1)), len(bounds) - 1)
        length = bounds[last] - bounds[first]
        if chosen and total + length / 2 > seconds:
            break
        chosen.append(Stretch(index, bounds[first], bounds[last], first, last))
        total += length
    return tuple(chosen)
