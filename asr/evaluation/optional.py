"""Optionally deletable words of NIST's trn and stm files: (uh), (%hesitation).

Such a word counts as correct if it is missing or present. As in NIST's sclite (SCTK, word.c),
another word in its place is a substitution. In a hypothesis, such a word counts if the reference
has it, and is removed if no word is in its place.

Normalisation may change words between file and alignment, so the words are marked with two
noncharacters of Unicode, which no rule changes. In aligned texts they are in ornamental brackets,
❨uh❩, which no transcript contains.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

Pair = tuple[str | None, str | None]  # a word of the reference, one of the hypothesis

_BEGIN, _END = "\ufdd0", "\ufdd1"
_MARKED = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}")
_IN_FILE = re.compile(r"(?<!\S)\((\S+)\)(?!\S)")
_OPEN, _CLOSE = "❨", "❩"
MOST_CELLS = 1 << 22  # of a table of costs, 32 MB


def mark(text: str) -> str:
    """A text of a trn or stm file with its optional words marked for normalisation."""
    return _IN_FILE.sub(rf"{_BEGIN} \1 {_END}", text)  # rules for words see the word


def bracket(text: str) -> str:
    """A normalised text with its marked words in brackets.

    >>> bracket(mark("i (uh) think").upper())
    'I ❨UH❩ THINK'
    """
    if _BEGIN not in text:
        return text
    words = _MARKED.sub(
        lambda found: " ".join(["", *(_OPEN + w + _CLOSE for w in found[1].split()), ""]), text
    )
    return " ".join(words.replace(_BEGIN, " ").replace(_END, " ").split())


def is_optional(word: str) -> bool:
    """Whether an aligned word is in brackets."""
    return len(word) > 2 and word[0] == _OPEN and word[-1] == _CLOSE


def plain(word: str) -> str:
    """A word without brackets."""
    return word[1:-1] if is_optional(word) else word


def as_in_file(text: str) -> str:
    """A text of a report in the notation of trn and stm files.

    >>> as_in_file("i ❨uh❩ think")
    'i (uh) think'
    """
    return " ".join(f"({plain(w)})" if is_optional(w) else w for w in text.split(" "))


def align_optional(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Pair]:
    """The alignment of the two with the fewest errors.

    Optional words of the hypothesis without a partner are left out.
    """
    # The cost of an error outweighs any number of optional words. Omitting an optional word costs
    # 1, so that a word in its place is a substitution.
    return _aligned(reference, hypothesis, len(reference) + len(hypothesis) + 1)


def _aligned(reference: Sequence[str], hypothesis: Sequence[str], error: int) -> list[Pair]:
    if len(reference) < 2 or (len(reference) + 1) * (len(hypothesis) + 1) <= MOST_CELLS:
        costs = np.stack(list(_rows(reference, hypothesis, error)))
        return _traced(costs, reference, hypothesis, error)
    # Divided where the best path crosses the middle, in memory that grows with the length only
    # (Hirschberg 1975).
    middle = len(reference) // 2
    (before,) = deque(_rows(reference[:middle], hypothesis, error), maxlen=1)
    (after,) = deque(_rows(reference[middle:][::-1], hypothesis[::-1], error), maxlen=1)
    place = int(np.argmin(before + after[::-1]))
    return _aligned(reference[:middle], hypothesis[:place], error) + _aligned(
        reference[middle:], hypothesis[place:], error
    )


def _rows(reference: Sequence[str], hypothesis: Sequence[str], error: int) -> Iterator[np.ndarray]:
    """The least costs of aligning the first words of the reference, none to all, with the first
    words of the hypothesis. Shape: [len(hypothesis) + 1] each."""
    left, right = [plain(word) for word in reference], [plain(word) for word in hypothesis]
    ids = {word: i for i, word in enumerate({*left, *right})}
    said = np.array([ids[word] for word in right], np.int64)
    insertions = np.array([0, *(1 if is_optional(word) else error for word in hypothesis)])
    along = np.cumsum(insertions)
    costs = along
    yield costs
    for marked, word in zip(reference, left, strict=True):
        row = costs + (1 if is_optional(marked) else error)
        row[1:] = np.minimum(row[1:], costs[:-1] + error * (said != ids[word]))
        # The least of row[k] plus the insertions k + 1 to j, for all k up to j: without the cost of
        # all insertions up to each place, this is a running minimum.
        costs = np.minimum.accumulate(row - along) + along
        yield costs


def _traced(
    costs: np.ndarray, reference: Sequence[str], hypothesis: Sequence[str], error: int
) -> list[Pair]:
    pairs: list[Pair] = []
    i, j = len(reference), len(hypothesis)
    while i or j:
        word = plain(hypothesis[j - 1]) if j else ""
        beside = error * (i > 0 and plain(reference[i - 1]) != word)
        if i and j and costs[i, j] == costs[i - 1, j - 1] + beside:
            i, j = i - 1, j - 1
            pairs.append((reference[i], word))
        elif i and costs[i, j] == costs[i - 1, j] + (1 if is_optional(reference[i - 1]) else error):
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            if not is_optional(hypothesis[j]):
                pairs.append((None, word))
    return pairs[::-1]
