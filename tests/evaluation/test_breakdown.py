"""Covers `asr/evaluation/confusions.py`."""

from __future__ import annotations

import pytest

from asr.evaluation.breakdown import (
    Column,
    break_down,
    by_name,
    label_utterances,
    left_out,
    number_labels,
)
from asr.evaluation.confusions import count_confusions, errors_by_frequency
from asr.evaluation.error_rate import ErrorCounts, score
from asr.evaluation.utterance import Details, shown

SCORES = score(
    {"a": "one two three", "b": "four", "c": "five six", "d": "seven eight"},
    {"a": "one too", "b": "four", "c": "five five six", "d": "seven ate"},
)
DETAILS = {
    "a": Details(speaker="eve", seconds=3.0, snr=10.0, columns={"gender": "f", "file": "1"}),
    "b": Details(speaker="eve", seconds=0.5, snr=30.0, columns={"gender": "f", "file": "1"}),
    "c": Details(speaker="ann", seconds=1.0, snr=20.0, columns={"gender": "f", "file": "1"}),
    "d": Details(speaker="bob", seconds=1.0, snr=None, columns={"gender": "m", "file": "1"}),
}


def test_every_breakdown_adds_up_to_the_whole() -> None:
    labels = label_utterances(SCORES.utterances, DETAILS)
    for breakdown in break_down(SCORES.utterances, labels):
        words = sum((group.words for group in breakdown.groups), ErrorCounts())
        characters = sum((group.characters for group in breakdown.groups), ErrorCounts())
        assert (words, characters) == (SCORES.words, SCORES.characters), breakdown.title
        assert sum(group.utterances for group in breakdown.groups) == 4


def test_what_a_manifest_says_is_a_breakdown_unless_it_is_the_same_for_all() -> None:
    labels = label_utterances(SCORES.utterances, DETAILS)
    assert labels["speaker"].labels == ("eve", "eve", "ann", "bob")
    assert labels["speaker"].names == ("ann", "bob", "eve")
    assert labels["gender"].labels == ("f", "f", "f", "m")
    assert "file" not in labels
    assert list(labels) == [
        "speaker",
        "length, words",
        "duration, s",
        "pace, words per second",
        "signal to noise, dB",
        "gender",
    ]


def test_pace_and_length_come_from_the_reference() -> None:
    labels = label_utterances(SCORES.utterances, DETAILS)
    assert labels["length, words"].labels == ("3", "1", "2", "2")
    assert labels["pace, words per second"].labels == ("1", "2", "2", "2")
    assert labels["signal to noise, dB"].labels == ("10", "30", "20", "unknown")
    assert labels["signal to noise, dB"].names == ("10", "20", "30", "unknown")


def test_a_column_called_as_one_of_ours_is_told_apart() -> None:
    details = {
        name: Details(speaker="s" + name, columns={"speaker": "room " + name}) for name in "abcd"
    }
    labels = label_utterances(SCORES.utterances, details)
    assert labels["speaker"].labels[0] == "sa"
    assert labels["speaker (manifest)"].labels[0] == "room a"


def test_texts_alone_have_lengths_alone() -> None:
    assert list(label_utterances(SCORES.utterances, {})) == ["length, words"]


def test_groups_keep_the_order_of_their_names() -> None:
    column = Column(("10 to 12", "unknown", "2 to 9", "2 to 9"), ("2 to 9", "10 to 12", "unknown"))
    (breakdown,) = break_down(SCORES.utterances, {"n": column})
    assert [group.label for group in breakdown.groups] == ["2 to 9", "10 to 12", "unknown"]
    # Of two utterances nobody knows how far the next would lie off.
    assert breakdown.groups[0].interval is None


def test_names_that_look_like_numbers_are_names() -> None:
    assert by_name(["nan", "zoe", "1 to 3", "inf", ""]).names == (
        "1 to 3",
        "inf",
        "nan",
        "zoe",
        "unknown",
    )


def test_numbers_of_a_manifest_fall_into_classes_and_many_names_are_left_out() -> None:
    names = [f"u{i}" for i in range(180)]
    scores = score(dict.fromkeys(names, "yes"), dict.fromkeys(names, "yes"))
    details = {
        name: Details(columns={"age": str(20 + i % 60), "take": f"take {i}", "room": str(i % 3)})
        for i, name in enumerate(names)
    }
    labels = label_utterances(scores.utterances, details)
    assert labels["age"].names == ("20 to 34", "35 to 49", "50 to 64", "65 to 79")
    assert labels["room"].names == ("0", "1", "2")
    assert "take" not in labels
    assert left_out(details) == {"take": 180}


def test_numbers_of_a_manifest_are_in_their_order_and_whole_ones_are_not_rounded() -> None:
    names = [f"u{i}" for i in range(40)]
    scores = score(dict.fromkeys(names, "yes"), dict.fromkeys(names, "yes"))
    details = {
        name: Details(
            columns={
                "dose": ["5", "10", "60", ""][i % 4],
                "year": str(1951 + i),
                "session": str(128100 + i),
            }
        )
        for i, name in enumerate(names)
    }
    labels = label_utterances(scores.utterances, details)
    assert labels["dose"].names == ("5", "10", "60", "unknown")
    assert labels["year"].names == (
        "1951 to 1960",
        "1961 to 1970",
        "1971 to 1980",
        "1981 to 1990",
    )
    assert labels["session"].names[0] == "128100 to 128109"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, 2, 3, 4], ["1", "2", "3", "4"]),
        ([5, 5, 5, 5], ["5"] * 4),
        ([1, 1, 1, 9], ["1", "1", "1", "9"]),
        ([None, None], ["unknown"] * 2),
        ([float("nan"), 1.0], ["unknown", "1"]),
        ([0.12345, 0.12349, 2.0, 3.0], ["0.123", "0.123", "2", "3"]),
    ],
)
def test_classes_of_numbers(values: list[float | None], labels: list[str]) -> None:
    assert number_labels(values) == labels


def test_classes_hold_about_as_many_each() -> None:
    labels = number_labels([float(i) for i in range(1000)])
    assert sorted(labels.count(name) for name in set(labels)) == [250] * 4


def test_confusions_are_counted_by_kind() -> None:
    scores = score(
        {"a": "one two three", "b": "one two", "c": "six"},
        {"a": "one too three", "b": "uh one too", "c": ""},
    )
    found = count_confusions(scores.utterances)
    assert found.substituted == (("two", "too", 2),)
    assert found.deleted == (("six", 1),)
    assert found.inserted == (("uh", 1),)


def test_errors_by_frequency_leave_insertions_out() -> None:
    scores = score({"a": "one one two"}, {"a": "uh one one"})
    rows = errors_by_frequency(scores.utterances, {"one": 1000, "uh": 5})
    assert [(row.label, row.words, row.wrong, row.rate) for row in rows] == [
        ("never", 1, 1, 1.0),
        ("1000 times and more", 2, 0, 0.0),
    ]
    low, high = rows[1].interval
    assert low < 1e-9 < 0.5 < high


def test_extra_values_as_labels() -> None:
    assert [shown(value) for value in ("f", 3, 2.5, False, None, [1])] == [
        "f",
        "3",
        "2.5",
        "false",
        "",
        "[1]",
    ]
