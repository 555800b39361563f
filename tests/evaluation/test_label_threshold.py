"""The confidence from which on labels are reliable, by transcribed recordings."""

from __future__ import annotations

import pytest

from asr.errors import ReportError
from asr.evaluation.error_rate import ErrorCounts
from asr.evaluation.label_threshold import DevResults, confidence_threshold


def dev_results(*rows: tuple[float, int]) -> DevResults:
    """Recordings of ten words, with a confidence and the number of wrong words."""
    counts = [ErrorCounts(wrong, 0, 0, 10) for _, wrong in rows]
    return DevResults([confidence for confidence, _ in rows], counts, "words")


def test_the_lowest_confidence_with_few_enough_errors() -> None:
    rows = dev_results((0.5, 8), (0.99, 0), (0.9, 1), (0.8, 2), (0.7, 3))
    found = confidence_threshold(rows, 0.10)
    assert (found.confidence, found.kept, found.recordings) == (0.8, 3, 5)
    assert (found.counts.errors, found.counts.reference_length) == (3, 30)
    assert confidence_threshold(rows, 0.0).confidence == 0.99
    assert confidence_threshold(rows, 1.0).confidence == 0.5
    # A rate that rises above the target may fall below it again.
    rows = dev_results((0.9, 2), (0.8, 0), (0.7, 0), (0.6, 9))
    assert confidence_threshold(rows, 0.10).confidence == 0.7


def test_recordings_of_equal_confidence_are_kept_together() -> None:
    rows = dev_results((0.9, 0), (0.8, 0), (0.8, 10))
    assert confidence_threshold(rows, 0.1).confidence == 0.9
    assert confidence_threshold(rows, 0.4).kept == 3


def test_what_dev_promises_is_stated() -> None:
    found = confidence_threshold(dev_results(*[(0.9, 1), (0.8, 0)] * 20), 0.10)
    assert found.interval is not None
    assert "WER 5.0 % (20/400, 95 % " in str(found)
    assert "40 of 40 recordings" in str(found)


def test_no_confidence_is_enough() -> None:
    with pytest.raises(ReportError, match=r"at most 10.0 % errors .* got 20.0 % at least"):
        confidence_threshold(dev_results((0.9, 3), (0.8, 1)), 0.10)
    with pytest.raises(ReportError, match=r"got 20.0 % at least"):
        # The best are equally sure.
        confidence_threshold(dev_results((0.9, 3), (0.9, 1), (0.8, 9)), 0.10)
    with pytest.raises(ReportError, match="got no word in any recording"):
        confidence_threshold(dev_results(), 0.10)
