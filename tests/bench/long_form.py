"""A recording of three hours against its utterances alone: errors, time and memory.

AN4's test utterances are joined with pauses of 0.2 to 20 seconds, in pink noise 15 dB below the
speech. Nothing was tuned on them: the segmentation was chosen on AN4's dev speakers.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
import psutil
import soundfile

from asr.audio.load import load_audio, write_wav
from asr.audio.vad import best_kind
from asr.dataset.manifest import Utterance, read_manifest
from asr.inference.recognizer import Recognizer, load_recognizer
from data import an4
from tests.bench.corpus import SOURCE
from tests.bench.timing import verdict

HOURS = 3.0
PAUSES_S = (0.2, 20.0)
SNR_DB = 15.0
LEVEL = 0.05  # of the speech, full scale 1
RATE = 16000
SEED = 1
ROUNDS = 2


@dataclass
class Recordings:
    """One recording, and the same utterances in files of their own, with the same noise."""

    long: Path
    alone: list[Path] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(hours: float = HOURS) -> None:
    """Print the figures, or why there are none."""
    print(f"\nlong_form: {hours:g} hours of AN4 test utterances with pauses, in pink noise")
    if not SOURCE.is_dir():
        print(f"  no AN4 in {SOURCE}: left out")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = an4.prepare(folder, SOURCE)["test"]
        recognizer = load_recognizer()
        made = make(folder, list(read_manifest(manifest)), hours, recognizer)
        compare(recognizer, made)


def make(
    folder: Path, utterances: list[Utterance], hours: float, recognizer: Recognizer
) -> Recordings:
    random = np.random.default_rng(SEED)
    noise = pink_noise(random, 60 * RATE) * np.float32(LEVEL * 10 ** (-SNR_DB / 20))
    made = Recordings(folder / "long.wav")
    at = 0
    with soundfile.SoundFile(made.long, "w", RATE, 1, "PCM_16") as file:

        def write(samples: np.ndarray) -> np.ndarray:
            nonlocal at
            noisy = samples + noise[(at + np.arange(len(samples))) % len(noise)]
            at += len(samples)
            file.write(noisy)
            return noisy

        while at < hours * 3600 * RATE:
            write(np.zeros(round(random.uniform(*PAUSES_S) * RATE), np.float32))
            utterance = utterances[int(random.integers(len(utterances)))]
            speech = load_audio(utterance.audio, RATE)
            noisy = write(speech * np.float32(LEVEL / speech.std()))
            path = folder / f"{len(made.alone):04d}.wav"
            write_wav(path, noisy, RATE)
            made.alone.append(path)
            made.texts.append(recognizer.bundle.normalise(utterance.text))
    made.seconds = at / RATE
    return made


def pink_noise(random: np.random.Generator, count: int) -> np.ndarray:
    """Noise whose power falls by 3 dB an octave, with deviation 1. Shape: [S]."""
    spectrum = np.fft.rfft(random.normal(size=count))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0.0
    samples = np.fft.irfft(spectrum, count)
    return (samples / samples.std()).astype(np.float32)


def compare(recognizer: Recognizer, made: Recordings) -> None:
    """Both in turn, texts only. CPU seconds as well, since other programs may run, and speech is
    detected in another thread than it is recognised.
    """
    recognizer.transcribe(made.alone[0], words=False)
    with peak_memory() as memory:
        found = recognizer.transcribe(made.long, words=False)
    alone: list[str] = []
    alone_s, long_s = np.zeros(2), np.zeros(2)

    def transcribe_alone() -> None:
        results = recognizer.transcribe(made.alone, words=False)
        alone[:] = [result.text for result in results]

    for _ in range(ROUNDS):
        alone_s += seconds_of(transcribe_alone) / ROUNDS
        long_s += seconds_of(lambda: recognizer.transcribe(made.long, words=False)) / ROUNDS
    words = sum(len(text.split()) for text in made.texts)
    # One alignment for both: that of joined texts never has more errors than those of the parts.
    apart = errors(" ".join(made.texts), " ".join(alone))
    together = errors(" ".join(made.texts), found.text)
    print(
        f"  {made.seconds:.0f} s, {len(made.alone)} utterances, {len(found.segments)} segments,"
        f" detector {best_kind()}"
    )
    print(f"  errors alone {apart}/{words}, in one recording {together}/{words}")
    for name, place in (("s", 0), ("CPU s", 1)):
        print(f"  {name} alone {alone_s[place]:.1f}, in one recording {long_s[place]:.1f}")
    worse = 100 * (together - apart) / words
    verdict("WER points worse than alone", worse, "<= 0.5", worse <= 0.5)
    ratio, cpu_ratio = long_s / alone_s
    verdict("time to that of the utterances alone", ratio, "<= 1.3", ratio <= 1.3)
    print(f"  CPU time to that of the utterances alone: {cpu_ratio:.3g}")
    verdict("MiB above the loaded model", memory[0], "<= 1024", memory[0] <= 1024)


def errors(reference: str, hypothesis: str) -> int:
    """Edits between two texts; jiwer aligns 10,000 words in a second."""
    counts = jiwer.process_words(reference, hypothesis)
    return int(counts.substitutions + counts.deletions + counts.insertions)


def seconds_of(function: Callable[[], object]) -> np.ndarray:
    """Seconds and CPU seconds. Shape: [2]."""
    before = np.array([time.perf_counter(), time.process_time()])
    function()
    return np.array([time.perf_counter(), time.process_time()]) - before


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """A list with the most MiB by which the process grew."""
    process, found, stopped = psutil.Process(), [0.0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not stopped.wait(0.05):
            found[0] = max(found[0], (process.memory_info().rss - before) / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stopped.set()
        thread.join()
