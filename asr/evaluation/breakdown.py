"""Error rates of parts of a test set: by speaker, length, rate of speech, noise and columns.

Every utterance has one label per breakdown; the page filters by the same labels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr.evaluation.error_rate import ErrorCounts, Interval, UtteranceScore, bootstrap_interval
from asr.evaluation.utterance import Details

UNKNOWN = "unknown"
PARTS = 4  # of a breakdown by a number, with about as many utterances each
MOST_NUMBERS = 12  # distinct numbers in a column before they are grouped into classes
MOST_LABELS = 100  # of a manifest's extra column; more are names, not classes
DRAWS = 2000  # for the interval of a group, which is precise to a tenth of a percent


@dataclass(frozen=True)
class Group:
    """The utterances with one label, and their errors. The interval is that of the word error rate,
    as a fraction at 95 %; None for few utterances."""

    label: str
    utterances: int
    words: ErrorCounts
    characters: ErrorCounts
    interval: Interval | None


@dataclass(frozen=True)
class Breakdown:
    """A partition of a test set into groups."""

    title: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Column:
    """The label of each utterance, and all labels in display order."""

    labels: tuple[str, ...]
    names: tuple[str, ...]


def label_utterances(
    utterances: Sequence[UtteranceScore], details: Mapping[str, Details], units: str = "words"
) -> dict[str, Column]:
    """The label of each utterance, by title of a breakdown.

    Numbers are grouped into `PARTS` classes. Left out are columns that are unknown or equal for all
    utterances, and columns of more than `MOST_LABELS` names.
    """
    known = [details.get(u.id, Details()) for u in utterances]
    lengths = [u.words.reference_length for u in utterances]
    columns = {
        "speaker": by_name([row.speaker for row in known]),
        f"length, {units}": by_number([float(length) for length in lengths]),
        "duration, s": by_number([row.seconds for row in known]),
        f"pace, {units} per second": by_number(
            [
                length / row.seconds if row.seconds else None
                for length, row in zip(lengths, known, strict=True)
            ]
        ),
        "signal to noise, dB": by_number([row.snr for row in known]),
    }
    for name in dict.fromkeys(name for row in known for name in row.columns):
        values = [row.columns.get(name, "") for row in known]
        # A column may have the name of a built-in breakdown; its own title is then made distinct.
        columns[f"{name} (manifest)" if name in columns else name] = _of_manifest(values)
    return {title: column for title, column in columns.items() if len(column.names) > 1}


def left_out(details: Mapping[str, Details]) -> dict[str, int]:
    """Columns of the manifest with too many names for a breakdown, and their number of names."""
    columns = dict.fromkeys(name for row in details.values() for name in row.columns)
    counts = {}
    for name in columns:
        values = [row.columns.get(name, "") for row in details.values()]
        if _numbers(values) is None and len(set(values)) > MOST_LABELS:
            counts[name] = len(set(values))
    return counts


def _of_manifest(values: Sequence[str]) -> Column:
    numbers = _numbers(values)
    if numbers is not None and len(set(values)) > MOST_NUMBERS:
        return by_number(numbers)
    if numbers is not None:
        column = by_name(values)
        return Column(column.labels, tuple(sorted(column.names, key=_in_number_order)))
    return by_name(values) if len(set(values)) <= MOST_LABELS else Column((), ())


def _numbers(values: Sequence[str]) -> list[float | None] | None:
    """The numbers of texts that are all numbers or empty."""
    try:
        return [float(value) if value else None for value in values]
    except ValueError:
        return None


def _in_number_order(name: str) -> tuple[bool, float, str]:
    number = math.inf if name == UNKNOWN else float(name)
    return name == UNKNOWN, math.inf if math.isnan(number) else number, name


def by_name(values: Sequence[str]) -> Column:
    """Names in alphabetical order, unknown last.

    >>> by_name(["b", "", "a"]).names
    ('a', 'b', 'unknown')
    """
    labels = tuple(value or UNKNOWN for value in values)
    return Column(labels, tuple(sorted(set(labels), key=lambda name: (name == UNKNOWN, name))))


def by_number(values: Sequence[float | None]) -> Column:
    """Classes of numbers from low to high, unknown last."""
    labels = number_labels(values)
    first = {
        label: math.inf if label == UNKNOWN else float(label.split(" to ")[0]) for label in labels
    }
    return Column(tuple(labels), tuple(sorted(first, key=lambda name: first[name])))


def number_labels(values: Sequence[float | None]) -> list[str]:
    """Classes of about as many values each, labelled with their range.

    >>> number_labels([1, 2, 3, 4, 5, 6, 7, None])
    ['1 to 2', '1 to 2', '3 to 4', '3 to 4', '5 to 6', '5 to 6', '7', 'unknown']
    """
    finite = [v if v is not None and math.isfinite(v) else None for v in values]
    # Three significant digits: readable, and equal labels mean equal values. Whole numbers may be
    # years, and stay.
    whole = all(float(v).is_integer() for v in finite if v is not None)
    rounded = [v if v is None or whole else float(f"{v:.3g}") for v in finite]
    show = "{:.0f}".format if whole else "{:g}".format
    ordered = sorted(v for v in rounded if v is not None)
    if not ordered:
        return [UNKNOWN] * len(values)
    # A class ends at its quantile, and includes all values equal to it.
    ends = sorted({ordered[math.ceil(len(ordered) * k / PARTS) - 1] for k in range(1, PARTS + 1)})

    def place(value: float) -> int:
        return next(i for i, end in enumerate(ends) if value <= end)

    inside: dict[int, list[float]] = defaultdict(list)
    for value in ordered:
        inside[place(value)].append(value)
    names = {
        i: " to ".join(map(show, dict.fromkeys((members[0], members[-1]))))
        for i, members in inside.items()
    }
    return [UNKNOWN if value is None else names[place(value)] for value in rounded]


def break_down(
    utterances: Sequence[UtteranceScore], columns: Mapping[str, Column]
) -> tuple[Breakdown, ...]:
    """The groups of each breakdown."""
    breakdowns = []
    for title, column in columns.items():
        members: dict[str, list[UtteranceScore]] = defaultdict(list)
        for label, utterance in zip(column.labels, utterances, strict=True):
            members[label].append(utterance)
        groups = [_group(label, members[label]) for label in column.names]
        breakdowns.append(Breakdown(title, tuple(groups)))
    return tuple(breakdowns)


def _group(label: str, members: Sequence[UtteranceScore]) -> Group:
    counts = [u.words for u in members]
    return Group(
        label,
        len(members),
        sum(counts, ErrorCounts()),
        sum((u.characters for u in members), ErrorCounts()),
        bootstrap_interval(counts, draws=DRAWS),
    )
