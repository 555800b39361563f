"""New training utterances: concatenations, and sentences of a speaker's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from asr.augment.codecs import Codec

LONGEST_STRETCH = 3  # most words of a stretch in a spliced sentence
SHORTEST_S = 0.02  # a shorter word has no sound: its start was not found


@dataclass(frozen=True)
class Corpus:
    """The training utterances as far as known without their audio, by index."""

    durations: Sequence[float]
    """Seconds."""
    speakers: Sequence[str] = ()
    fastest: Sequence[float] = ()
    """The highest speed at which each transcript still fits; empty: any speed fits."""
    word_starts: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """Start of each word in seconds, for utterances with known word times."""
    shards: Sequence[int] = ()
    """The shard of each utterance, if shards are fetched; empty: all are on disk."""
    shard_bytes: Sequence[int] = ()
    room: int = 0
    """Bytes of shards from which batches are drawn at a time."""


@dataclass(frozen=True)
class Stretch:
    """Utterance `index`, or its words [first, last), spoken from `start` to `end` seconds.

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
    """One row of a batch: stretches in playing order, with their changes."""

    stretches: tuple[Stretch, ...]
    speed: float = 1.0
    tempo: float = 1.0
    codec: Codec | None = None
    trim_db: float | None = None
    """Both ends are cut off where they are so far below the loudest moment."""

    @property
    def indices(self) -> tuple[int, ...]:
        """The utterances that it consists of."""
        return tuple(stretch.index for stretch in self.stretches)

    def seconds(self, durations: Sequence[float]) -> float:
        """Its duration when played; before it is cut tightly."""
        return sum(stretch.seconds(durations) for stretch in self.stretches) / (
            self.speed * self.tempo
        )


def whole(*indices: int, speed: float = 1.0) -> Item:
    """Whole utterances in sequence.

    >>> whole(3, 5).indices
    (3, 5)
    """
    return Item(tuple(Stretch(index) for index in indices), speed)


def windows(corpus: Corpus, random: np.random.Generator) -> list[np.ndarray]:
    """All indices of utterances: in random groups of a few shards that fit into `corpus.room`, or
    in one group if everything fits."""
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
    """Every utterance of `places` once; some are paired with another one of their speaker."""
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
            # Both utterances of a pair count, so only the draw of the first decides.
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
    short_prob: float = 0.0,
) -> list[Item]:
    """Replace each item, with probability `prob`, by words of the same speaker from the utterances
    of `places`: one stretch of them with probability `short_prob`, else several with about the same
    duration.

    Items of unnamed speakers, or of speakers without known word times, stay unchanged.
    """
    words: dict[str, list[tuple[int, int]]] = {}
    near = set(places.tolist())
    for index, starts in corpus.word_starts.items():
        if index in near and (speaker := corpus.speakers[index]):
            ends = [*starts[1:], corpus.durations[index]]
            spans = enumerate(zip(starts, ends, strict=True))
            heard = [(index, i) for i, (start, end) in spans if end - start >= SHORTEST_S]
            words.setdefault(speaker, []).extend(heard)
    result = []
    for item in items:
        own = words.get(corpus.speakers[item.indices[0]])
        if own and random.random() < prob:
            short = bool(short_prob) and random.random() < short_prob
            seconds = 0.0 if short else item.seconds(corpus.durations) * item.speed * item.tempo
            item = replace(item, stretches=_new_sentence(own, corpus, seconds, random))
        result.append(item)
    return result


def _new_sentence(
    words: Sequence[tuple[int, int]], corpus: Corpus, seconds: float, random: np.random.Generator
) -> tuple[Stretch, ...]:
    """Random stretches from (utterance, word) on, about `seconds` long in total; at least one."""
    chosen: list[Stretch] = []
    total = 0.0
    while not chosen or total < seconds:
        index, first = words[int(random.integers(len(words)))]
        bounds = [*corpus.word_starts[index], corpus.durations[index]]
        last = min(first + int(random.integers(1, LONGEST_STRETCH + 1)), len(bounds) - 1)
        if bounds[last] - bounds[first] < SHORTEST_S:
            last = first + 1
        length = bounds[last] - bounds[first]
        if chosen and total + length / 2 > seconds:
            break
        chosen.append(Stretch(index, bounds[first], bounds[last], first, last))
        total += length
    return tuple(chosen)
