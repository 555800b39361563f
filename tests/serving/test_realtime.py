"""Transcription sessions of OpenAI's realtime protocol, with its own client.

Covers `asr/serving/realtime.py`, `asr/serving/realtime_items.py` and
`asr/serving/realtime_settings.py`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import openai
import pytest
from openai.resources.realtime.realtime import RealtimeConnection
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_socket
from websockets.typing import Subprotocol

from asr.inference.live_utterance import LiveText
from asr.inference.transcript import Transcript
from asr.serving.realtime import MOST_ERRORS
from asr.serving.realtime_items import Items
from tests.serving.live_server import LiveServer, talk
from tests.tones import RATE

pytestmark = pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")  # in the client

DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"


@contextmanager
def connected(live: LiveServer, model: str = "tones") -> Iterator[RealtimeConnection]:
    client = openai.OpenAI(api_key="none", base_url=f"http://127.0.0.1:{live.running.port}/v1")
    with client.realtime.connect(model=model) as connection:
        assert connection.recv().type == "session.created"
        yield connection


def update(connection: RealtimeConnection, **audio: Any) -> Any:
    session: Any = {"type": "transcription", "audio": {"input": audio}}
    connection.session.update(session=session)
    event = connection.recv()
    assert event.type == "session.updated", event
    return event.session


def append(connection: RealtimeConnection, samples: np.ndarray, step: int = 800) -> None:
    for at in range(0, len(samples), step):
        content = base64.b64encode(samples[at : at + step].tobytes()).decode()
        connection.input_audio_buffer.append(audio=content)


def until(connection: RealtimeConnection, kind: str, count: int = 1) -> list[Any]:
    """The events up to the last of so many of a kind."""
    found: list[Any] = []
    while sum(event.type == kind for event in found) < count:
        found.append(connection.recv())
        assert found[-1].type == kind or found[-1].type != "error", found[-1]
    return found


@pytest.mark.parametrize("model", ["tones", "streaming"])
def test_pauses_end_utterances(live: LiveServer, model: str) -> None:
    with connected(live, model) as connection:
        update(connection, format={"type": "audio/pcm", "rate": RATE})
        append(connection, talk())
        found = until(connection, COMPLETED, 2)
    names = ["item_1", "item_2"]
    assert [event.transcript for event in found if event.type == COMPLETED] == live.finals(
        model, talk()
    )
    previous = None
    for name in names:
        events = [event for event in found if event.item_id == name]
        kinds = [event.type for event in events if event.type != DELTA]
        buffer = "input_audio_buffer."
        assert kinds == [
            *(buffer + kind for kind in ("speech_started", "speech_stopped", "committed")),
            COMPLETED,
        ]
        deltas = [event.delta for event in events if event.type == DELTA]
        assert "".join(deltas) == events[-1].transcript
        assert (len(deltas) > 1) == (model == "streaming")
        started, stopped, committed, completed = (e for e in events if e.type != DELTA)
        assert 0 < started.audio_start_ms < stopped.audio_end_ms <= 1000 * len(talk()) / RATE
        seconds = (stopped.audio_end_ms - started.audio_start_ms) / 1000
        assert completed.usage.seconds == pytest.approx(seconds, abs=0.002)
        assert committed.previous_item_id == previous
        previous = name
    assert len({event.event_id for event in found}) == len(found)


def test_the_client_may_commit_an_utterance_or_clear_it(live: LiveServer) -> None:
    samples = talk()[: -RATE // 2]  # the last pause is too short
    first, last = live.finals("tones", samples)
    with connected(live) as connection:
        update(connection, format={"type": "audio/pcm", "rate": RATE})
        append(connection, samples)
        until(connection, COMPLETED)
        connection.input_audio_buffer.commit()
        assert until(connection, COMPLETED)[-1].transcript == last
        append(connection, talk()[:RATE])  # silence: an item all the same
        connection.input_audio_buffer.commit()
        assert until(connection, COMPLETED)[-1].transcript == ""
        append(connection, samples)
        until(connection, COMPLETED)
        connection.input_audio_buffer.clear()
        until(connection, "input_audio_buffer.cleared")
        connection.input_audio_buffer.commit()
        error: Any = connection.recv()
        assert error.error.code == "input_audio_buffer_commit_empty"
        append(connection, talk())
        started, *_, completed = until(connection, COMPLETED)
        assert completed.transcript == first
        assert started.audio_start_ms > 1000 * (2 * len(samples) + RATE) / RATE


def test_without_turn_detection_the_client_commits(live: LiveServer) -> None:
    samples = talk()
    with connected(live) as connection:
        session = update(
            connection, format={"type": "audio/pcm", "rate": RATE}, turn_detection=None
        )
        assert session.audio.input.turn_detection is None
        append(connection, samples)
        connection.input_audio_buffer.commit()
        found = until(connection, COMPLETED)
        text = live.models["tones"].transcribe(samples, RATE, words=False).text
        assert [event.type.rpartition(".")[2] for event in found] == [
            *("committed", "delta", "completed")
        ]
        assert found[-1].transcript == found[-2].delta == text
        assert found[-1].usage.seconds == pytest.approx(len(samples) / RATE, abs=0.001)
        append(connection, samples[:800])
        connection.session.update(session={"type": "transcription", "audio": {"input": {}}})
        error: Any = connection.recv()
        assert "expected a commit or clear" in error.error.message
        with live.limited(live_samples=1000):
            append(connection, samples[:800])
            error = connection.recv()
        assert "expected at most 1000 samples" in error.error.message


def test_settings_of_both_forms(live: LiveServer) -> None:
    samples = np.repeat(talk(), 3)  # 24 kHz
    with connected(live) as connection:
        connection.send(
            {  # type: ignore[arg-type]
                "type": "transcription_session.update",
                "session": {
                    "input_audio_format": "pcm16",
                    "input_audio_transcription": {
                        **{"model": "streaming", "language": "en", "prompt": ""},
                    },
                    "turn_detection": {"type": "server_vad", "silence_duration_ms": 1500},
                    "input_audio_noise_reduction": {"type": "near_field"},
                },
            }
        )
        updated: Any = connection.recv()
        assert updated.type == "transcription_session.updated"
        assert updated.session["turn_detection"]["silence_duration_ms"] == 1500
        shortest = update(
            connection, turn_detection={"type": "server_vad", "silence_duration_ms": 1}
        )
        assert shortest.audio.input.turn_detection.silence_duration_ms == 400
        session = update(
            connection,
            turn_detection={"type": "server_vad", "silence_duration_ms": 1500},
            transcription={"model": "tones", "keywords": ["low high"], "prompt": "up, x!"},
        )
        assert session.audio.input.format.rate == 24000
        assert session.audio.input.transcription.model == "tones"
        append(connection, samples, 2400)
        connection.input_audio_buffer.commit()
        (completed,) = (e for e in until(connection, COMPLETED) if e.type == COMPLETED)
        # The pauses are shorter than 1.5 s.
        assert completed.transcript.count(" ") >= 4


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"type": "response.create"}, "expected an event of a transcription session"),
        ({"type": "session.update"}, "session: expected another value"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type"),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"format": {"type": "audio/pcmu"}}}},
            },
            "session.audio.input.format.type",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 10}}}},
            },
            "session.audio.input.format.rate",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"transcription": {"model": "/etc/passwd"}}}},
            },
            "expected one of the models tones, streaming",
        ),
        (
            {
                "type": "session.update",
                "session": {"audio": {"input": {"transcription": {"keywords": ["up"] * 1000}}}},
            },
            "expected at most 200 keywords",
        ),
        (
            {
                "type": "transcription_session.update",
                "session": {"input_audio_format": "g711_ulaw"},
            },
            "session.input_audio_format",
        ),
    ],
)
def test_an_event_with_an_error_changes_nothing(
    live: LiveServer, event: dict[str, Any], says: str
) -> None:
    with connected(live) as connection:
        update(connection, format={"type": "audio/pcm", "rate": RATE})
        connection.send({**event, "event_id": "mine"})  # type: ignore[arg-type]
        error: Any = connection.recv()
        assert error.type == "error"
        assert error.error.event_id == "mine"
        assert error.error.type == "invalid_request_error"
        assert says in error.error.message
        assert "pydantic" not in error.error.message
        append(connection, talk())
        text = live.finals("tones", talk())[0]
        assert until(connection, COMPLETED)[-1].transcript == text


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("hello", "expected a JSON object"),
        ("[" * 100_000, "expected a JSON object"),
        ('{"type": 3}', "expected an event with its type"),
        (b"\0\0", "expected an event with its type"),
        ('{"type": "input_audio_buffer.append"}', "expected audio as base64"),
        ('{"type": "input_audio_buffer.append", "audio": "!!"}', "expected audio as base64"),
        ('{"type": "input_audio_buffer.append", "audio": "\\ud800"}', "expected audio as base64"),
        ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "expected 16-bit samples"),
    ],
)
def test_garbage_is_answered_by_one_error_and_cut_off(
    live: LiveServer, message: str | bytes, says: str
) -> None:
    with connect_socket(f"{live.address}/v1/realtime") as client:
        client.recv(timeout=20)
        client.send(message)
        event = json.loads(client.recv(timeout=20))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert event["type"] == "error"
    assert says in event["error"]["message"]


def test_many_errors_silence_and_unknown_models_are_cut_off(live: LiveServer) -> None:
    address = f"{live.address}/v1/realtime"
    with connect_socket(address) as client:
        client.recv(timeout=20)
        for _ in range(MOST_ERRORS + 1):
            client.send('{"type": "x"}')
            assert json.loads(client.recv(timeout=20))["error"]["code"] == "unknown_event"
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=20)
    with live.limited(live_idle_s=0.1), connect_socket(address) as client:
        client.recv(timeout=20)
        assert "expected a message" in json.loads(client.recv(timeout=20))["error"]["message"]
    with connect_socket(f"{address}?model=../x", subprotocols=[Subprotocol("realtime")]) as client:
        assert client.subprotocol == "realtime"
        error = json.loads(client.recv(timeout=20))["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")


def text(final: str, partial: str = "", start: float = 1.0, is_final: bool = False) -> LiveText:
    return LiveText(final, partial, start, start + 0.5, is_final)


def kinds(items: Items, *texts: LiveText) -> list[str]:
    return [e["type"].rpartition(".")[2] for t in texts for e in items.recognized(t)]


def test_a_text_that_is_withdrawn_ends_its_item() -> None:
    ended = ["speech_stopped", "committed", "completed"]
    items = Items()
    assert kinds(items, text("", "")) == []
    assert kinds(items, text("", "so")) == ["speech_started"]
    assert kinds(items, text("", "")) == ended
    assert kinds(items, text("", "so"), text("", "other", 3.0)) == [
        *("speech_started", *ended, "speech_started")
    ]
    assert kinds(items, text("other", "", 3.0, is_final=True)) == [
        *("speech_stopped", "committed", "delta", "completed")
    ]


def test_what_a_client_has_committed_ends_when_it_leaves(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def transcribe(*_: object, **__: object) -> Transcript:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    monkeypatch.setattr(live.running.engine, "transcribe", transcribe)
    with connected(live) as connection:
        update(connection, turn_detection=None)
        append(connection, talk()[:RATE])
        connection.input_audio_buffer.commit()
        append(connection, talk()[:RATE])  # the microphone is still open
        assert begun.wait(20)
    assert ended.wait(20)


def test_who_waits_for_a_transcript_is_not_cut_off(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe = live.running.engine.transcribe

    async def slow(*arguments: Any) -> Transcript:
        await asyncio.sleep(1.0)
        return await transcribe(*arguments)

    monkeypatch.setattr(live.running.engine, "transcribe", slow)
    with live.limited(live_idle_s=0.5), connected(live) as connection:
        update(connection, turn_detection=None)
        append(connection, talk()[:RATE])
        connection.input_audio_buffer.commit()
        assert until(connection, COMPLETED)
        assert connection.recv().type == "error"  # nothing more is said


def test_many_keywords_are_refused_before_they_are_looked_at(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(live) as connection:
        monkeypatch.setattr("asr.serving.realtime.phrases_of", pytest.fail)
        for keyword in ("up", 1):
            wishes: Any = {"model": "tones", "keywords": [keyword] * 20_000}
            connection.session.update(
                session={"type": "transcription", "audio": {"input": {"transcription": wishes}}}
            )
            assert "keywords" in until(connection, "error")[-1].error.message


def test_a_phrase_may_be_keyword_and_prompt(live: LiveServer) -> None:
    with connected(live) as connection:
        wishes = {"model": "tones", "keywords": ["low high", "low high"], "prompt": "Low  high, up"}
        update(connection, transcription=wishes)


def test_a_recording_that_fails_has_no_transcript(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(live) as connection, live.limited(queue=0):
        update(connection, turn_detection=None)
        append(connection, talk()[:RATE])
        connection.input_audio_buffer.commit()
        committed, failed = connection.recv(), connection.recv()
        assert (committed.type, failed.type.rpartition(".")[2]) == (
            *("input_audio_buffer.committed", "failed"),
        )
        assert failed.error.code == "busy"  # type: ignore[union-attr]
