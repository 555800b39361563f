"""Live sessions while the engine has its turn: nobody waits for long, nothing is lost.

Covers `asr/serving/live_session.py` and `asr/serving/live_worker.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import numpy as np
import pytest

import asr.inference.live
import asr.serving.live_session
from asr.audio.vad import SpeechDetector, speech_detector
from asr.errors import StreamError
from asr.inference.live_utterance import LiveText
from asr.inference.recognizer import Recognizer
from asr.serving.engine import Busy, Engine
from asr.serving.limits import Limits
from asr.serving.live_session import AHEAD_S, LiveSessions, SessionOptions
from tests.serving.live_server import talk
from tests.tones import RATE

OPTIONS = SessionOptions("tones", RATE)
BLOCK = RATE // 10


@pytest.fixture(autouse=True)
def _energy() -> Iterator[None]:
    """Tones are no speech for the other detectors."""

    def energy(rate: int) -> SpeechDetector:
        return speech_detector(rate, "energy")

    with mock.patch.object(asr.inference.live, "speech_detector", energy):
        yield


def with_sessions(
    recognizer: Recognizer, check: Callable[[LiveSessions], Awaitable[None]], count: int = 9
) -> None:
    async def run() -> None:
        engine = Engine({"tones": recognizer}, Limits(live_sessions=count))
        sessions = LiveSessions(engine)
        await sessions.warm_up()
        try:
            await check(sessions)
        finally:
            sessions.close()

    asyncio.run(run())


@contextmanager
def engine_works(sessions: LiveSessions) -> Iterator[None]:
    """The engine has all turns for the length of the block."""
    begun, ended = threading.Event(), threading.Event()
    turns = sessions.engine.turns

    def work() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(turns.places):  # one for each core, with an exported model
                stack.enter_context(turns.turn())
            begun.set()
            ended.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(20)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def finals(texts: list[LiveText]) -> list[str]:
    return [text.text for text in texts if text.is_final]


def blocks(samples: np.ndarray) -> list[np.ndarray]:
    return [samples[at : at + BLOCK] for at in range(0, len(samples), BLOCK)]


@pytest.mark.parametrize("patience", [0.0, 0.002])
def test_texts_that_are_late_are_given_once(recognizer: Recognizer, patience: float) -> None:
    """Several jobs of the engine for each block, while others take the texts so far."""
    expected = finals(list(recognizer.live([talk()], RATE)))

    async def check(sessions: LiveSessions) -> None:
        session, found = await sessions.start(OPTIONS), []
        for at in range(0, len(talk()), RATE):
            found += await session.push(talk()[at : at + RATE])
            while session.work:
                await asyncio.wait(session.work, timeout=patience)
                found += session.taken()
        found += await session.end_utterance()
        assert finals(found) == expected

    with mock.patch.object(asr.serving.live_session, "PATIENCE_S", patience):
        with_sessions(recognizer, check)


def test_audio_that_comes_during_a_turn_of_the_engine_waits_and_is_not_lost(
    recognizer: Recognizer,
) -> None:
    expected = finals(list(recognizer.live([talk()], RATE)))

    async def check(sessions: LiveSessions) -> None:
        session = await sessions.start(OPTIONS, start=100.0)
        found = []
        ahead = round(AHEAD_S * RATE) // BLOCK
        patience = mock.patch.object(asr.serving.live_session, "PATIENCE_S", 0.01)
        with engine_works(sessions), patience:
            for block in blocks(talk())[:ahead]:
                began = time.monotonic()
                assert await session.push(block) == []
                assert time.monotonic() - began < 30
            full = asyncio.ensure_future(session.push(np.concatenate(blocks(talk())[ahead:])))
            await asyncio.wait({full}, timeout=0.3)
            assert not full.done()  # the client has to wait
        found += await full
        found += await session.end_utterance()
        assert finals(found) == expected
        assert all(100 < text.start < text.end <= session.seconds for text in found)
        assert all(word.start > 100 for text in found for word in text.words)
        assert session.seconds == 100 + len(talk()) / RATE

    with_sessions(recognizer, check)


def test_a_turn_is_for_all_sessions_that_wait(recognizer: Recognizer) -> None:
    async def check(sessions: LiveSessions) -> None:
        many = [await sessions.start(OPTIONS) for _ in range(5)]
        turn = sessions.engine.turns.turn
        counted = mock.patch.object(sessions.engine.turns, "turn", side_effect=turn)
        with engine_works(sessions), counted as turns:
            await asyncio.gather(*(session.push(talk()[:BLOCK]) for session in many))
            assert all(session.work for session in many)
        await asyncio.wait(set().union(*(session.work for session in many)))
        assert turns.call_count == 1

    with_sessions(recognizer, check)


def test_what_waits_is_dropped_with_the_session(recognizer: Recognizer) -> None:
    async def check(sessions: LiveSessions) -> None:
        gone, stays = await sessions.start(OPTIONS), await sessions.start(OPTIONS)
        with engine_works(sessions), mock.patch.object(gone, "_recognized") as recognised:
            await gone.push(talk()[: 3 * BLOCK])
            gone.close()
            push = asyncio.ensure_future(stays.push(talk()))
            await asyncio.sleep(0)
        assert len(finals(await push)) == 2
        assert recognised.call_count == 0

    with_sessions(recognizer, check)


def test_clear_drops_what_was_said(recognizer: Recognizer) -> None:
    async def check(sessions: LiveSessions) -> None:
        session = await sessions.start(OPTIONS)
        await session.push(talk()[: 2 * RATE])
        await session.clear()
        assert await session.end_utterance() == []
        assert session.seconds == 2.0
        found = await session.push(talk())
        assert finals(found) == finals(list(recognizer.live([talk()], RATE)))
        assert found[0].start > 2.0

    with_sessions(recognizer, check)


def test_a_failure_reaches_the_client(recognizer: Recognizer) -> None:
    async def check(sessions: LiveSessions) -> None:
        with pytest.raises(StreamError, match="expected a sample_rate"):
            await sessions.start(SessionOptions("tones", 7))
        session = await sessions.start(OPTIONS)
        with pytest.raises(StreamError, match="expected mono"):
            await session.push(np.zeros((2, 2), np.int16))
        with (
            mock.patch.object(session._live, "push", side_effect=MemoryError),
            pytest.raises(MemoryError),
        ):
            await session.push(talk())

    with_sessions(recognizer, check)


def test_places_are_limited(recognizer: Recognizer) -> None:
    async def check(sessions: LiveSessions) -> None:
        with sessions.place():
            assert sessions.count == 1
            with pytest.raises(Busy, match="live sessions"), sessions.place():
                pass
        assert sessions.count == 0

    with_sessions(recognizer, check, count=1)
