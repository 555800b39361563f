"""Regions of speech from probabilities: hysteresis, padding, and any size of blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.speech_regions import Region, RegionConfig, RegionFinder

TENTHS = RegionConfig(threshold=0.5, low=0.3, speech_s=0.2, silence_s=0.3, pad_s=0.1)


def found(text: str, config: RegionConfig = TENTHS) -> list[tuple[float, float]]:
    """Regions of windows of 0.1 s: ! is speech, ? probably still speech, - is none."""
    finder = RegionFinder(0.1, config)
    values = np.array([{"!": 1.0, "?": 0.4, "-": 0.1}[letter] for letter in text])
    regions = finder.push(values) + finder.finish()
    return [(round(r.start, 6), round(r.end, 6)) for r in regions]


@pytest.mark.parametrize(
    ("text", "regions"),
    [
        ("", []),
        ("-------", []),
        ("--!!!---", [(0.1, 0.6)]),
        ("--??!!??---", [(0.3, 0.9)]),
        ("????", []),
        ("--!---", []),  # too short
        ("--!?---", []),
        ("--!???---", [(0.1, 0.7)]),
        ("--!!--!!---", [(0.1, 0.9)]),  # the pause is too short
        ("--!!---!!---", [(0.1, 0.5), (0.6, 1.0)]),
        ("!!!", [(0.0, 0.3)]),  # no padding outside the recording
    ],
)
def test_regions_of_windows(text: str, regions: list[tuple[float, float]]) -> None:
    assert found(text) == regions


def test_padding_never_makes_regions_overlap() -> None:
    wide = RegionConfig(speech_s=0.1, silence_s=0.1, pad_s=0.3)
    assert found("-----!!-----!!----", wide) == [(0.2, 1.7)]
    assert found("-----!!------!!----", wide) == [(0.2, 1.0), (1.0, 1.8)]


def test_the_open_region_is_known() -> None:
    finder = RegionFinder(0.1, TENTHS)
    assert finder.open is None
    finder.push(np.array([0.0, 0.0, 1.0]))
    assert finder.open is None  # too short so far
    finder.push(np.array([1.0, 0.0]))
    assert finder.open is not None
    assert (finder.open.start, finder.open.end) == pytest.approx((0.1, 0.5))
    assert finder.seconds == pytest.approx(0.5)
    (region,) = finder.finish()
    assert (region.start, region.end) == pytest.approx((0.1, 0.5))
    assert finder.open is None


@given(
    st.lists(st.sampled_from([0.0, 0.32, 0.4, 0.6, 1.0]), max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
    st.sampled_from([0.0, 0.1, 0.3]),
)
def test_any_blocks_give_regions_in_order(
    values: list[float], places: list[int], pad: float
) -> None:
    config = RegionConfig(pad_s=pad, speech_s=0.0)
    whole, pieces = RegionFinder(0.1, config), RegionFinder(0.1, config)
    expected = whole.push(np.array(values)) + whole.finish()
    regions: list[Region] = []
    for part in np.split(np.array(values), sorted(min(p, len(values)) for p in places)):
        regions += pieces.push(part)
    regions += pieces.finish()
    assert [(r.start, r.end) for r in regions] == [(r.start, r.end) for r in expected]
    ends = [0.0] + [time for region in regions for time in (region.start, region.end)]
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise([*ends, 0.1 * len(values)]))
    for at, value in enumerate(values):
        middle = 0.1 * at + 0.05
        inside = any(region.start < middle < region.end for region in regions)
        assert inside or value < config.threshold
