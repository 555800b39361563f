"""Spoken commands over Wyoming: the time from the end of a command to its text.

The audio is sent as a microphone gives it, in real time. The commands are some of AN4's test set.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from random import Random

import numpy as np

from asr.audio.load import load_audio
from asr.audio.pcm import to_int16
from asr.io.paths import files_below
from tests.bench.corpus import SOURCE
from tests.bench.serve import serving
from tests.bench.timing import print_table, verdict

COMMANDS = 40
AT_ONCE = (1, 2)  # clients
RATE = 16000
CHUNK = 1024  # samples, as Home Assistant sends them
GOAL = 0.3  # seconds


def run() -> None:
    """Print the figures, or why there are none."""
    print(f"\nwyoming: {COMMANDS} commands of AN4's test set, in real time")
    if not SOURCE.is_dir():
        print(f"  no AN4 in {SOURCE}: left out")
        return
    import asr

    paths = Random(0).sample(sorted(files_below(SOURCE / "wav" / "an4test_clstk")), COMMANDS)
    expected = [row.text for row in asr.load().transcribe(paths)]
    commands = [to_int16(load_audio(path, RATE)) for path in paths]
    port = free_port()
    rows, slowest, different = [], {}, 0
    with serving("--wyoming", str(port)):
        for clients in AT_ONCE:
            answers = asyncio.run(_commands(port, commands, clients))
            seconds = [second for second, _ in answers]
            slowest[clients] = max(seconds)
            different += sum(a[1] != b for a, b in zip(answers, expected, strict=True))
            middle, late = (1000 * np.quantile(seconds, share) for share in (0.5, 0.95))
            rows.append(
                [str(clients), f"{middle:.0f}", f"{late:.0f}", f"{1000 * max(seconds):.0f}"]
            )
    lengths = [len(command) / RATE for command in commands]
    print_table(
        f"milliseconds from the end of {min(lengths):.1f} to {max(lengths):.1f} s to the text",
        ["clients", "50 %", "95 %", "slowest"],
        rows,
    )
    verdict(
        "seconds from the end to the text, slowest", slowest[1], f"<= {GOAL}", slowest[1] <= GOAL
    )
    verdict("texts unlike those of asr transcribe", different, "0", different == 0)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def _commands(
    port: int, commands: Sequence[np.ndarray], clients: int
) -> list[tuple[float, str]]:
    """For each command the seconds that its text took, and the text."""
    answers: list[tuple[float, str]] = [(0.0, "")] * len(commands)

    async def client(first: int) -> None:
        for number in range(first, len(commands), clients):
            answers[number] = await _command(port, commands[number])

    await asyncio.gather(*(client(first) for first in range(clients)))
    return answers


async def _command(port: int, samples: np.ndarray) -> tuple[float, str]:
    from wyoming.asr import Transcribe, Transcript
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient

    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(language="en").event())
        await client.write_event(AudioStart(RATE, 2, 1).event())
        began = time.perf_counter()
        for at in range(0, len(samples), CHUNK):
            chunk = samples[at : at + CHUNK]
            await asyncio.sleep(max(0.0, began + (at + len(chunk)) / RATE - time.perf_counter()))
            await client.write_event(AudioChunk(RATE, 2, 1, chunk.tobytes()).event())
        ended = time.perf_counter()
        await client.write_event(AudioStop().event())
        event = await client.read_event()
        took = time.perf_counter() - ended
    assert event is not None
    return took, Transcript.from_event(event).text
