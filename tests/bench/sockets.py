"""Garbage on the live sockets of `asr serve`: conversations with one message damaged.

Each conversation must end, with an answer or an error that says nothing of the server, and leave
no memory behind.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from random import Random

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.bench.serve import Server, serving
from tests.bench.timing import verdict
from tests.bench.wyoming import free_port
from tests.fuzz.mutate import mutated

EARLY, LATE = 1_000, 10_000  # conversations after which memory is measured
MOST_GROWTH = 0.1
CLIENTS = 4
FAILED = "the server has failed"
TIMEOUT = 30.0  # seconds


def run() -> None:
    """Print what came of the conversations."""
    print(f"\nsockets: {LATE} conversations over WebSockets and Wyoming, each with damage")
    port = free_port()
    with serving("--wyoming", str(port)) as server:
        found: Counter[str] = Counter()
        sizes = []
        for first, last in ((0, EARLY), (EARLY, LATE)):
            found += asyncio.run(_converse(server, port, first, last))
            sizes.append(server.mebibytes())
    print(f"  {', '.join(f'{count} {name}' for name, count in sorted(found.items()))}")
    failed = found["failed"] + found["open"]
    verdict("failures of the server, and conversations without an end", failed, "0", failed == 0)
    print(
        f"  memory after {EARLY} conversations {sizes[0]:.0f} MiB, after {LATE} {sizes[1]:.0f} MiB"
    )
    growth = sizes[1] / sizes[0] - 1
    verdict("growth of memory", growth, f"<= {MOST_GROWTH}", growth <= MOST_GROWTH)


async def _converse(server: Server, port: int, first: int, last: int) -> Counter[str]:
    found: Counter[str] = Counter()
    numbers = iter(range(first, last))

    async def client() -> None:
        for number in numbers:
            random = Random(number)
            kind = number % 3
            try:
                async with asyncio.timeout(TIMEOUT):
                    if kind == 2:
                        said = await _wyoming(port, random)
                    else:
                        said = await _socket(server.port, kind == 0, random)
            except TimeoutError:
                said = "open"
            found["failed" if FAILED in said else said if said == "open" else _class(said)] += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return found


def _class(said: str) -> str:
    return "refused" if '"error"' in said else "answered"


def _audio() -> bytes:
    tone = np.sin(np.arange(4000) * 0.2) * 8000
    return tone.astype("<i2").tobytes()


def _vosk() -> list[str | bytes]:
    config = {"sample_rate": 8000, "words": True, "phrase_list": ["yes"], "max_alternatives": 0}
    return [json.dumps({"config": config}), _audio(), _audio(), '{"eof": 1}']


def _realtime() -> list[str | bytes]:
    sound = {"format": {"type": "audio/pcm", "rate": 16000}, "turn_detection": None}
    update = {
        "type": "session.update",
        "session": {"type": "transcription", "audio": {"input": sound}},
    }
    append = {"type": "input_audio_buffer.append", "audio": base64.b64encode(_audio()).decode()}
    commit = {"type": "input_audio_buffer.commit"}
    return [json.dumps(event) for event in (update, append, append, commit)]


async def _socket(port: int, is_vosk: bool, random: Random) -> str:
    messages = _vosk() if is_vosk else _realtime()
    place = random.randrange(len(messages))
    chosen = messages[place]
    content = chosen.encode() if isinstance(chosen, str) else chosen
    damaged = mutated(content, [content, _audio()], random)
    is_text = isinstance(chosen, str) != (random.random() < 0.1)
    messages[place] = damaged.decode(errors="replace") if is_text else damaged
    said = ""
    path = "vosk" if is_vosk else "v1/realtime"
    async with connect(f"ws://127.0.0.1:{port}/{path}", compression=None) as client:
        try:
            for message in messages:
                await client.send(message)
            await client.send("\0")  # no JSON: ends all that goes on
            async for answer in client:
                said += str(answer)
        except ConnectionClosed:
            pass
    return said


async def _wyoming(port: int, random: Random) -> str:
    head = {"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}}
    content = b"".join(
        [
            json.dumps({"type": "describe"}).encode() + b"\n",
            json.dumps({"type": "transcribe", "data": {"language": "en"}}).encode() + b"\n",
            *2 * [json.dumps({**head, "payload_length": 8000}).encode() + b"\n" + _audio()],
            json.dumps({"type": "audio-stop"}).encode() + b"\n",
        ]
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(mutated(content, [content, _audio()], random))
        writer.write_eof()
        return (await reader.read()).decode()
    except ConnectionError:
        return ""
    finally:
        writer.close()
