"""Long recordings: their speech in segments, recognised like short ones and joined.

Covers `asr/inference/batches.py`, `asr/inference/gpu_memory.py` and `asr/inference/progress.py`.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import torch

import asr
import asr.inference.long_form as long_form
from asr.audio.load import write_wav
from asr.audio.vad import speech_detector
from asr.decoding.decoder import Decoder
from asr.errors import ConfigError
from asr.inference.batches import Batches
from asr.inference.joining import join_words
from asr.inference.long_form import (
    Ended,
    Part,
    Reading,
    longest_piece,
    read_recordings,
    segments_of,
)
from asr.inference.time_formats import Word
from asr.inference.transcribe import transcribe
from asr.inference.transcript import Transcript
from asr.inference.word_times import Recognition
from asr.models.bundle import Bundle, load_bundle
from tests.inference.test_joining import spoken
from tests.tones import RATE, WORDS, one_thread, speak, trained_tones

batches = importlib.import_module("asr.inference.batches")


@pytest.fixture(autouse=True)
def _tones_are_speech(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Detectors of speech do not hear tones; the level does."""
    monkeypatch.setattr(
        long_form, "speech_detector", lambda rate, kind: speech_detector(rate, "energy")
    )
    with one_thread():
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    _, model = trained_tones(tmp_path_factory.getbasetemp())
    bundle = load_bundle(model)
    bundle.info["longest_seconds"] = 1.0  # tones are much shorter than words
    return bundle


def words(seed: int, count: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(list(WORDS), count).tolist())


def talk(texts: list[str], pause: float, seed: int = 0) -> np.ndarray:
    """Sentences, each after a pause of faint noise, and one at the end. Shape: [S]."""
    random = np.random.default_rng(seed)
    parts = []
    for number, text in enumerate([*texts, ""]):
        parts.append(random.normal(0, 0.005, round(pause * RATE)).astype(np.float32))
        if text:
            parts.append(speak(text, seed + number))
    return np.concatenate(parts)


TEXTS = [words(i, 2 + i % 4) for i in range(12)]
LONG = talk(TEXTS, 3.0)


def one(bundle: Bundle, source: object, **options: object) -> Transcript:
    (result,) = transcribe(bundle, [source], **options)  # type: ignore[arg-type, list-item]
    return result


def wrong(found: str, said: str) -> float:
    """Word error rate."""
    return float(jiwer.process_words(said, found).wer)


def test_a_long_recording_has_a_segment_for_each_sentence(bundle: Bundle, tmp_path: Path) -> None:
    write_wav(tmp_path / "long.wav", LONG, RATE)
    result = one(bundle, tmp_path / "long.wav", words=True)
    assert result.seconds == pytest.approx(len(LONG) / RATE)
    assert len(result.segments) == len(TEXTS)
    start = 0.0
    for segment, text in zip(result.segments, TEXTS, strict=True):
        start += 3.0
        assert segment.start == pytest.approx(start - 0.4, abs=0.15)
        start += len(speak(text)) / RATE
        assert segment.end == pytest.approx(start + 0.4, abs=0.2)
        assert all(segment.start <= w.start < w.end <= segment.end for w in segment.words)
        assert [w.text for w in segment.words] == segment.text.split()
        samples = LONG[round(segment.start * RATE) : round(segment.end * RATE)]
        assert one(bundle, samples, sample_rate=RATE).text == segment.text
    assert one(bundle, LONG, sample_rate=RATE).text == result.text
    assert one(bundle, LONG, sample_rate=RATE).words == ()


def test_speech_without_pauses_is_joined(bundle: Bundle) -> None:
    said = words(5, 160)
    samples = speak(said)
    assert len(samples) / RATE > long_form.WHOLE_S
    bundle.info["longest_seconds"] = 6.0
    result = one(bundle, samples, sample_rate=RATE, words=True)
    (segment,) = result.segments
    assert wrong(result.text, said) < 0.12  # recognised at once, it has no errors
    assert all(a.end <= b.start for a, b in itertools.pairwise(segment.words))
    assert one(bundle, samples, sample_rate=RATE).text == result.text


