"""One queue for all recordings, decoded in processes that may die.

Covers `asr/serving/engine.py`, `asr/serving/decoding_pool.py` and
`asr/serving/decoding_worker.py`.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from asr.errors import AsrError, AudioError, LanguageModelError
from asr.inference.long_form import Part, Reading
from asr.inference.recognizer import Recognizer
from asr.inference.transcript import Segment, Transcript
from asr.serving.decoding_pool import DecodingPool, _Worker
from asr.serving.engine import Busy, Engine, Options, TooLong, UnknownModel
from asr.serving.limits import Limits
from tests.tones import RATE, sentence, speak

LIMITS = Limits(decoders=1, decoding_s=10)
QUIET = np.zeros(2 * RATE, np.float32)
LONG = np.concatenate([p for seed in range(12) for p in (speak(sentence(seed), seed), QUIET)])


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def use(
    recognizer: Recognizer, work: Callable[[Engine], Awaitable[Any]], limits: Limits = LIMITS
) -> Any:
    """What some work with an engine returns."""

    before = children()  # of a server that other tests share

    async def run() -> Any:
        engine = Engine({"tones": recognizer}, limits, "energy")
        engine._warm_up = lambda: None  # type: ignore[method-assign]
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()
            assert children() <= before

    return asyncio.run(run())


def children() -> set[psutil.Process]:
    """The processes that decode."""
    found = psutil.Process().children()
    return {p for p in found if any("decoding_worker" in part for part in p.cmdline())}


def test_many_at_once_have_the_texts_that_each_has_alone(recognizer: Recognizer) -> None:
    contents = [wav(speak(sentence(seed), seed)) for seed in range(30)]

    async def work(engine: Engine) -> tuple[list[Transcript], int]:
        texts = await asyncio.gather(*(engine.transcribe("tones", c) for c in contents))
        return texts, engine.batches

    found, batches = use(recognizer, work)
    assert [row.text for row in found] == [recognizer.transcribe(c).text for c in contents]
    for ours, own in zip(found[3].words, recognizer.transcribe(contents[3]).words, strict=True):
        assert (ours.text, ours.start, ours.end) == (own.text, own.start, own.end)
    assert batches < 25


def test_a_long_recording_comes_in_segments_and_does_not_hold_up_short_ones(
    recognizer: Recognizer,
) -> None:
    order: list[str] = []

    async def work(engine: Engine) -> Transcript:
        def note(segment: Segment) -> None:
            order.append(segment.text)
            if len(order) == 1:
                short = asyncio.ensure_future(engine.transcribe("tones", speak("low")))
                short.add_done_callback(lambda done: order.append("short"))

        result = await engine.transcribe("tones", wav(np.tile(LONG, 6)), on_segment=note)
        return result

    result = use(recognizer, work, replace(LIMITS, decoders=2))
    assert "short" in order[: len(order) // 2]
    assert [text for text in order if text != "short"] == [s.text for s in result.segments]


def test_a_recording_that_begins_with_a_short_utterance_is_long() -> None:
    async def run() -> bool:
        pool = DecodingPool(replace(LIMITS, long_recordings=1))
        try:
            reading = Reading(RATE, 20.0, sample_rate=RATE, detector="energy")
            async with pool.reading(np.tile(LONG, 2), reading) as events:
                first = await anext(events)
                assert isinstance(first, Part)  # it has ended within the first block
                return pool._long.locked()
        finally:
            await pool.close()

    assert asyncio.run(run())


def test_samples_are_recognised_like_a_file(recognizer: Recognizer) -> None:
    samples = speak("up down")

    async def work(engine: Engine) -> list[Transcript]:
        return [
            await engine.transcribe("tones", samples, Options(sample_rate=RATE)),
            await engine.transcribe("tones", samples, Options(words=False)),
        ]

    timed, plain = use(recognizer, work)
    assert timed.text == plain.text == recognizer.transcribe(samples, RATE).text
    assert (len(timed.words), plain.words) == (2, ())


def test_what_cannot_be_done_is_an_error(recognizer: Recognizer) -> None:
    async def work(engine: Engine) -> None:
        with pytest.raises(UnknownModel, match="one of the models tones, got 'x'"):
            await engine.transcribe("x", b"")
        with pytest.raises(AudioError, match="expected decodable audio"):
            await engine.transcribe("tones", b"no audio")
        with pytest.raises(LanguageModelError, match="spell it otherwise"):
            await engine.transcribe("tones", b"", Options(hot_words=("Łódź",)))
        with pytest.raises(TooLong, match="at most 20 s"):
            await engine.transcribe("tones", LONG)
        assert (await engine.transcribe("tones", speak("low"))).text == "low"

    use(recognizer, work, replace(LIMITS, audio_s=20))
    with pytest.raises(AsrError, match="at least one"):
        Engine({})


def test_a_full_queue_is_busy(recognizer: Recognizer) -> None:
    async def work(engine: Engine) -> list[Any]:
        tasks = [engine.transcribe("tones", speak("low", seed)) for seed in range(5)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = use(recognizer, work, replace(LIMITS, queue=3))
    refused = [result for result in results if isinstance(result, Busy)]
    assert len(refused) == 2
    assert refused[0].retry_after >= 1
    assert sum(isinstance(result, Transcript) for result in results) == 3


def test_more_audio_waits_for_room(recognizer: Recognizer) -> None:
    async def work(engine: Engine) -> tuple[list[str], float]:
        most = 0.0
        tasks = [asyncio.ensure_future(engine.transcribe("tones", LONG)) for _ in range(3)]
        while not all(task.done() for task in tasks):
            most = max(most, engine.waiting_seconds)
            await asyncio.sleep(0.001)
        return [task.result().text for task in tasks], most

    texts, most = use(recognizer, work, replace(LIMITS, queued_s=1.0, long_recordings=2))
    assert len(set(texts)) == 1
    assert most < 5


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "said"), [("SIGSTOP", "within 1 s"), ("SIGKILL", "ends")])
def test_a_process_that_hangs_or_dies_is_replaced(
    recognizer: Recognizer, number: str, said: str
) -> None:
    others = children()  # of an engine that tests of other files share

    async def work(engine: Engine) -> str:
        (process,) = children() - others
        os.kill(process.pid, getattr(signal, number))
        with pytest.raises(AudioError, match=said):
            await engine.transcribe("tones", speak("low"))
        engine._decoders._limits = LIMITS  # the new process takes longer to begin
        return (await engine.transcribe("tones", speak("low"))).text

    assert use(recognizer, work, replace(LIMITS, decoding_s=1)) == "low"


def test_those_who_hang_up_are_forgotten(recognizer: Recognizer) -> None:
    async def work(engine: Engine) -> str:
        task = asyncio.ensure_future(engine.transcribe("tones", LONG))
        await asyncio.sleep(0.05)
        task.cancel()
        text = (await engine.transcribe("tones", speak("low"))).text
        assert (engine.waiting, engine.waiting_seconds) == (0, 0)
        return text

    assert use(recognizer, work) == "low"


def test_what_was_accepted_is_finished(recognizer: Recognizer) -> None:
    async def work(engine: Engine) -> list[Any]:
        tasks = [
            asyncio.ensure_future(engine.transcribe("tones", LONG if seed else speak("low")))
            for seed in range(3)
        ]
        await asyncio.sleep(0)
        await engine.close()
        return [task.done() and task.result().text for task in tasks]

    texts = use(recognizer, work)
    assert texts[0] == "low"
    assert texts[1] == texts[2] != ""


def test_a_failure_of_recognition_is_that_of_one_recording(recognizer: Recognizer) -> None:
    bundle: Any = recognizer.bundle

    class Fails:
        sample_rate, tokens, info = bundle.sample_rate, bundle.tokens, bundle.info
        normalise = bundle.normalise

        def score(self, waves: Any) -> Any:
            if any(len(wave) == RATE for wave in waves):
                raise RuntimeError("a fault of the library")
            return bundle.score(waves)

    async def work(engine: Engine) -> list[Any]:
        sounds = [speak("low"), np.zeros(RATE, np.float32), speak("up")]
        return await asyncio.gather(
            *(engine.transcribe("tones", sound) for sound in sounds), return_exceptions=True
        )

    first, second, third = use(Recognizer(Fails(), recognizer.decoder), work)  # type: ignore[arg-type]
    assert (first.text, third.text) == ("low", "up")
    assert isinstance(second, RuntimeError)


def test_torch_is_not_imported() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import asr.serving.server, asr.serving.decoding_worker"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_memory_of_decoding_is_limited() -> None:
    code = (
        "from asr.serving.decoding_worker import _limit_memory\n"
        "_limit_memory(1 << 30)\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_a_process_ends_whose_output_nobody_reads() -> None:
    before = children()

    async def run() -> None:
        worker = await _Worker.start(LIMITS)
        events = worker.events(LONG, Reading(RATE, 5.0, sample_rate=RATE, detector="energy"))
        await anext(events)
        await asyncio.sleep(1)  # until the pipe is full
        await events.aclose()
        async with asyncio.timeout(20):
            await worker.end()

    asyncio.run(run())
    assert children() <= before
