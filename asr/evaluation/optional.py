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
from collections.abc import Sequence

import numpy as np

Pair = tuple[str | None, str | None]  # a word of the reference, one of the hypothesis

_BEGIN, _END = "\ufdd0", "\ufdd1"
_MARKED = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}")
_IN_FILE = re.compile(r"(?<!\S)\((\S+)\)(?!\S)")
_OPEN, _CLOSE = "❨", "❩"


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
    left, right = [plain(word) for word in reference], [plain(word) for word in hypothesis]
    ids = {word: i for i, word in enumerate({*left, *right})}
    said = np.array([ids[word] for word in right], np.int64)
    # The cost of an error outweighs any number of optional words. Omitting an optional word costs
    # 1, so that a word in its place is a substitution.
    error = len(left) + len(right) + 1
    insertions = np.array([0, *(1 if is_optional(word) else error for word in hypothesis)])
    along = np.cumsum(insertions)
    costs = np.empty((len(left) + 1, len(right) + 1), np.int64)
    costs[0] = along
    deletions = [1 if is_optional(word) else error for word in reference]
    for i, word in enumerate(left):
        row = costs[i] + deletions[i]
        row[1:] = np.minimum(row[1:], costs[i, :-1] + error * (said != ids[word]))
        costs[i + 1] = np.minimum.accumulate(row - along) + along
    return _traced(costs, reference, hypothesis, deletions, error)


def _traced(
    costs: np.ndarray,
    reference: Sequence[str],
    hypothesis: Sequence[str],
    deletions: Sequence[int],
    error: int,
) -> list[Pair]:
    pairs: list[Pair] = []
    i, j = len(reference), len(hypothesis)
    while i or j:
        word = plain(hypothesis[j - 1]) if j else ""
        beside = error * (i > 0 and plain(reference[i - 1]) != word)
        if i and j and costs[i, j] == costs[i - 1, j - 1] + beside:
            i, j = i - 1, j - 1
            pairs.append((reference[i], word))
        elif i and costs[i, j] == costs[i - 1, j] + deletions[i - 1]:
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            if not is_optional(hypothesis[j]):
                pairs.append((None, word))
    return pairs[::-1]
