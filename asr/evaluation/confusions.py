"""Confused words, and error rates by frequency in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asr.evaluation.classification import wilson_interval
from asr.evaluation.error_rate import UtteranceScore
from asr.evaluation.optional import plain

EDGES = (0, 1, 10, 100, 1000)  # first count of each frequency class; it ends before the next


@dataclass(frozen=True)
class Confusions:
    """Words with their counts, most frequent first; ties in alphabetical order."""

    substituted: tuple[tuple[str, str, int], ...]  # reference, hypothesis, count
    deleted: tuple[tuple[str, int], ...]
    inserted: tuple[tuple[str, int], ...]


def count_confusions(utterances: Iterable[UtteranceScore]) -> Confusions:
    """Every wrong word of the alignments."""
    pairs: Counter[tuple[str, str]] = Counter()
    deleted: Counter[str] = Counter()
    inserted: Counter[str] = Counter()
    for utterance in utterances:
        for column in utterance.alignment:
            reference, hypothesis = column.reference or "", column.hypothesis or ""
            if column.operation == "S":
                pairs[reference, hypothesis] += 1
            elif column.operation == "D":
                deleted[reference] += 1
            elif column.operation == "I":
                inserted[hypothesis] += 1
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return Confusions(
        tuple((reference, hypothesis, count) for (reference, hypothesis), count in ordered),
        _by_count(deleted),
        _by_count(inserted),
    )


def _by_count(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def count_words(texts: Iterable[str]) -> Counter[str]:
    """The number of occurrences of each word."""
    return Counter(word for text in texts for word in text.split())


@dataclass(frozen=True)
class FrequencyClass:
    """Reference words with a similar frequency in training: their number, the number not
    recognised, and the 95 % interval of that share (Wilson's, which assumes independent words)."""

    label: str
    words: int
    wrong: int
    interval: tuple[float, float]

    @property
    def rate(self) -> float:
        return self.wrong / self.words if self.words else 0.0


def errors_by_frequency(
    utterances: Sequence[UtteranceScore], training: Mapping[str, int]
) -> tuple[FrequencyClass, ...]:
    """Substituted and deleted words by frequency in training, without empty classes.

    Inserted words correspond to no reference word and are not counted.

    >>> from asr.evaluation.error_rate import score
    >>> scores = score({"a": "one two three"}, {"a": "one too"})
    >>> rows = errors_by_frequency(scores.utterances, {"one": 5, "two": 20})
    >>> [(row.label, row.words, row.wrong) for row in rows]
    [('never', 1, 1), ('1 to 9 times', 1, 0), ('10 to 99 times', 1, 1)]
    """
    words = [0] * len(EDGES)
    wrong = [0] * len(EDGES)
    for utterance in utterances:
        for column in utterance.alignment:
            if column.reference is not None and not column.unsaid:
                seen = training.get(plain(column.reference), 0)
                place = max(i for i, edge in enumerate(EDGES) if seen >= edge)
                words[place] += 1
                wrong[place] += column.operation != "C"
    return tuple(
        FrequencyClass(_label(i), words[i], wrong[i], wilson_interval(wrong[i], words[i]))
        for i in range(len(EDGES))
        if words[i]
    )


def _label(place: int) -> str:
    if place == 0:
        return "never"
    if place == len(EDGES) - 1:
        return f"{EDGES[place]} times and more"
    return f"{EDGES[place]} to {EDGES[place + 1] - 1} times"