@pytest.mark.parametrize("seed", range(20))
def test_joining_settles_words_without_a_change(seed: int) -> None:
    """As joining every piece with all words before it."""
    words, parts, joined = spoken(seed, 60), list[Part](), tuple[Word, ...]()
    for number in range(8):
        start, end = 4.0 * number, 4.0 * number + 6.0
        own = tuple(w for w in words if start <= (w.start + w.end) / 2 < end)
        part = Part(0, None, start, np.empty(0), 6.0, 2.0 * (number > 0), number < 7, False)
        part.text, part.words = " ".join(w.text for w in own), own
        joined = join_words(joined, own, start, start + 2.0) if parts else own
        parts.append(part)
    found = segments_of(parts, timed=True)
    assert [w for segment in found for w in segment.words] == list(joined)


def test_the_pool_does_not_change_a_text(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [speak(TEXTS[0]), LONG, speak(TEXTS[1]), LONG[::-1].copy(), np.zeros(100, np.float32)]
    together = list(transcribe(bundle, sources, sample_rate=RATE, words=True))
    alone = [one(bundle, source, sample_rate=RATE, words=True) for source in sources]
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0.01)
    single = list(transcribe(bundle, sources, sample_rate=RATE, words=True))
    for other in (alone, single):
        assert [r.text for r in other] == [r.text for r in together]
        for a, b in zip(other, together, strict=True):
            assert [(w.start, w.end) for w in a.words] == [(w.start, w.end) for w in b.words]


