"""Live sockets of `asr serve`: clients in real time, and conversations with one message damaged.

Clients of vosk's protocol send utterances of AN4's test set as a microphone gives them, with pauses
of three seconds. The time to the final text includes the pause that ends an utterance.

A damaged conversation must end, with an answer or an error that says nothing of the server, and
leave no memory behind.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from random import Random
from typing import TypeVar

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from asr.audio.load import load_audio
from asr.audio.pcm import to_int16
from asr.inference.live import REGIONS
from asr.io.paths import files_below
from tests.bench.corpus import SOURCE
from tests.bench.serve import Server, load, serving, transcription
from tests.bench.timing import print_table, verdict
from tests.bench.wyoming import free_port
from tests.fuzz.mutate import mutated

EARLY, LATE = 1_000, 10_000  # conversations after which memory is measured
MOST_GROWTH = 0.1
AT_ONCE = 4  # clients with damage
CLIENTS = ((1, 0), (4, 0), (16, 0), (4, 32))  # in real time, and uploads at once
UTTERANCES = 6  # of each
PAUSE_S = 3.0
RATE = 16000
BLOCK = 1600  # samples
FAILED = "the server has failed"
TIMEOUT = 30.0  # seconds

T = TypeVar("T")


def run() -> None:
    """Print the delays of live texts, and what came of damaged conversations."""
    if SOURCE.is_dir():
        _live()
    else:
        print(f"\nsockets: no AN4 in {SOURCE}: live texts are left out")
    _damaged()


def _live() -> None:
    paths = Random(1).sample(sorted(files_below(SOURCE / "wav" / "an4test_clstk")), UTTERANCES)
    speech = [load_audio(path, RATE) for path in paths]
    rows = []
    uploads = [transcription(path.read_bytes()) for path in paths]
    with serving() as server:
        for clients, at_once in CLIENTS:
            work = _beside(server.port, uploads, at_once, _speak(server.port, speech, clients))
            delays, partials = asyncio.run(work)
            figures = [f"{f:.2f}" for f in np.quantile(delays, (0.5, 0.95, 1.0))]
            count = clients * UTTERANCES
            figures += [f"{partials / count:.1f}", str(count)]
            rows.append([str(clients), str(at_once), *figures])
            verdict("utterances without a text", count - len(delays), "0", len(delays) == count)
    print_table(
        f"sockets: seconds from speech to text, {REGIONS.silence_s:g} s of them the pause",
        ["clients", "uploads", "50 %", "95 %", "slowest", "partial texts each", "utterances"],
        rows,
    )


async def _beside(port: int, uploads: Sequence[bytes], at_once: int, work: Awaitable[T]) -> T:
    """The result of work, while so many clients upload."""
    task = asyncio.ensure_future(work)
    while at_once and not task.done():
        await load(port, [uploads[i % len(uploads)] for i in range(2 * at_once)], at_once)
    return await task


async def _speak(port: int, speech: Sequence[np.ndarray], clients: int) -> tuple[list[float], int]:
    """The seconds to each final text, and the number of partial ones."""
    delays: list[float] = []
    partials = 0

    async def client(number: int) -> None:
        nonlocal partials
        random = np.random.default_rng(number)
        await asyncio.sleep(random.uniform(0, PAUSE_S))
        async with connect(f"ws://127.0.0.1:{port}/vosk", compression=None) as server:
            await server.send(json.dumps({"config": {"sample_rate": RATE}}))
            for turn in range(len(speech)):
                spoken = speech[(number + turn) % len(speech)]
                pause = random.normal(0, 1e-4, round(PAUSE_S * RATE))
                samples = to_int16(np.concatenate([spoken, pause]))
                began, late = time.perf_counter(), 0.0
                for at in range(0, len(samples), BLOCK):
                    block = samples[at : at + BLOCK]
                    due = began + (at + len(block)) / RATE
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    await server.send(block.tobytes())
                    answer = json.loads(await server.recv())
                    partials += bool(answer.get("partial"))
                    if answer.get("text"):
                        late = time.perf_counter() - began - len(spoken) / RATE
                if late > 0:
                    delays.append(late)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return delays, partials


def _damaged() -> None:
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

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
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
