"""Speech of a long recording in pieces: all of it, none too long, in bounded memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.audio.speech_regions import RegionConfig
from asr.inference.speech_pieces import OVERLAP_S, Piece, speech_pieces

RATE = 1000
CONFIG = RegionConfig(speech_s=0.1, silence_s=0.5, pad_s=0.2)


class Loud:
    """A detector that takes every loud window of 0.1 s for speech."""

    window_s = 0.1

    def __init__(self) -> None:
        self._waiting = np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        samples = np.concatenate([self._waiting, samples])
        whole = len(samples) // 100 * 100
        self._waiting = samples[whole:]
        return (np.abs(samples[:whole].reshape(-1, 100)).max(axis=1) > 0.5).astype(np.float32)

    def finish(self) -> np.ndarray:
        return self.push(np.zeros(-len(self._waiting) % 100, np.float32))


def pieces_of(blocks: Iterator[np.ndarray] | list[np.ndarray], longest: float) -> list[Piece]:
    detector = Loud()
    found = speech_pieces(blocks, RATE, longest, detector, CONFIG)  # type: ignore[arg-type]
    return [piece for piece in found if piece is not None]


def recording(seconds: list[float], seed: int = 0) -> np.ndarray:
    """Faint noise and loud noise in turn. Shape: [S]."""
    random = np.random.default_rng(seed)
    parts = [
        random.uniform(0.6, 1.0, round(length * RATE)) if number % 2 else
        random.uniform(0.0, 0.1, round(length * RATE))
        for number, length in enumerate(seconds)
    ]  # fmt: skip
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


@given(
    st.lists(st.floats(0.2, 12.0), max_size=8),
    st.lists(st.integers(0, 60_000), max_size=6),
    st.sampled_from([6.0, 6.4, 20.0]),
)
def test_pieces_hold_all_speech_and_are_not_too_long(
    seconds: list[float], places: list[int], longest: float
) -> None:
    samples = recording(seconds)
    found = pieces_of([samples], longest)
    heard = np.zeros(len(samples), bool)
    for piece in found:
        assert 0 < len(piece.samples) <= longest * RATE + 1
        first = round(piece.start * RATE)
        assert np.array_equal(samples[first : first + len(piece.samples)], piece.samples)
        heard[first : first + len(piece.samples)] = True
    assert heard[np.abs(samples) > 0.5].all()
    for before, after in itertools.pairwise(found):
        end = before.start + len(before.samples) / RATE
        assert before.continues == (after.overlap > 0)
        assert after.start == pytest.approx(end - after.overlap, abs=0.002) or not after.overlap
        assert after.start >= end - after.overlap - 0.002
    blocks = np.split(samples, sorted(min(place, len(samples)) for place in places))
    others = pieces_of(list(blocks), longest)
    assert sum(p.overlap == 0 for p in others) == sum(p.overlap == 0 for p in found)


def test_it_is_cut_at_the_quietest_moment() -> None:
    samples = recording([0.0, 9.0])
    samples[4600:4660] *= 0.02  # too short for a pause
    first, second = pieces_of([samples], 6.0)
    assert first.start + len(first.samples) / RATE == pytest.approx(4.63 + 1.0, abs=0.05)
    assert second.start == pytest.approx(4.63 - 1.0, abs=0.05)
    assert second.overlap == pytest.approx(min(OVERLAP_S, 2.0))


@pytest.mark.parametrize("loud", [True, False])
def test_memory_does_not_grow_with_the_length(loud: bool) -> None:
    block = recording([0.0, 10.0] if loud else [10.0])

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in speech_pieces(itertools.repeat(block, count), RATE, 6.0, Loud(), CONFIG):  # type: ignore[arg-type]
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(60) < 1.2 * peak(6) + 20_000
