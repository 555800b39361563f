"""Covers `asr/dataset/prefetch.py`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import asr.dataset.prefetch
from asr.dataset.cuts import whole
from asr.dataset.manifest import Utterance
from asr.dataset.prefetch import prefetch
from asr.dataset.speech_dataset import SpeechDataset
from asr.errors import AsrError, AudioError
from asr.text.normalise import TextConfig
from asr.text.tokens import BLANK_ID, TokenConfig, build_tokens

RATE = 16000
SAMPLES = [800, 1600, 400]
TEXTS = ["Yes no", "no", "  yes  YES "]
TOKENS = build_tokens(["yes no"], TokenConfig())


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).integers(-32768, 32768, samples).astype(np.int16)


def utterances(folder: Path) -> list[Utterance]:
    found = []
    for i, (samples, text) in enumerate(zip(SAMPLES, TEXTS, strict=True)):
        path = folder / f"{i}.wav"
        soundfile.write(path, noise(samples), RATE, subtype="PCM_16")
        found.append(Utterance(f"u{i}", path, text, samples / RATE, "ann"))
    return found


def dataset(folder: Path) -> SpeechDataset:
    return SpeechDataset(utterances(folder), TOKENS, TextConfig(), RATE)


def test_references_targets_and_durations(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    assert len(data) == 3
    assert data.references == ["yes no", "no", "yes yes"]
    assert [TOKENS.decode(data.target(i)) for i in range(len(data))] == data.references
    assert data.durations == [0.05, 0.1, 0.025]


def test_a_batch_holds_what_was_asked_in_that_order(tmp_path: Path) -> None:
    batch = dataset(tmp_path).batch([whole(2), whole(0, speed=0.9)])
    assert batch.ids == ["u2", "u0"]
    assert batch.speeds == [1.0, 0.9]
    assert batch.waves.lengths.tolist() == [400, 800]
    assert batch.waves.values.shape == (2, 800)
    assert batch.waves.values.dtype == torch.float32
    assert not batch.waves.values[0, 400:].any()
    for row, samples in zip(batch.waves.unpad(), [400, 800], strict=True):
        assert np.array_equal(row.numpy() * 32768, noise(samples))
    assert batch.targets.values.dtype == torch.int64
    assert [TOKENS.decode(row.tolist()) for row in batch.targets.unpad()] == ["yes yes", "yes no"]
    assert set(batch.targets.values[1, 7:].tolist()) <= {BLANK_ID}


def test_joined_utterances_are_played_one_after_another(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    batch = data.batch([whole(1), whole(2, 0)])
    assert batch.ids == ["u1", "u2+u0"]
    joined = batch.waves.unpad()[1].numpy() * 32768
    assert np.array_equal(joined, np.concatenate([noise(400), noise(800)]))
    assert TOKENS.decode(batch.targets.unpad()[1].tolist()) == "yes yes yes no"


def test_an_item_weighs_the_mean_of_its_utterances_by_their_tokens(tmp_path: Path) -> None:
    assert dataset(tmp_path).batch([whole(0)]).weights is None
    data = SpeechDataset(utterances(tmp_path), TOKENS, TextConfig(), RATE, [1.0, 0.5, 0.25])
    batch = data.batch([whole(1), whole(0, 1), whole(2)])
    counts = [len(data.target(i)) for i in range(3)]
    joined = (counts[0] + 0.5 * counts[1]) / (counts[0] + counts[1])
    assert batch.weights is not None
    assert batch.weights.tolist() == pytest.approx([0.5, joined, 0.25])
    part = data.share([whole(1), whole(2)], 1, 2)
    assert part.weights is not None
    assert part.weights.tolist() == [0.25]


def test_a_stretch_of_a_file_at_another_rate(tmp_path: Path) -> None:
    path = utterances(tmp_path)[1].audio
    stretch = Utterance("part", path, "no", 0.05, "ann", start=0.025, end=0.075)
    data = SpeechDataset([stretch], TOKENS, TextConfig(), RATE)
    assert np.array_equal(data.waveform(0), noise(1600)[400:1200])
    halved = SpeechDataset([stretch], TOKENS, TextConfig(), RATE // 2)
    assert len(halved.waveform(0)) == 400


def test_the_cache_changes_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = dataset(tmp_path)
    first = cached.batch([whole(0), whole(1)]).waves.values
    monkeypatch.setattr(
        asr.dataset.speech_dataset, "CACHE_BYTES", 1000
    )  # the shortest of the three fits
    uncached = dataset(tmp_path)
    uncached.batch([whole(0), whole(1), whole(2)])
    for path in tmp_path.glob("*.wav"):
        path.rename(path.with_suffix(".gone"))
    assert torch.equal(cached.batch([whole(0), whole(1)]).waves.values, first)
    assert np.array_equal(uncached.waveform(2), noise(400))
    with pytest.raises(AudioError, match=r"0\.wav"):
        uncached.waveform(0)
    for path in tmp_path.glob("*.gone"):
        path.rename(path.with_suffix(".wav"))
    assert torch.equal(uncached.batch([whole(0), whole(1)]).waves.values, first)


def test_an_unreadable_recording_is_named(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    (tmp_path / "1.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError, match=r"1\.wav"):
        data.batch([whole(0), whole(1)])


def test_a_transcript_the_units_cannot_write_is_named(tmp_path: Path) -> None:
    bad = [Utterance("u7", tmp_path / "x.wav", "maybe", 1.0, "ann")]
    with pytest.raises(AsrError, match=r"u7.*'abm'"):
        SpeechDataset(bad, TOKENS, TextConfig(), RATE)
    data = SpeechDataset(bad, None, TextConfig(case="upper"), RATE)  # for evaluation: any text
    assert data.references == ["MAYBE"]
    assert data.target(0) == []


def test_prefetch_keeps_the_order_and_stays_within_its_depth() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            asked.append(i)
            yield i

    results = []
    with prefetch(lambda i: i * i, items(), depth=3) as arriving:
        for result in arriving:
            results.append(result)
            # Waiting in the queue, in the hands of the thread, and the one asked for next.
            assert len(asked) <= len(results) + 3 + 1
    assert results == [i * i for i in range(20)]


def fetched(function: Callable[[Any], object], items: Iterable[object]) -> list[object]:
    with prefetch(function, items) as arriving:
        return list(arriving)


def test_prefetch_hands_on_none_and_nothing() -> None:
    assert fetched(lambda i: None, [1, 2]) == [None, None]
    assert fetched(abs, []) == []


def test_prefetch_raises_where_the_result_would_have_come() -> None:
    with prefetch(lambda i: 1 // i, [1, 1, 0, 1]) as results:
        assert [next(results), next(results)] == [1, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_prefetch_raises_what_its_items_raise() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    with prefetch(abs, items()) as results:
        assert next(results) == 1
        with pytest.raises(KeyError, match="lost"):
            next(results)


def test_a_thread_of_prefetch_that_dies_without_an_error_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asr.dataset.prefetch, "LOOK_S", 0.01)
    monkeypatch.setattr(asr.dataset.prefetch.threading.Thread, "run", lambda _: None)
    with (
        pytest.raises(AsrError, match="expected more from the thread that reads ahead, got its"),
        prefetch(abs, [1]) as results,
    ):
        next(results)


def test_prefetch_waits_for_a_slow_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asr.dataset.prefetch, "LOOK_S", 0.001)

    def slow(item: int) -> int:
        time.sleep(0.02)
        return item

    assert fetched(slow, [1, 2]) == [1, 2]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_thread_of_prefetch_has_ended_when_its_block_is_left(
    error: type[BaseException] | None,
) -> None:
    before = set(threading.enumerate())

    def leave() -> None:
        with prefetch(abs, iter(range(10**9))) as results:
            assert next(results) == 0
            assert len(set(threading.enumerate()) - before) == 1
            if error is not None:
                raise error

    with contextlib.nullcontext() if error is None else pytest.raises(error):
        leave()
    assert set(threading.enumerate()) == before


def test_the_thread_of_prefetch_ends_when_its_start_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(threading.Thread):
        def start(self) -> None:
            super().start()
            raise KeyboardInterrupt

    before = set(threading.enumerate())
    monkeypatch.setattr(asr.dataset.prefetch.threading, "Thread", Interrupted)
    with pytest.raises(KeyboardInterrupt), prefetch(abs, iter(range(10**9))):
        pytest.fail("the interrupt was lost")
    assert set(threading.enumerate()) == before
