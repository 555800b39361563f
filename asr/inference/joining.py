"""The words of a segment from those of its overlapping pieces."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from asr.inference.time_formats import Word
from asr.text.tokens import WORD_START


@dataclass(frozen=True)
class Item:
    """A word, or a token of a long one."""

    word: Word
    glued: bool
    """Whether it continues the word of the item before."""

    @property
    def middle(self) -> float:
        return (self.word.start + self.word.end) / 2


def join_words(
    before: Sequence[Word], after: Sequence[Word], start: float, end: float
) -> tuple[Word, ...]:
    """The words of two pieces that share the time from `start` to `end`, each word once.

    In the middle of the overlap both results agree; at either end, one piece may cut a word. The
    result therefore switches pieces at the word closest to the middle that both have at the same
    time; without such a word, it switches between words. A word that takes most of the overlap (in
    scripts without spaces, a whole text) is joined by its tokens.
    """
    longest = (end - start) / 2
    left, right = items_of(before, longest), items_of(after, longest)
    middle = (start + end) / 2
    if shared := _shared(left, right, start, end):
        i, j = min(shared, key=lambda pair: abs(left[pair[0]].middle - middle))
        return _words([*left[: i + 1], *right[j + 1 :]])
    at = _between(left, right, start, end)
    return _words([*(a for a in left if a.middle < at), *(b for b in right if b.middle >= at)])


def items_of(words: Sequence[Word], longest: float) -> list[Item]:
    """The words; of those that last longer than `longest` seconds, as a whole text does in scripts
    without spaces, the tokens."""
    items: list[Item] = []
    for word in words:
        spelled = "".join(unit.unit for unit in word.units).replace(WORD_START, "")
        if word.end - word.start <= longest or len(word.units) < 2 or spelled != word.text:
            items.append(Item(word, glued=False))
            continue
        marks = 1 if word.units[0].unit == WORD_START else 0
        groups = [word.units[: marks + 1], *((unit,) for unit in word.units[marks + 1 :])]
        for number, units in enumerate(groups):
            text = "".join(unit.unit for unit in units).replace(WORD_START, "")
            begin = word.start if number == 0 else units[0].start
            part = Word(text, begin, units[-1].end, word.confidence, units)
            items.append(Item(part, glued=number > 0))
    return items


def _shared(
    left: Sequence[Item], right: Sequence[Item], start: float, end: float
) -> tuple[tuple[int, int], ...]:
    """Places in `left` and `right` of the words that both have between `start` and `end`.

    A word that is said twice in a row can be at the time of its neighbour in the other piece. The
    words are therefore aligned, each with one at most and in their order, so that the sum of
    `_likeness` is highest.
    """
    rows = [i for i, item in enumerate(left) if item.word.end > start]
    columns = [j for j, item in enumerate(right) if item.word.start < end]
    # For the first n words of `right`: the highest sum with those of `left` so far, and its pairs.
    best: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ())] * (len(columns) + 1)
    for i in rows:
        above, best = best, best[:1]
        for n, j in enumerate(columns):
            best.append(max(above[n + 1], best[n], key=lambda found: found[0]))
            total, pairs = above[n]
            like = _likeness(left[i].word, right[j].word)
            if like > 0 and total + like > best[-1][0]:
                best[-1] = total + like, (*pairs, (i, j))
    return best[-1][1]


def _likeness(a: Word, b: Word) -> float:
    """The share of the time of two words that they have in common; 0 for different words, and for
    those that have no more than half of the shorter one in common."""
    common = min(a.end, b.end) - max(a.start, b.start)
    if a.text != b.text or common <= min(a.end - a.start, b.end - b.start) / 2:
        return 0.0
    return common / (max(a.end, b.end) - min(a.start, b.start))


def _between(left: Sequence[Item], right: Sequence[Item], start: float, end: float) -> float:
    """The moment of an overlap at which fewest words are spoken, the closest to its middle."""
    words = [item.word for item in (*left, *right)]
    middle = (start + end) / 2
    edges = {middle, *(time for word in words for time in (word.start, word.end))}

    def cost(at: float) -> tuple[int, float]:
        return sum(word.start < at < word.end for word in words), abs(at - middle)

    return min((at for at in edges if start <= at <= end), key=cost)


def _words(items: Sequence[Item]) -> tuple[Word, ...]:
    words: list[Word] = []
    for item in items:
        word = item.word
        if item.glued and words:
            last = words.pop()
            sure = [c for c in (last.confidence, word.confidence) if c is not None]
            word = Word(
                last.text + word.text,
                last.start,
                max(last.end, word.end),
                min(sure, default=None),
                last.units + word.units,
            )
        words.append(word)
    return tuple(_in_order(words))


def _in_order(words: Sequence[Word]) -> list[Word]:
    """The same words, none beginning before the one before ends."""
    ends = itertools.accumulate((word.end for word in words), max, initial=0.0)
    moved = []
    for word, reached in zip(words, ends, strict=False):
        begin = min(max(word.start, reached), max(word.end, reached))
        moved.append(replace(word, start=begin, end=max(word.end, begin)))
    return moved
