"""Recognition of pieces in large batches: samples in memory to greedy text, and files to text with
one thread that reads and with several.

On a CPU the same with a small model and few pieces, so that the benchmark itself stays sound.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from asr.audio.load import write_wav
from asr.decoding.decoder import Decoder
from asr.features.extractor import FeatureConfig
from asr.inference.batches import READERS, Batches
from asr.inference.transcribe import transcribe
from asr.inference.word_times import recognize_texts
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.models.config import ModelConfig
from asr.text.normalise import TextConfig
from asr.text.tokens import TokenConfig, build_tokens
from tests.bench.timing import interleave, print_table, verdict

PIECES, SECONDS = 1000, 10.0
FILES, DISTINCT = 4000, 100  # recordings of a piece each
LAYERS, HIDDEN = 5, 512
SMALL_PIECES, SMALL_FILES, SMALL_LAYERS, SMALL_HIDDEN = 6, 8, 2, 32  # on a CPU
GOAL = 40_000  # seconds of audio in a second
ROUNDS = 3


def run() -> dict[str, float]:
    """Print how fast a batch and files become text, and how much of that the scores take."""
    gpu = torch.cuda.is_available()
    pieces, files, layers, hidden = (
        (PIECES, FILES, LAYERS, HIDDEN)
        if gpu
        else (SMALL_PIECES, SMALL_FILES, SMALL_LAYERS, SMALL_HIDDEN)
    )
    where = torch.cuda.get_device_name() if gpu else "the CPU, a small size: no GPU"
    title = f"recognition: {pieces} pieces of {SECONDS:g} s, {layers}x{hidden}, on {where}"
    bundle = untrained(layers, hidden)
    speeds = measure(bundle, pieces) | measure_files(bundle, files)
    rows = [[name, f"{speed:,.0f}"] for name, speed in speeds.items()]
    print_table(title, ["", "times real time"], rows)
    if gpu:
        for name, what in (("text", "samples to text"), (_readers(READERS), "files to text")):
            speed = speeds[name]
            verdict(f"{what}, times real time", speed, f">= {GOAL:,}", speed >= GOAL)
    return speeds


def untrained(layers: int, hidden: int) -> Bundle:
    """A model of this size."""
    torch.manual_seed(0)
    tokens = build_tokens(["abcdefghijklmnopqrstuvwxyz '"], TokenConfig())
    config = ModelConfig(layers=layers, hidden=hidden)
    return Bundle(AcousticModel(FeatureConfig(), config, len(tokens)), tokens, TextConfig())


def measure(bundle: Bundle, pieces: int) -> dict[str, float]:
    """Seconds of audio in a second: log-probabilities alone, and with the text."""
    decoder, waves = Decoder(bundle.tokens), noise(bundle, pieces)

    def scores() -> None:
        bundle.score(waves)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    text = partial(recognize_texts, bundle, decoder, waves, [False] * pieces)
    seconds = interleave({"log-probabilities": scores, "text": text}, ROUNDS)
    return {name: pieces * SECONDS / value for name, value in seconds.items()}


def measure_files(bundle: Bundle, files: int) -> dict[str, float]:
    """Seconds of audio in a second from WAV files that the system has in memory."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.wav" for i in range(min(files, DISTINCT))]
        for path, wave in zip(paths, noise(bundle, len(paths)), strict=True):
            write_wav(path, wave, bundle.sample_rate)
        sources = [paths[i % len(paths)] for i in range(files)]

        def read(count: int) -> None:
            with mock.patch.object(Batches, "readers", count):
                results = list(transcribe(bundle, sources))
            assert all(result.error is None for result in results)

        ways = {_readers(count): partial(read, count) for count in (1, READERS)}
        seconds = interleave(ways, ROUNDS)
    return {name: files * SECONDS / value for name, value in seconds.items()}


def noise(bundle: Bundle, pieces: int) -> list[np.ndarray]:
    random, count = np.random.default_rng(0), round(SECONDS * bundle.sample_rate)
    return [random.normal(0, 0.1, count).astype(np.float32) for _ in range(pieces)]


def _readers(count: int) -> str:
    return f"files, {count} threads read" if count > 1 else "files, one thread reads"