def test_nothing_is_recognised_where_nobody_speaks(bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    for samples in (np.zeros(40 * RATE), random.normal(0, 0.05, 40 * RATE)):
        result = one(bundle, samples, sample_rate=RATE, words=True)
        assert (result.segments, result.seconds, result.error) == ((), 40.0, None)


@pytest.mark.parametrize("seconds", [25.0, 40.0])
def test_audio_that_stops_halfway_keeps_its_text(
    bundle: Bundle, tmp_path: Path, seconds: float
) -> None:
    samples = LONG[: round(seconds * RATE)].copy()
    samples[-RATE:] = np.nan
    soundfile.write(tmp_path / "bad.wav", samples, RATE, subtype="FLOAT")
    result = one(bundle, tmp_path / "bad.wav")
    assert result.error is not None
    assert "NaN" in result.error
    expected = one(bundle, LONG[: round(seconds * RATE) - RATE], sample_rate=RATE)
    assert result.text
    assert expected.text.startswith(result.text[: len(result.text) // 2])


def test_each_channel_of_a_conversation(bundle: Bundle, tmp_path: Path) -> None:
    silence = np.zeros_like(LONG)
    turn = len(LONG) // 2
    a, b = np.where(np.arange(len(LONG)) < turn, [LONG, silence], [silence, LONG])
    for samples in (np.stack([a, b], axis=1), np.stack([b, a], axis=1)[: turn + 10 * RATE]):
        soundfile.write(tmp_path / "call.wav", samples, RATE)
        with (tmp_path / "call.wav").open("rb") as file:
            result = one(bundle, file, channels="each")
        assert result == one(bundle, (tmp_path / "call.wav").read_bytes(), channels="each")
        starts = [segment.start for segment in result.segments]
        assert starts == sorted(starts)
        assert {segment.channel for segment in result.segments} == {1, 2}
        for segment in result.segments:
            column = samples[round(segment.start * RATE) : round(segment.end * RATE)]
            assert np.abs(column[:, (segment.channel or 0) - 1]).max() > 0.3
        assert wrong(result.text, one(bundle, tmp_path / "call.wav").text) < 0.3
    write_wav(tmp_path / "mono.wav", speak("up down"), RATE)
    (segment,) = one(bundle, tmp_path / "mono.wav", channels="each").segments
    assert segment.channel == 1


@pytest.mark.parametrize(("start", "end"), [(20.0, None), (0.0, 33.0), (6.0, 20.0)])
def test_times_count_from_the_beginning(bundle: Bundle, start: float, end: float | None) -> None:
    whole = one(bundle, LONG, sample_rate=RATE, words=True)
    part = one(bundle, LONG, sample_rate=RATE, words=True, start=start, end=end)
    last = whole.seconds if end is None else end
    assert part.seconds == pytest.approx(last)
    inside = [w for w in whole.words if w.start > start + 0.5 and w.end < last - 0.5]
    near = {(w.text, round(w.start, 1)) for w in part.words}
    near |= {(text, round(second + d, 1)) for text, second in near for d in (-0.1, 0.1)}
    missing = [w for w in inside if (w.text, round(w.start, 1)) not in near]
    assert len(missing) <= 0.2 * len(inside)


def test_start_end_and_channels_are_checked(bundle: Bundle) -> None:
    for options in ({"start": -1.0}, {"start": 5.0, "end": 5.0}, {"channels": "left"}):
        with pytest.raises(ConfigError, match=r"^expected"):
            transcribe(bundle, [LONG], **options)


def test_progress_is_in_seconds_of_all_files(bundle: Bundle, tmp_path: Path) -> None:
    write_wav(tmp_path / "long.wav", LONG, RATE)
    write_wav(tmp_path / "short.wav", LONG[: 10 * RATE], RATE)
    told: list[tuple[float, float]] = []
    sources: list[asr.Source] = [
        tmp_path / "long.wav",
        tmp_path / "absent.wav",
        LONG,
        tmp_path / "short.wav",
    ]
    results = transcribe(
        bundle,
        sources,
        sample_rate=RATE,
        progress=lambda done, total: told.append((done, total)),
    )
    seconds = 2 * len(LONG) / RATE + 10
    assert sum(result.seconds for result in results) == pytest.approx(seconds)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({done for done, _ in told}) >= 5
    assert all(total == pytest.approx(seconds, rel=0.01) for _, total in told)
    assert told[-1] == pytest.approx((seconds, seconds))


def test_a_piece_is_as_long_as_the_model_was_trained_for() -> None:
    assert longest_piece({}) == 20.0
    assert longest_piece({"longest_seconds": 12.5}) == 12.5
    assert longest_piece({"longest_seconds": 300}) == 30.0
    assert longest_piece({"longest_seconds": 0.8}) == long_form.SHORTEST_PIECE_S
    assert longest_piece({"longest_seconds": "long"}) == 20.0


def test_pieces_are_read_before_the_end() -> None:
    endless = itertools.cycle([LONG])
    events = read_recordings(endless, Reading(RATE, 6.0, sample_rate=RATE))
    first = list(itertools.islice(events, 40))
    ended = [event for event in first if isinstance(event, Ended)]
    assert ended[0].seconds == pytest.approx(len(LONG) / RATE)


def test_a_batch_that_does_not_fit_is_halved(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def limited(*arguments: Any) -> list[Recognition]:
        waves = arguments[2]
        sizes.append(len(waves))
        if sizes[-1] > 3:
            raise torch.cuda.OutOfMemoryError
        return recognise(*arguments)

    expected = [r.text for r in transcribe(bundle, [LONG], sample_rate=RATE)]
    recognise = batches.recognize_texts
    monkeypatch.setattr(batches, "recognize_texts", limited)
    assert [r.text for r in transcribe(bundle, [LONG], sample_rate=RATE)] == expected
    assert max(sizes) > 3
    assert sizes.count(max(sizes)) == 1  # the next batches are smaller


def test_batches_are_of_similar_length_and_limited(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, int]] = []

    def seen(*arguments: Any) -> list[Recognition]:
        waves = arguments[2]
        shapes.append((len(waves), max(map(len, waves))))
        return [Recognition("", ())] * len(waves)

    monkeypatch.setattr(batches, "recognize_texts", seen)
    pool = Batches(bundle, Decoder(bundle.tokens), words=False, batch_seconds=10.0)
    lengths = np.random.default_rng(0).uniform(0.1, 3.0, 100)
    for number, seconds in enumerate(lengths):
        part = long_form.Part(
            number,
            None,
            0.0,
            np.zeros(round(seconds * RATE), np.float32),
            seconds,
            0.0,
            False,
            True,
        )
        pool.add(part)
    assert pool.is_full
    assert len(list(pool.recognise())) == len(shapes)
    assert pool.seconds == 0
    assert sum(count for count, _ in shapes) == 100
    assert all(count * length <= 10.1 * RATE for count, length in shapes)
    assert sum(count * length for count, length in shapes) < 1.15 * RATE * lengths.sum()
