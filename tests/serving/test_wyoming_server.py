"""Spoken commands over Wyoming, with the client of the package wyoming.

Covers `asr/serving/wyoming_server.py` and `asr/serving/wyoming_events.py`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from asr.inference.recognizer import Recognizer
from asr.serving.engine import Engine
from asr.serving.errors import ApiError
from asr.serving.limits import Limits
from asr.serving.server import listen
from asr.serving.wyoming_server import (
    WyomingServer,
    _Command,
    _whole,
    chosen_model,
    languages_of,
)
from tests.serving.live_server import LiveServer, talk
from tests.tones import RATE

TIMEOUT = 20.0


def client(live: LiveServer) -> AsyncTcpClient:
    return AsyncTcpClient("127.0.0.1", live.wyoming_port, read_timeout=TIMEOUT)


async def say(client: AsyncTcpClient, samples: np.ndarray, rate: int, **wishes: Any) -> str:
    """The transcript of a command. Shape: [S] or [S, channels], int16."""
    channels = samples.shape[1] if samples.ndim == 2 else 1
    await client.write_event(Transcribe(**wishes).event())
    await client.write_event(AudioStart(rate, 2, channels).event())
    for at in range(0, len(samples), 1024):
        content = samples[at : at + 1024].tobytes()
        await client.write_event(AudioChunk(rate, 2, channels, content).event())
    await client.write_event(AudioStop().event())
    event = await client.read_event()
    assert event is not None
    assert Transcript.is_type(event.type), event
    return Transcript.from_event(event).text


def test_commands_are_recognised_as_recordings(live: LiveServer) -> None:
    async def check() -> None:
        for model in ("tones", "streaming"):
            expected = live.models[model].transcribe(talk(), RATE, words=False).text
            async with client(live) as connected:
                for _ in range(2):  # on one connection
                    assert await say(connected, talk(), RATE, name=model) == expected != ""
        mono = live.models["tones"].transcribe(talk(), RATE, words=False).text
        async with client(live) as connected:
            stereo = np.stack([talk(), talk()], axis=1)
            assert await say(connected, stereo, RATE, language="en") == mono
            twice = np.repeat(talk(), 2)
            expected = live.models["tones"].transcribe(twice, 2 * RATE, words=False).text
            unknown = ["Küche", "§"]
            assert await say(connected, twice, 2 * RATE, transcript_names=unknown) == expected
            hot = [*unknown, "low high"]
            text = await say(connected, twice, 2 * RATE, transcript_terms=hot)
            assert text.count("low high") > expected.count("low high")
            assert await say(connected, talk()[:0], RATE) == ""

    asyncio.run(check())


def test_the_models_are_described(live: LiveServer) -> None:
    async def check() -> None:
        async with client(live) as connected:
            await connected.write_event(Describe().event())
            event = await connected.read_event()
            assert event is not None
            (program,) = Info.from_event(event).asr
            assert program.installed
            assert [model.name for model in program.models] == ["tones", "streaming"]
            assert all(model.installed for model in program.models)
            await connected.write_event(Event("synthesize", {"text": "for another service"}))
            await connected.write_event(Ping("here").event())
            event = await connected.read_event()
            assert event is not None
            assert Pong.from_event(event).text == "here"

    asyncio.run(check())


@contextmanager
def raw(live: LiveServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", live.wyoming_port), TIMEOUT) as connected:
        yield connected


def to_the_end(connected: socket.socket) -> list[dict[str, Any]]:
    """What the server says until it hangs up."""
    content = b""
    while part := connected.recv(1 << 16):
        content += part
    return [json.loads(line) for line in content.splitlines()]


def line(**head: Any) -> bytes:
    return json.dumps(head).encode() + b"\n"


def chunk(rate: Any = RATE, width: Any = 2, channels: Any = 1, content: bytes = bytes(2)) -> bytes:
    data = {"rate": rate, "width": width, "channels": channels}
    return line(type="audio-chunk", data=data, payload_length=len(content)) + content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "expected a JSON object"),
        (b"\xff\xfe\n", "expected a JSON object"),
        (b"[" * 50_000 + b"\n", "expected a JSON object"),
        (b"x" * 200_000, "expected a line of at most"),
        (b"x" * 200_000 + b"\n", "expected a line of at most"),
        (line(data={}), "expected an event with its type"),
        (line(type=[1]), "expected an event with its type"),
        (line(type="describe", data=[1]), "expected an event with its type"),
        (line(type="describe", data_length=10**12), "expected data_length"),
        (line(type="describe", data_length=-1), "expected data_length"),
        (line(type="describe", data_length="9"), "expected data_length"),
        (line(type="describe", data_length=2) + b"[]", "expected a JSON object"),
        (line(type="audio-chunk", payload_length=10**12), "expected payload_length"),
        (line(type="audio-chunk", payload_length=1.5), "expected payload_length"),
        (chunk(rate=1), "expected 16-bit audio"),
        (chunk(rate={}), "expected 16-bit audio"),
        (chunk(width=3), "expected 16-bit audio"),
        (chunk(channels=0), "expected 16-bit audio"),
        (chunk() + chunk(rate=2 * RATE), "expected chunks of one rate"),
        (
            line(type="transcribe", data={"name": "../x"}) + chunk() + line(type="audio-stop"),
            "expected one of the models",
        ),
    ],
)
def test_garbage_is_answered_by_one_error_and_cut_off(
    live: LiveServer, content: bytes, says: str
) -> None:
    with raw(live) as connected:
        connected.sendall(content)
        (event,) = to_the_end(connected)
    assert event["type"] == "error"
    assert says in event["data"]["text"]
    assert len(event["data"]["text"]) < 200


def test_a_part_of_an_event_is_no_event(live: LiveServer) -> None:
    for content in (b'{"type"', line(type="audio-chunk", payload_length=9) + b"part"):
        with raw(live) as connected:
            connected.sendall(content)
            connected.shutdown(socket.SHUT_WR)
            (event,) = to_the_end(connected)
        assert "expected a whole event" in event["data"]["text"]
    with raw(live) as connected:
        connected.shutdown(socket.SHUT_WR)
        assert to_the_end(connected) == []


def test_clients_that_are_slow_or_too_many_or_say_too_much_are_cut_off(live: LiveServer) -> None:
    slow = line(type="audio-chunk", payload_length=9) + b"part"
    for content in (b"", b"{", slow):
        with live.limited(live_idle_s=0.1), raw(live) as connected:
            connected.sendall(content)
            (event,) = to_the_end(connected)
            assert "expected an event within 0.1 s" in event["data"]["text"]
    with live.limited(live_sessions=0), raw(live) as connected:
        (event,) = to_the_end(connected)
        assert "expected fewer clients" in event["data"]["text"]
    with live.limited(live_samples=1000), raw(live) as connected:
        connected.sendall(chunk(content=bytes(2000)) + chunk())
        (event,) = to_the_end(connected)
        assert "expected a command of at most 1000 samples" in event["data"]["text"]


def flood(connected: socket.socket) -> None:
    message = line(type="ping", data={"text": "x" * 60_000})
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        connected.sendall(message)


def test_a_client_that_does_not_read_is_cut_off(live: LiveServer) -> None:
    with live.limited(idle_s=0.1), raw(live) as connected:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(ConnectionError):
            flood(connected)


def with_server(
    recognizer: Recognizer, check: Callable[[Engine, WyomingServer, int], Awaitable[None]]
) -> None:
    async def run() -> None:
        engine = Engine({"tones": recognizer}, Limits(decoders=1))
        await engine.start()
        server = WyomingServer(engine)
        listening = listen("127.0.0.1", 0)
        await server.start(listening)
        try:
            await check(engine, server, listening.getsockname()[1])
        finally:
            await server.close()
            await engine.close()

    asyncio.run(run())


def test_a_server_that_stops_finishes_the_command(recognizer: Recognizer) -> None:
    async def check(engine: Engine, server: WyomingServer, port: int) -> None:
        async with (
            AsyncTcpClient("127.0.0.1", port) as idle,
            AsyncTcpClient("127.0.0.1", port, read_timeout=TIMEOUT) as connected,
        ):
            command = asyncio.ensure_future(say(connected, talk(), RATE))
            while not engine.waiting:
                await asyncio.sleep(0.001)
            await server.close()
            assert await command != ""
            assert await idle.read_event() is None
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    with_server(recognizer, check)


def test_the_language_chooses_the_model(recognizer: Recognizer) -> None:
    def served(**languages: str) -> Engine:
        models = {}
        for name, language in languages.items():
            about = {"about": {"languages": [language]}}
            bundle = dataclasses.replace(recognizer.bundle, info=about)
            models[name] = Recognizer(bundle, recognizer.decoder)
        return Engine(models)

    engine = served(uk="en-GB", us="en-US", at="de-at")
    for wish, model in {"en-US": "us", "en-us": "us", "en": "uk", "de": "at", "fr": "uk"}.items():
        assert chosen_model(engine, {"language": wish}) == model
    assert chosen_model(engine, {}) == "uk"
    assert chosen_model(engine, {"language": "de", "name": "us"}) == "us"


@pytest.mark.parametrize("about", [None, "en", {"languages": "en"}, {"languages": None}, {}])
def test_languages_that_are_no_list_are_none(recognizer: Recognizer, about: object) -> None:
    """People write them into info.json by hand."""
    bundle = dataclasses.replace(recognizer.bundle, info={"about": about})
    assert languages_of(Engine({"a": Recognizer(bundle, recognizer.decoder)}), "a") == []


def test_a_rate_is_not_searched_for() -> None:
    """What is no int is looked for in a range one by one, for 0.04 s each time."""
    command = _Command()
    command.add({"rate": 16000.0, "width": 2.0, "channels": 1.0}, b"\0\0", 10)
    assert (command.rate, command.channels) == (16000, 1)
    assert isinstance(command.rate, int)
    for rate in (16000.5, float("nan"), float("inf"), "16000", None):
        assert type(_whole(rate)) is int
        with pytest.raises(ApiError, match=f"got rate {rate}, width 2"):
            command.add({"rate": rate, "width": 2, "channels": 1}, b"", 10)
