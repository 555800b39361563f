"""`asr serve` with the included model under load: speed, bursts, memory, and bad input.

Clients are coroutines of one process that write prepared requests to keep-alive connections, so
that they take little of the two cores. The recordings are AN4's test set.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import psutil
import soundfile

from asr.audio.load import load_audio
from asr.io.paths import files_below
from tests.bench.corpus import ROOT, SOURCE
from tests.bench.timing import print_table, verdict
from tests.fuzz.mutate import mutated
from tests.recordings import FORMATS

CLIENTS = (1, 8, 64)
REQUESTS = 260  # for each number of clients: the test set twice
BURST = 200
EARLY, LATE = 1_000, 10_000  # requests after which memory is measured
MOST_GROWTH = 0.1
TALK = 4  # times the test set, one utterance after another
BAD = 1_000  # of each kind
RATE = 16000
BOUNDARY = b"0123456789abcdef"
HEALTHY = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Answers:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    took: float = 0.0

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.seconds, share))

    def counted(self, first: int) -> int:
        """Answers with a status of this hundred."""
        return sum(status // 100 == first for status in self.statuses)


def run() -> None:
    """Print all tables, or why there are none."""
    print("\nserve: asr serve with the included model, on AN4's test recordings")
    if not SOURCE.is_dir():
        print(f"  no AN4 in {SOURCE}: left out")
        return
    paths = sorted(files_below(SOURCE / "wav" / "an4test_clstk"))
    with serving() as server:
        _speed(server, paths)
        _burst(server, paths)
        _fair(server, paths)
        _bad(server, paths)
        _memory(server, paths)
    from tests.bench import serve_race

    serve_race.run(paths)


# --- the parts ---


def _speed(server: Server, paths: Sequence[Path]) -> None:
    import asr

    expected = [row.text for row in asr.load().transcribe(paths)]
    requests = [transcription(path.read_bytes()) for path in paths]
    rows, different = [], 0
    for clients in CLIENTS:
        wanted = [requests[i % len(requests)] for i in range(REQUESTS)]
        before = server.cpu_seconds()
        answers = asyncio.run(load(server.port, wanted, clients))
        used = server.cpu_seconds() - before
        texts = [json.loads(body).get("text") for body in answers.bodies]
        different += sum(t != expected[i % len(expected)] for i, t in enumerate(texts))
        rows.append(
            [
                str(clients),
                f"{REQUESTS / answers.took:.1f}",
                f"{1000 * answers.quantile(0.5):.0f}",
                f"{1000 * answers.quantile(0.95):.0f}",
                f"{1000 * used / REQUESTS:.1f}",
                str(REQUESTS - answers.counted(2)),
            ]
        )
    print_table(
        f"{REQUESTS} requests each",
        ["clients", "requests a second", "50 % ms", "95 % ms", "CPU ms a request", "errors"],
        rows,
    )
    verdict("texts unlike those of asr transcribe", different, "0", different == 0)


def _burst(server: Server, paths: Sequence[Path]) -> None:
    requests = [transcription(paths[i % len(paths)].read_bytes()) for i in range(BURST)]
    answers = asyncio.run(load(server.port, requests, BURST))
    errors = BURST - answers.counted(2)
    print(f"\n{BURST} uploads at once: all answered after {answers.took:.1f} s")
    verdict("errors", errors, "0", errors == 0)


def _fair(server: Server, paths: Sequence[Path]) -> None:
    requests = [transcription(path.read_bytes()) for path in paths]
    talk = np.concatenate([load_audio(path, RATE) for path in paths] * TALK)
    content = io.BytesIO()
    soundfile.write(content, talk, RATE, format="WAV")
    minutes = len(talk) / RATE / 60
    rows = []
    for number in (0, 2):
        talks = [transcription(content.getvalue())] * number
        answers, slow = asyncio.run(_beside(server.port, requests, talks))
        assert answers.counted(2) == len(requests)
        assert slow.counted(2) == number
        rows.append(
            [
                f"{number} of {minutes:.0f} minutes",
                f"{1000 * answers.quantile(0.5):.0f}",
                f"{1000 * answers.quantile(0.95):.0f}",
                f"{slow.took:.0f}" if number else "",
            ]
        )
    print_table(
        f"{len(requests)} short recordings by 4 clients, long ones at the same time",
        ["long recordings", "short: 50 % ms", "95 % ms", "long: seconds"],
        rows,
    )


async def _beside(
    port: int, requests: Sequence[bytes], talks: Sequence[bytes]
) -> tuple[Answers, Answers]:
    slow = asyncio.ensure_future(load(port, talks, max(1, len(talks))))
    await asyncio.sleep(1)
    return await load(port, requests, 4), await slow


def _bad(server: Server, paths: Sequence[Path]) -> None:
    random = Random(1)
    whole = transcription(paths[0].read_bytes())
    malformed = [_malformed(whole, random) for _ in range(BAD)]
    contents = [path.read_bytes() for path in paths[:5]] + list(FORMATS.values())
    fuzzed = [transcription(mutated(random.choice(contents), contents, random)) for _ in range(BAD)]
    for name, requests in (("malformed requests", malformed), ("fuzzed files", fuzzed)):
        answers = asyncio.run(load(server.port, requests, 64, keep=False))
        counts = {s: answers.statuses.count(s) for s in sorted(set(answers.statuses))}
        print(f"\n{BAD} {name}: {', '.join(f'{n} times {s}' for s, n in counts.items())}")
        wrong = answers.counted(5) + answers.counted(0)
        verdict("neither an answer nor an error of the client", wrong, "0", wrong == 0)
        leaks = sum(bool(_LEAK.search(body)) for body in answers.bodies)
        verdict("answers with a path, a version or a trace", leaks, "0", leaks == 0)
    healthy = asyncio.run(load(server.port, [HEALTHY], 1)).statuses == [200]
    verdict("healthy afterwards", int(healthy), "1", healthy)


_PLACES = b"|".join(re.escape(str(place).encode()) for place in (ROOT, Path.home()))
_LEAK = re.compile(_PLACES + rb"|Traceback|/usr/|site-packages|\.py\b|[Pp]ython|uvicorn|[Ff]astapi")


def _malformed(whole: bytes, random: Random) -> bytes:
    """A request that is damaged in its head or its form."""
    head, _, body = whole.partition(b"\r\n\r\n")
    if random.random() < 0.5:
        damaged = mutated(head, [HEALTHY], random)
        return damaged + b"\r\n\r\n" + body[:2000]
    fields = body[:400]
    damaged = mutated(fields, [HEALTHY], random)
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(damaged), head)
    return head + b"\r\n\r\n" + damaged


def _memory(server: Server, paths: Sequence[Path]) -> None:
    requests = [transcription(path.read_bytes()) for path in paths]
    sizes = {}
    done = 0
    for until in (EARLY, LATE):
        wanted = [requests[i % len(requests)] for i in range(done, until)]
        answers = asyncio.run(load(server.port, wanted, 8))
        assert answers.counted(2) == len(wanted), answers.statuses
        done = until
        sizes[until] = server.mebibytes()
    early, late = sizes[EARLY], sizes[LATE]
    print(f"\nmemory: {early:.0f} MiB after {EARLY} requests, {late:.0f} MiB after {LATE}")
    growth = late / early - 1
    verdict("growth", growth, f"<= {MOST_GROWTH}", growth <= MOST_GROWTH)


# --- server and clients ---


@dataclass(frozen=True)
class Server:
    """A process of `asr serve`."""

    process: subprocess.Popen[str]
    port: int

    def mebibytes(self) -> float:
        """Of the server and the processes that decode."""
        own = psutil.Process(self.process.pid)
        return sum(p.memory_info().rss for p in (own, *own.children(True))) / 2**20

    def cpu_seconds(self) -> float:
        """Of all of these processes, so far."""
        return cpu_seconds(self.process.pid)


def cpu_seconds(process: int) -> float:
    """Of a process and its children, so far."""
    own = psutil.Process(process)
    times = [p.cpu_times() for p in (own, *own.children(True))]
    return sum(t.user + t.system for t in times)


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """Run `asr serve` on a free port."""
    command = [sys.executable, "-m", "asr", "serve", *arguments, "--port", "0"]
    environment = {k: v for k, v in os.environ.items() if k != "ASR_TOKEN"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        found = re.search(r":(\d+)/", process.stdout.readline())
        assert found, "expected the address of the server, got another line"
        try:
            yield Server(process, int(found[1]))
        finally:
            process.terminate()


def transcription(content: bytes, **fields: str) -> bytes:
    """A request for the text of a file."""
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (BOUNDARY, name.encode(), value.encode())
        for name, value in fields.items()
    ]
    parts.append(
        b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n%b\r\n--%b--\r\n"
        % (BOUNDARY, content, BOUNDARY)
    )
    body = b"".join(parts)
    return (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=%b\r\nContent-Length: %d\r\n\r\n%b"
        % (BOUNDARY, len(body), body)
    )


async def load(port: int, requests: Sequence[bytes], clients: int, keep: bool = True) -> Answers:
    """Send requests, in order, by so many clients; with `keep` over connections that stay open."""
    answers = Answers()
    answers.seconds = [0.0] * len(requests)
    answers.statuses, answers.bodies = [0] * len(requests), [b""] * len(requests)
    waiting = iter(enumerate(requests))

    async def client() -> None:
        streams = None
        for number, request in waiting:
            begun = time.perf_counter()
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", port)
                answer = await asyncio.wait_for(_ask(*streams, request), 120)
            except (OSError, EOFError, TimeoutError, ValueError):
                answer = 0, b""
            answers.seconds[number] = time.perf_counter() - begun
            answers.statuses[number], answers.bodies[number] = answer
            if streams is not None and (not keep or answer[0] == 0):
                streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    answers.took = time.perf_counter() - begun
    return answers


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    body = await (reader.readexactly(int(size[1])) if size else reader.read())
    return int(head.split()[1]), body
