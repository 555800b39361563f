"""Live recognition: utterances are found, grow and end; nothing is lost, invented or kept.

Covers `asr/inference/live_clock.py`, `asr/inference/live_utterance.py`,
`asr/inference/live_stream.py`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import asr.inference.live
from asr.audio.load import load_audio
from asr.audio.speech_regions import RegionConfig
from asr.audio.vad import SpeechDetector, speech_detector
from asr.decoding.decoder import Decoder
from asr.errors import AudioError, StreamError
from asr.inference import live_utterance
from asr.inference.live import KEPT_S, LONGEST_S, Live, _Session, live
from asr.inference.live_clock import Clock, Latencies
from asr.inference.live_stream import StreamedUtterance
from asr.inference.live_utterance import LiveText
from asr.inference.recognizer import Recognizer, load_recognizer
from tests.inference.test_text_stream import decoder, streaming_bundle
from tests.tones import RATE, one_thread, speak

TEXTS = ("low high up", "down down low", "up high")
NOISE = 0.005  # as in `speak`


def quiet(seconds: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(0, NOISE, round(seconds * RATE)).astype(np.float32)


def talk(texts: Sequence[str] = TEXTS, pause: float = 1.2) -> np.ndarray:
    """Utterances between pauses."""
    pieces = [quiet(pause)]
    for number, text in enumerate(texts):
        pieces += [speak(text, number), quiet(pause, number + 1)]
    return np.concatenate(pieces)


@pytest.fixture(autouse=True)
def _energy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tones are no speech for the other detectors."""

    def detector(rate: int) -> SpeechDetector:
        return speech_detector(rate, "energy")

    monkeypatch.setattr(asr.inference.live, "speech_detector", detector)
    with one_thread():
        yield


@pytest.fixture(scope="module")
def whole(tones: tuple[dict[str, Path], Path]) -> Recognizer:
    """A model that needs whole utterances."""
    return load_recognizer(tones[1])


@pytest.fixture(scope="module")
def streaming() -> Recognizer:
    bundle = streaming_bundle()
    return Recognizer(bundle, Decoder(bundle.tokens))


class Ticks:
    """Seconds of work in which only recognition takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, share: float = 0.0) -> None:
        """`share` of the duration of what is recognized."""
        self.now = 0.0
        self.count = 0
        original = live_utterance.recognize_waves

        def recognize(model, decoder, waves):  # type: ignore[no-untyped-def]
            self.now += share * len(waves[0]) / model.sample_rate
            self.count += 1
            return original(model, decoder, waves)

        monkeypatch.setattr(live_utterance, "recognize_waves", recognize)

    def clock(self) -> Clock:
        return Clock(lambda: self.now)


def events(
    recognizer: Recognizer, samples: np.ndarray, size: int = 800, clock: Clock | None = None
) -> list[LiveText]:
    blocks = [samples[at : at + size] for at in range(0, len(samples), size)]
    return list(live(recognizer.bundle, recognizer.decoder, blocks, RATE, clock))


def finals(found: Sequence[LiveText]) -> list[str]:
    return [event.text for event in found if event.is_final]


def alone(recognizer: Recognizer, samples: np.ndarray, found: Sequence[LiveText]) -> list[str]:
    """The texts of the same stretches of audio as recordings."""
    ends = [(round(e.start * RATE), round(e.end * RATE)) for e in found if e.is_final]
    pieces = [samples[start:end] for start, end in ends]
    return [result.text for result in recognizer.transcribe(pieces, RATE, words=False)]


def test_each_utterance_grows_and_ends_at_its_pause(
    whole: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = Ticks(monkeypatch, 0.1)
    found = events(whole, talk(), clock=ticks.clock())
    assert finals(found) == alone(whole, talk(), found)
    assert len(finals(found)) == 3
    begins = 1.2
    for text, event in zip(TEXTS, (event for event in found if event.is_final), strict=True):
        seconds = len(speak(text)) / RATE
        assert begins - 0.3 < event.start < begins + 0.1
        assert begins + seconds - 0.1 < event.end < begins + seconds + 0.3
        assert " ".join(word.text for word in event.words) == event.text
        for word, late in zip(event.words, event.latencies, strict=True):
            assert event.start <= word.start < word.end <= event.end + 0.01
            assert all(event.start <= unit.start for unit in word.units)
            assert word.confidence is not None
            # A pause of 0.6 s, and the rest of the utterance.
            assert 0.5 < late < begins + seconds + 0.9 - word.end
        begins += seconds + 1.2
    partial = [event for event in found if not event.is_final]
    assert len(partial) >= 4
    assert all(event.partial and not event.text for event in partial)


@pytest.mark.parametrize("size", [1, 37, 5000, 10**6])
def test_the_size_of_the_blocks_changes_nothing(
    whole: Recognizer, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    samples = talk(TEXTS[:1])
    ticks = Ticks(monkeypatch)
    assert events(whole, samples, size, ticks.clock()) == events(whole, samples, 800, ticks.clock())


def test_a_pause_ends_with_the_text_that_it_began_with(
    whole: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The final text of an utterance needs no work after the pause."""
    ticks = Ticks(monkeypatch, 0.2)
    found = events(whole, talk(TEXTS[:1]), clock=ticks.clock())
    last = found[-1]
    assert last.is_final
    assert found[-2].partial == last.text
    at = last.latencies[-1] + last.words[-1].end
    assert at == pytest.approx(round(at, 1), abs=1e-6)  # when samples came, without further work


