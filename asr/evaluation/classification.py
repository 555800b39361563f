"""Accuracy of a classifier with its interval, figures of every class, and the confusion matrix.

Letters: N classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from asr.errors import AsrError
from asr.io.files import atomic_path, write_json

CONFIDENCE = 0.95


def wilson_interval(
    correct: int, total: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The confidence interval of a rate after `correct` of `total` independent trials.

    The score interval of Wilson, "Probable inference, the law of succession, and statistical
    inference", 1927. Unlike the bootstrap, it stays wide if few trials have no error. It assumes
    independent trials: with few speakers the true interval is wider.

    Returns fractions; (0, 1) without trials. Raises ValueError for impossible counts.

    >>> [round(bound, 4) for bound in wilson_interval(300, 300)]
    [0.9874, 1.0]
    """
    if not 0 <= correct <= total:
        raise ValueError(f"expected from 0 to {total} correct, got {correct}")
    if not total:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = correct / total
    centre = rate + z * z / (2 * total)
    spread = z * math.sqrt(rate * (1 - rate) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    # Rounding can exceed [0, 1] by one bit.
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True)
class ClassCounts:
    """One class: its correct predictions, all its predictions, and its true sequences."""

    name: str
    correct: int
    predicted: int
    actual: int

    @property
    def precision(self) -> float:
        """Share of its predictions that are correct; NaN without predictions."""
        return self.correct / self.predicted if self.predicted else math.nan

    @property
    def recall(self) -> float:
        """Share of its sequences that were recognised; NaN without sequences."""
        return self.correct / self.actual if self.actual else math.nan


@dataclass(frozen=True)
class Confusion:
    """The number of times each class (row) was predicted as each class (column). Add counts, not
    rates.

    Shape: counts [N, N].

    >>> one = confusion(["no", "yes"], ["no", "no", "yes"], ["no", "yes", "yes"])
    >>> (one + one).counts, one.accuracy
    (((2, 2), (0, 2)), 0.6666666666666666)
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def correct(self) -> int:
        return sum(row[i] for i, row in enumerate(self.counts))

    @property
    def total(self) -> int:
        return sum(map(sum, self.counts))

    @property
    def accuracy(self) -> float:
        """Share of all sequences that were recognised; NaN without sequences."""
        return self.correct / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The interval of the accuracy, at `CONFIDENCE`: see `wilson_interval`."""
        return wilson_interval(self.correct, self.total)

    @property
    def by_class(self) -> tuple[ClassCounts, ...]:
        columns = [sum(column) for column in zip(*self.counts, strict=True)]
        return tuple(
            ClassCounts(name, row[i], columns[i], sum(row))
            for i, (name, row) in enumerate(zip(self.classes, self.counts, strict=True))
        )

    def __add__(self, other: Confusion) -> Confusion:
        if self.classes != other.classes:
            raise ValueError(f"expected the classes {self.classes}, got {other.classes}")
        pairs = zip(self.counts, other.counts, strict=True)
        return Confusion(
            self.classes,
            tuple(tuple(a + b for a, b in zip(*rows, strict=True)) for rows in pairs),
        )


def confusion(
    classes: Sequence[str], references: Sequence[str], predictions: Sequence[str]
) -> Confusion:
    """Count the pairs of true and predicted class.

    Raises AsrError for an unknown class, ValueError for lists of different lengths.
    """
    places = {name: i for i, name in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    for pair in zip(references, predictions, strict=True):
        for name in pair:
            if name not in places:
                raise AsrError(
                    f"expected one of the classes {', '.join(classes)}, got {name!r}: "
                    "evaluate with the classes the model was trained on"
                )
        counts[places[pair[0]]][places[pair[1]]] += 1
    return Confusion(tuple(classes), tuple(map(tuple, counts)))


def accuracy_text(result: Confusion) -> str:
    """Accuracy with interval and counts, for a line or a cell.

    >>> accuracy_text(Confusion(("no", "yes"), ((9, 1), (0, 10))))
    '95.00 % (76.4 to 99.1), 19/20'
    """
    if not result.total:
        return "n/a, 0/0"
    low, high = (100 * bound for bound in result.interval)
    return (
        f"{100 * result.accuracy:.2f} % ({low:.1f} to {high:.1f}), {result.correct}/{result.total}"
    )


def to_text(result: Confusion) -> str:
    """Accuracy, precision and recall of each class, and the confusion matrix, for a terminal."""
    width = max(len("class"), *map(len, result.classes))
    lines = [f"accuracy {accuracy_text(result)}", ""]
    lines.append(f"{'class':<{width}}  precision          recall")
    for row in result.by_class:
        precision = _share(row.precision, row.correct, row.predicted)
        recall = _share(row.recall, row.correct, row.actual)
        lines.append(f"{row.name:<{width}}  {precision:<17}  {recall}")
    lines += ["", "true class by row, predicted class by column", ""]
    cell = max(width, *(len(str(count)) for row in result.counts for count in row))
    lines.append(" " * width + "".join(f"  {name:>{cell}}" for name in result.classes))
    for name, counts in zip(result.classes, result.counts, strict=True):
        cells = "".join(f"  {count or '.':>{cell}}" for count in counts)
        lines.append(f"{name:<{width}}{cells}")
    return "\n".join(lines) + "\n"


def _share(rate: float, part: int, whole: int) -> str:
    return f"{100 * rate:6.2f} % {part}/{whole}" if whole else f"   n/a   {part}/{whole}"


def to_json(result: Confusion) -> dict[str, Any]:
    """The result as plain JSON values; rates are fractions, and null without counts."""
    return {
        "classes": list(result.classes),
        "accuracy": _finite(result.accuracy),
        "correct": result.correct,
        "total": result.total,
        "confidence": CONFIDENCE,
        "interval": list(result.interval),
        "by_class": [
            {
                "class": row.name,
                "precision": _finite(row.precision),
                "recall": _finite(row.recall),
                "correct": row.correct,
                "predicted": row.predicted,
                "actual": row.actual,
            }
            for row in result.by_class
        ],
        "confusion": [list(row) for row in result.counts],
    }


def _finite(rate: float) -> float | None:
    return rate if math.isfinite(rate) else None


def write_classification(result: Confusion, folder: str | Path) -> None:
    """Write classification.txt and classification.json, each atomically."""
    folder = Path(folder)
    with atomic_path(folder / "classification.txt") as temporary:
        temporary.write_text(to_text(result), encoding="utf-8", newline="\n")
    write_json(folder / "classification.json", to_json(result))
