"""`asr serve` beside sherpa-onnx's offline WebSocket server, with the same network.

It is untrained, of the size of the included model, with features that sherpa-onnx computes
(`nemo`), and decoded greedily.
vosk's recogniser is in its wheel, but no model for it, and its server is in no wheel.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil

from asr.audio.load import load_audio, write_wav
from tests.bench.serve import CLIENTS, Answers, cpu_seconds, load, serving, transcription
from tests.bench.timing import print_table

REQUESTS = 260
RATE = 16000
SERVER = "sherpa-onnx-offline-websocket-server"


def run(paths: Sequence[Path]) -> None:
    """Print the table, or why there is none."""
    program = shutil.which(SERVER, path=str(Path(sys.executable).parent))
    if program is None:
        print(f"\n{SERVER} is missing (pip install sherpa-onnx-bin): no race")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        waves = [load_audio(path, RATE) for path in paths]
        contents = [_wav(folder, wave) for wave in waves]
        rows = []
        with serving(f"race={folder / 'onnx'}") as ours, sherpa(program, folder) as (port, process):
            requests = [transcription(content) for content in contents]
            frames = [_frame(wave) for wave in waves]
            for clients in CLIENTS:
                wanted = [requests[i % len(requests)] for i in range(REQUESTS)]
                before = ours.cpu_seconds()
                answers = asyncio.run(load(ours.port, wanted, clients))
                used = ours.cpu_seconds() - before
                assert answers.counted(2) == REQUESTS
                rows.append(_row("asr serve", clients, answers, used))
                wanted = [frames[i % len(frames)] for i in range(REQUESTS)]
                before = cpu_seconds(process.pid)
                answers = asyncio.run(_load_sherpa(port, wanted, clients))
                used = cpu_seconds(process.pid) - before
                assert all(json.loads(body)["tokens"] is not None for body in answers.bodies)
                rows.append(_row(SERVER, clients, answers, used))
    print_table(
        f"the same untrained network, greedy, {REQUESTS} requests each",
        ["server", "clients", "requests a second", "50 % ms", "95 % ms", "CPU ms a request"],
        rows,
    )


def _row(name: str, clients: int, answers: Answers, used: float) -> list[str]:
    return [
        name,
        str(clients),
        f"{len(answers.seconds) / answers.took:.1f}",
        f"{1000 * answers.quantile(0.5):.0f}",
        f"{1000 * answers.quantile(0.95):.0f}",
        f"{1000 * used / len(answers.seconds):.1f}",
    ]


def make(folder: Path) -> None:
    """An untrained model, exported for both servers."""
    import torch

    from asr.export.onnx_folder import export_onnx
    from asr.export.sherpa import export_sherpa
    from asr.features.extractor import FeatureConfig
    from asr.inference.transcribe import default_model
    from asr.models.acoustic import AcousticModel
    from asr.models.bundle import Bundle, save_bundle
    from asr.models.config import ModelConfig
    from asr.text.normalise import TextConfig
    from asr.text.tokens import Tokens

    torch.manual_seed(1)
    config = json.loads((default_model() / "config.json").read_text())
    tokens = Tokens.from_json(json.loads((default_model() / "tokens.json").read_text()))
    features = FeatureConfig(**config["features"] | {"kind": "nemo"})
    model = AcousticModel(features, ModelConfig(**config["model"]), len(tokens)).eval()
    save_bundle(folder / "model", Bundle(model, tokens, TextConfig()))
    export_onnx(folder / "model", folder / "onnx")
    export_sherpa(folder / "model", folder / "sherpa")


def _wav(folder: Path, wave: np.ndarray) -> bytes:
    write_wav(folder / "one.wav", wave, RATE)
    return (folder / "one.wav").read_bytes()


@contextlib.contextmanager
def sherpa(program: str, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run its server with as many threads as there are cores."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        program,
        f"--port={port}",
        f"--nemo-ctc-model={folder / 'sherpa' / 'model.onnx'}",
        f"--tokens={folder / 'sherpa' / 'tokens.txt'}",
        "--model-type=nemo_ctc",
        f"--num-work-threads={len(psutil.Process().cpu_affinity() or [1])}",
        "--num-threads=1",  # of each worker
        "--max-batch-size=3",
        f"--log-file={folder / 'log'}",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield port, process
        finally:
            process.terminate()


def _frame(wave: np.ndarray) -> bytes:
    samples = wave.astype("<f4").tobytes()
    return struct.pack("<ii", RATE, len(samples)) + samples


async def _load_sherpa(port: int, frames: Sequence[bytes], clients: int) -> Answers:
    from websockets.asyncio.client import connect

    answers = Answers([0.0] * len(frames), [200] * len(frames), [b""] * len(frames))
    waiting = iter(enumerate(frames))

    async def client() -> None:
        address = f"ws://127.0.0.1:{port}"
        async with connect(address, max_size=None, compression=None) as server:
            for number, frame in waiting:
                begun = time.perf_counter()
                await server.send(frame)
                answer = await server.recv()
                answers.seconds[number] = time.perf_counter() - begun
                answers.bodies[number] = answer if isinstance(answer, bytes) else answer.encode()
            await server.send("Done")

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    answers.took = time.perf_counter() - begun
    return answers