def test_silence_noise_and_a_click_give_no_text(whole: Recognizer) -> None:
    click = quiet(8.0)
    click[30000:30040] += 0.8
    for samples in (np.zeros(5 * RATE, np.float32), quiet(8.0), click):
        assert events(whole, samples) == []


def test_a_slow_machine_drops_partial_texts_and_no_final_one(
    whole: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["low high up down low up high down up low"] * 3
    counts = []
    for share in (0.01, 0.5, 2.0):
        ticks = Ticks(monkeypatch, share)
        clock = ticks.clock()
        found = events(whole, talk(texts), clock=clock)
        assert len(finals(found)) == 3
        assert finals(found) == alone(whole, talk(texts), found)
        counts.append(len(found))
        if share < 1:
            assert clock.busy < clock.delivered
            assert clock.lag < 0.5
    assert counts[0] > counts[1] > counts[2]


def test_the_end_of_the_input_ends_the_utterance(whole: Recognizer) -> None:
    samples = np.concatenate([quiet(1.0), speak("up down")])
    (last,) = [event for event in events(whole, samples) if event.is_final]
    assert [last.text] == alone(whole, samples, [last])
    assert last.end == pytest.approx(len(samples) / RATE, abs=0.1)
    assert events(whole, samples[:0]) == []
    assert events(whole, samples[:1]) == []


def test_an_error_of_the_source_comes_after_the_last_utterance(whole: Recognizer) -> None:
    samples = np.concatenate([quiet(1.0), speak("up down")])

    def blocks() -> Iterator[np.ndarray]:
        yield samples
        raise AudioError("unplugged")

    found = whole.live(blocks(), RATE)
    texts: list[LiveText] = []
    with pytest.raises(AudioError, match="unplugged"):
        texts.extend(found)  # extends by those before the error
    assert finals(texts) == finals(events(whole, samples)) != []
    assert list(found) == []


def test_other_rates_and_types_of_samples(whole: Recognizer) -> None:
    samples = np.repeat(talk(TEXTS[:2]), 2)
    steps = (samples * 32767).astype(np.int16)
    for values in (samples, steps, samples.astype(np.float64)):
        assert len(finals(list(whole.live([values], 2 * RATE)))) == 2
    assert len(finals(list(whole.live([talk(TEXTS[:1])])))) == 1


def test_wrong_rates_and_samples_are_refused(whole: Recognizer) -> None:
    with pytest.raises(StreamError, match="expected a sample_rate"):
        whole.live([], 5)
    for samples in (np.zeros((4, 2)), np.full(4, np.nan), "text", None):
        with pytest.raises(StreamError, match="expected"):
            list(whole.live([samples], RATE))


def test_speech_without_a_pause_is_cut_between_words(
    whole: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(4)
    text = " ".join(random.choice(["low", "high", "up", "down"], 60))
    samples = np.concatenate([quiet(1.0), speak(text)])
    monkeypatch.setattr(asr.inference.live, "LONGEST_S", 3.0)
    found = [event for event in events(whole, samples) if event.is_final]
    assert finals(found) == alone(whole, samples, found)
    for event in found[:-1]:
        at = round(event.end * RATE)
        assert np.abs(samples[at - 40 : at + 40]).max() < 0.1  # no tone
    assert len(found) >= 4
    assert max(event.end - event.start for event in found) <= 3.0
    for before, after in itertools.pairwise(found):
        assert abs(before.end - after.start) < 0.001  # nothing is left out


def test_a_long_utterance_ends_at_a_short_pause(
    whole: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = talk(["low high up", "down low"], pause=0.45)
    assert len(finals(events(whole, samples))) == 1
    monkeypatch.setattr(asr.inference.live, "LONG_S", 0.5)
    found = events(whole, samples)
    assert len(finals(found)) == 2
    assert finals(found) == alone(whole, samples, found)


@pytest.mark.parametrize("kind", ["greedy", "ngram", "lexicon"])
def test_a_streaming_model_gives_its_text_as_it_becomes_final(
    streaming: Recognizer, kind: str
) -> None:
    recognizer = replace(streaming, decoder=decoder(kind, streaming.bundle))
    samples = talk()
    read = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal read
        for read in range(800, len(samples) + 1, 800):
            yield samples[read - 800 : read]

    before, count = LiveText("", "", 0.0, 0.0, False), 0
    for event in recognizer.live(blocks()):
        assert event.text.startswith(before.text)
        before = event
        if event.is_final:
            # The stream has heard the pause as well.
            heard = samples[round(event.start * RATE) : read]
            assert event.text == recognizer.transcribe(heard, RATE, words=False).text
            assert event.text == " ".join(word.text for word in event.words)
            assert all(0 <= late < 60 for late in event.latencies)
            assert len(event.latencies) == len(event.words)
            before, count = replace(before, text=""), count + 1
    assert count == 3


def test_a_streamed_utterance_without_a_pause_is_cut(
    streaming: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asr.inference.live, "LONGEST_S", 2.0)
    samples = np.concatenate([quiet(1.0), speak("low high up down low up " * 5)])
    found = [event for event in events(streaming, samples) if event.is_final]
    assert len(found) >= 3
    assert max(event.end - event.start for event in found) < 2.2
    assert found[-1].end > len(samples) / RATE - 0.3


def test_a_decoder_that_needs_whole_utterances_has_them(streaming: Recognizer) -> None:
    every = decoder("neural", streaming.bundle)
    settings = every.config.rescore.model_copy(update={"every_step": True})
    every = replace(every, config=every.config.model_copy(update={"rescore": settings}))
    recognizer = replace(streaming, decoder=every)
    found = events(recognizer, talk(TEXTS[:1]))
    assert found[-1].is_final
    assert all(not event.text for event in found[:-1])


@pytest.mark.parametrize("kind", ["pauses", "speech"])
def test_memory_does_not_grow(streaming: Recognizer, kind: str) -> None:
    """Ten minutes, with an utterance a minute or with speech that never pauses."""
    clock = Clock()
    session = _Session(streaming.bundle, streaming.decoder, clock)
    minute = np.concatenate([speak("low high"), quiet(59.0)])[: 60 * RATE]
    if kind == "speech":
        minute = np.resize(speak("low high up down " * 30), 60 * RATE)
    step = RATE // 2
    longest, seconds = 0, 600 if kind == "pauses" else 60
    for second in np.arange(0, seconds, 0.5):
        at = round(second % 60 * RATE)
        clock.deliver(0.5)
        for _ in session.push(minute[at : at + step]):
            pass
        clock.rest()
        longest = max(longest, len(session._audio._samples))
        if isinstance(session._utterance, StreamedUtterance):
            assert sum(map(len, session._utterance._scores)) < 100 * LONGEST_S
    limit = KEPT_S if kind == "pauses" else LONGEST_S
    assert longest <= (limit + 1.5) * RATE


def test_pushed_samples_give_the_same_texts(
    whole: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks, samples = Ticks(monkeypatch), np.repeat(talk(), 2)
    pushed = Live(whole.bundle, whole.decoder, 2 * RATE, ticks.clock())
    texts = [list(pushed.push(samples[at : at + 777])) for at in range(0, len(samples), 777)]
    found = [*itertools.chain(*texts), *pushed.finish()]
    assert found == list(live(whole.bundle, whole.decoder, [samples], 2 * RATE, ticks.clock()))
    assert len(finals(found)) == 3
    with pytest.raises(StreamError, match="expected mono samples"):
        list(pushed.push(np.zeros((2, 2))))


def test_the_pause_that_ends_an_utterance_can_be_set(whole: Recognizer) -> None:
    for pause, count in ((0.6, 3), (2.0, 1)):
        regions = RegionConfig(silence_s=pause)
        pushed = Live(whole.bundle, whole.decoder, RATE, regions=regions)
        assert len(finals([*pushed.push(talk()), *pushed.finish()])) == count


def test_the_clock_runs_as_if_samples_came_in_real_time() -> None:
    now = 100.0
    clock = Clock(lambda: now)
    assert clock.now() == 0.0
    clock.deliver(0.5)  # arrives at 0.5
    now += 0.25
    assert clock.now() == 0.75
    clock.rest()
    now += 50.0  # the source pauses
    assert clock.now() == 0.75
    clock.deliver(0.5)  # arrives at 1.0, when everything is done
    assert clock.lag == 0
    now += 2.0
    clock.rest()
    clock.deliver(0.5)  # arrives at 1.5; the work on it begins at 3.0
    assert clock.lag == 1.5
    now += 0.5
    assert clock.now() == 3.5
    clock.rest()
    assert (clock.delivered, clock.busy) == (1.5, 2.75)
    clock.delay(0.5)  # for other work
    clock.deliver(0.5)
    assert (clock.lag, clock.now()) == (2.0, 4.0)
    clock.rest()
    assert clock.busy == 2.75


def test_latencies_are_counted() -> None:
    latencies = Latencies()
    assert (len(latencies), latencies.quantile(0.5), latencies.largest) == (0, 0.0, 0.0)
    values = np.random.default_rng(0).uniform(0, 3, 1001)
    for value in [*values, 500.0]:
        latencies.add(float(value))
    assert len(latencies) == 1002
    assert latencies.largest == 500.0
    for share in (0.1, 0.5, 0.9):
        assert abs(latencies.quantile(share) - np.quantile(values, share)) < 0.02


def test_real_utterances_are_recognized_as_alone(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the detector that is installed and the included model."""
    monkeypatch.undo()
    recognizer = load_recognizer()
    paths = sorted((shared_data / "an4").rglob("an4test_clstk/fcaw/*.sph"))[:2]
    assert len(paths) == 2
    alone = [result.text for result in recognizer.transcribe(paths, words=False)]
    random = np.random.default_rng(0)
    pieces = []
    for path in paths:
        pieces += [random.normal(0, 1e-4, 20000).astype(np.float32), load_audio(path, 16000)]
    found = finals(list(recognizer.live([np.concatenate(pieces)], 16000)))
    assert len(found) == 2
    words = [re.sub(r"\s+", " ", text) for text in found]
    assert sum(a != b for a, b in zip(words, alone, strict=True)) <= 1
