"""Error rates of parts of a test set: by speaker, length, pace, noise and what its manifest says.

Every utterance gets a label in each breakdown; the page filters by the same labels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr.evaluation.details import Details
from asr.evaluation.error_rate import ErrorCounts, UtteranceScore, bootstrap_interval

UNKNOWN = "unknown"
PARTS = 4  # of a breakdown by a number, with about as many utterances each
MOST_LABELS = 100  # of a manifest's extra column; more are names, not classes
DRAWS = 2000  # for the interval of a group: its bounds are read to a tenth of a percent

Interval = tuple[float, float]


@dataclass(frozen=True)
class Group:
    """The utterances with one label, and their errors. The interval is of the word error rate, as a
    fraction at 95 %."""

    label: str
    utterances: int
    words: ErrorCounts
    characters: ErrorCounts
    interval: Interval


@dataclass(frozen=True)
class Breakdown:
    """A test set in groups, which together are the whole."""

    title: str
    groups: tuple[Group, ...]


def label_utterances(
    utterances: Sequence[UtteranceScore], details: Mapping[str, Details], units: str = "words"
) -> dict[str, list[str]]:
    """By title of a breakdown, the label of each utterance in their order.

    Numbers fall into `PARTS` classes. What nobody knows of any utterance, or what is the same for
    all, is left out.
    """
    known = [details.get(u.id, Details()) for u in utterances]
    lengths = [u.words.reference_length for u in utterances]
    numbers: dict[str, list[float | None]] = {
        f"length, {units}": [float(length) for length in lengths],
        "duration, s": [row.seconds for row in known],
        f"pace, {units} per second": [
            length / row.seconds if row.seconds else None
            for length, row in zip(lengths, known, strict=True)
        ],
        "signal to noise, dB": [row.snr for row in known],
    }
    labels = {"speaker": [row.speaker or UNKNOWN for row in known]}
    labels |= {title: number_labels(values) for title, values in numbers.items()}
    for column in dict.fromkeys(name for row in known for name in row.columns):
        values = [row.columns.get(column) or UNKNOWN for row in known]
        # A column may be called as one of ours; its own name is then told apart.
        if len(set(values)) <= MOST_LABELS:
            labels[column if column not in labels else f"{column} (manifest)"] = values
    return {title: values for title, values in labels.items() if len(set(values)) > 1}


def number_labels(values: Sequence[float | None]) -> list[str]:
    """Classes of about as many values each, as labels that say their range.

    >>> number_labels([1, 2, 3, 4, 5, 6, 7, None])
    ['1 to 2', '1 to 2', '3 to 4', '3 to 4', '5 to 6', '5 to 6', '7', 'unknown']
    """
    # Three significant digits: what a person reads, and equal where it looks equal.
    rounded = [None if v is None or not math.isfinite(v) else float(f"{v:.3g}") for v in values]
    ordered = sorted(v for v in rounded if v is not None)
    if not ordered:
        return [UNKNOWN] * len(values)
    # A class ends with the value at its share of the whole, and all values equal to it.
    ends = sorted({ordered[math.ceil(len(ordered) * k / PARTS) - 1] for k in range(1, PARTS + 1)})

    def place(value: float) -> int:
        return next(i for i, end in enumerate(ends) if value <= end)

    inside: dict[int, list[float]] = defaultdict(list)
    for value in ordered:
        inside[place(value)].append(value)
    names = {
        i: f"{members[0]:g}" if members[0] == members[-1] else f"{members[0]:g} to {members[-1]:g}"
        for i, members in inside.items()
    }
    return [UNKNOWN if value is None else names[place(value)] for value in rounded]


def break_down(
    utterances: Sequence[UtteranceScore], labels: Mapping[str, Sequence[str]]
) -> tuple[Breakdown, ...]:
    """The groups of each breakdown: those of numbers by size, others by name, the unknown last."""
    breakdowns = []
    for title, column in labels.items():
        members: dict[str, list[UtteranceScore]] = defaultdict(list)
        for label, utterance in zip(column, utterances, strict=True):
            members[label].append(utterance)
        groups = [_group(label, members[label]) for label in sorted(members, key=_order)]
        breakdowns.append(Breakdown(title, tuple(groups)))
    return tuple(breakdowns)


def _group(label: str, members: Sequence[UtteranceScore]) -> Group:
    return Group(
        label,
        len(members),
        sum((u.words for u in members), ErrorCounts()),
        sum((u.characters for u in members), ErrorCounts()),
        bootstrap_interval([u.words for u in members], draws=DRAWS),
    )


def _order(label: str) -> tuple[bool, float, str]:
    try:
        number = float(label.split(" to ")[0])
    except ValueError:
        number = math.inf
    return label == UNKNOWN, number, label
