"""Covers `asr/evaluation/confusion_plot.py`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asr.errors import AsrError
from asr.evaluation.classification import (
    Confusion,
    accuracy_text,
    confusion,
    to_json,
    to_text,
    wilson_interval,
    write_classification,
)
from asr.evaluation.confusion_plot import CELL, HIT, MISS, draw, write_picture

CLASSES = ("no", "perhaps", "yes")
# no: 3 of 4; perhaps: never said; yes: 5 of 6 predictions, 5 of 5 sequences.
RESULT = Confusion(CLASSES, ((3, 0, 1), (0, 0, 0), (0, 0, 5)))

names = st.sampled_from(CLASSES)


@given(st.lists(st.tuples(names, names)))
def test_counts_are_those_of_the_pairs(pairs: list[tuple[str, str]]) -> None:
    references, predictions = [r for r, _ in pairs], [p for _, p in pairs]
    result = confusion(CLASSES, references, predictions)
    for i, true in enumerate(CLASSES):
        for j, predicted in enumerate(CLASSES):
            assert result.counts[i][j] == pairs.count((true, predicted))
    assert result.total == len(pairs)
    assert result.correct == sum(r == p for r, p in pairs)
    for row in result.by_class:
        assert (row.predicted, row.actual) == (
            predictions.count(row.name),
            references.count(row.name),
        )


@given(st.lists(st.tuples(names, names)), st.lists(st.tuples(names, names)))
def test_adding_counts_is_counting_together(
    first: list[tuple[str, str]], second: list[tuple[str, str]]
) -> None:
    def count(pairs: list[tuple[str, str]]) -> Confusion:
        return confusion(CLASSES, [r for r, _ in pairs], [p for _, p in pairs])

    assert count(first) + count(second) == count(first + second)


def test_rates_derive_from_the_counts() -> None:
    assert RESULT.accuracy == pytest.approx(8 / 9)
    no, perhaps, yes = RESULT.by_class
    assert (no.precision, no.recall) == (1.0, 0.75)
    assert (yes.precision, yes.recall) == (pytest.approx(5 / 6), 1.0)
    assert math.isnan(perhaps.precision)
    assert math.isnan(perhaps.recall)


def test_classes_that_differ_cannot_be_added() -> None:
    with pytest.raises(ValueError, match="classes"):
        RESULT + Confusion(("a", "b"), ((1, 0), (0, 1)))


def test_a_name_of_no_class_is_one_line() -> None:
    with pytest.raises(AsrError, match="'maybe'") as error:
        confusion(CLASSES, ["no"], ["maybe"])
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="shorter"):
        confusion(CLASSES, ["no", "yes"], ["no"])


# --- the interval ---


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I,
        # method 3: the score interval.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_the_published_one(
    correct: int, total: int, low: float, high: float
) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6), st.data())
def test_the_interval_holds_the_rate_and_mirrors(total: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, total))
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1
    assert wilson_interval(total - correct, total) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    assert wilson_interval(correct, total, 0.5)[0] >= low - 1e-12


@pytest.mark.parametrize(("correct", "total"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 3"):
        wilson_interval(correct, total)


# --- what is written ---


def test_text_shows_every_count_in_its_place() -> None:
    lines = to_text(RESULT).splitlines()
    assert lines[0] == f"accuracy {accuracy_text(RESULT)}"
    assert "8/9" in lines[0]
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["perhaps"] == [".", ".", "."]  # the matrix comes last
    assert rows["no"] == ["3", ".", "1"]
    assert rows["yes"] == [".", ".", "5"]
    assert any(line.split() == ["perhaps", "n/a", "0/0", "n/a", "0/0"] for line in lines)
    assert any("83.33 % 5/6" in line and "100.00 % 5/5" in line for line in lines)
    matrix = lines[lines.index("true class by row, predicted class by column") + 2 :]
    assert len({len(line) for line in matrix}) == 1  # columns stand under their names


def test_files_hold_the_counts(tmp_path: Path) -> None:
    write_classification(RESULT, tmp_path)
    assert (tmp_path / "classification.txt").read_text() == to_text(RESULT)
    values = json.loads((tmp_path / "classification.json").read_text())
    assert values == json.loads(json.dumps(to_json(RESULT)))
    assert values["confusion"] == [[3, 0, 1], [0, 0, 0], [0, 0, 5]]
    assert values["by_class"][1]["recall"] is None
    assert (values["correct"], values["total"]) == (8, 9)


def test_nothing_at_all_is_still_written(tmp_path: Path) -> None:
    empty = confusion(CLASSES, [], [])
    assert empty.interval == (0, 1)
    assert to_json(empty)["accuracy"] is None
    assert "n/a" in to_text(empty)
    write_picture(empty, tmp_path / "empty.png", "nothing")


def corners(picture: Image.Image, size: int) -> np.ndarray:
    """The colour near the upper left corner of each cell: beside its number. Shape: [N, N, 3]."""
    pixels = np.asarray(picture)
    grid = np.all(pixels == (225, 225, 225), axis=2)
    rows, columns = np.flatnonzero(grid.mean(1) > 0.2), np.flatnonzero(grid.mean(0) > 0.2)
    places = np.arange(size) * CELL + 8
    return pixels[rows[0] + places][:, columns[0] + places]


def test_the_picture_shows_hits_in_blue_and_confusions_in_red(tmp_path: Path) -> None:
    write_picture(RESULT, tmp_path / "confusion.png", "a title")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.format == "PNG"
        cells = corners(picture.convert("RGB"), 3)
    assert tuple(cells[2, 2]) == HIT  # all of its class
    red, _, blue = (int(channel) for channel in cells[0, 2])
    assert red > blue + 50
    red, _, blue = (int(channel) for channel in cells[0, 0])
    assert blue > red + 50
    for i, j in [(0, 1), (1, 1), (2, 0)]:
        assert tuple(cells[i, j]) == (255, 255, 255)


def test_the_more_frequent_confusion_is_darker() -> None:
    cells = corners(draw(Confusion(("a", "b", "c"), ((70, 1, 29), (0, 9, 0), (3, 0, 7))), "t"), 3)
    lightness = cells.astype(int).sum(axis=2)
    assert 765 > lightness[0, 1] > lightness[0, 2] > sum(MISS)
    assert tuple(cells[2, 0]) == MISS


def test_the_picture_has_room_for_long_names() -> None:
    short = draw(Confusion(("a", "b"), ((1, 0), (0, 1))), "t")
    long = draw(Confusion(("a" * 30, "b"), ((1, 0), (0, 1))), "t")
    assert long.width > short.width
    assert long.height > short.height
    assert np.array_equal(corners(long, 2), corners(short, 2))
