"""Other surroundings for a corpus that was recorded in one room with one microphone.

Noise to train with, and copies of a development set as strangers would have recorded it. Everything
is made from the corpus itself and from random numbers, so that nothing more needs to be fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from asr.audio.load import load_audio, write_wav
from asr.audio.pcm import to_pcm
from asr.audio.silence import trimmed
from asr.augment.codecs import CODECS, through_codec
from asr.augment.config import AugmentConfig, NoiseConfig, ReverbConfig
from asr.augment.noise import Sounds, degrade
from asr.dataset.manifest import Utterance, write_manifest
from asr.inference.forced_alignment import align_words
from asr.models.bundle import Bundle
from asr.padded import pad

RATE = 16000
KEY = "surroundings"
SECONDS = 40  # of each noise
VOICES = 6  # of babble
MAINS_HZ = (50, 60)
PEAK = 0.5
BEFORE_S, AFTER_S = 0.03, 0.06  # of a word that is cut out: its first and last sounds are weak
TRIM_DB = 30.0
CODEC_PROB = 0.25
Progress = Callable[[int, int], None]


def write_noise(folder: Path, speech: Sequence[Utterance], seed: int) -> None:
    """Noise of several colours, mains hum and the babble of the speakers of `speech`, as wav."""
    random = np.random.default_rng(seed)
    noises = {
        **{f"colour-{slope}": _coloured(slope, random) for slope in (0, 3, 6, 9)},
        **{f"hum-{hertz}": _hum(hertz, random) for hertz in MAINS_HZ},
        **{f"babble-{i}": _babble(speech, random) for i in range(4)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, noise in noises.items():
        write_wav(folder / f"{name}.wav", PEAK * noise / np.abs(noise).max(), RATE)


def _coloured(slope: int, random: np.random.Generator) -> np.ndarray:
    """Noise whose power falls by `slope` dB an octave above 50 Hz, and swells now and then. Shape:
    [S]."""
    size = SECONDS * RATE
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 50.0)
    spectrum = np.fft.rfft(random.standard_normal(size)) * hertz ** (-slope / 6.02)
    knots = random.uniform(-6, 6, SECONDS // 2)  # dB
    swell = np.interp(np.arange(size), np.linspace(0, size, len(knots)), knots)
    return np.fft.irfft(spectrum, size) * 10 ** (swell / 20)


def _hum(hertz: int, random: np.random.Generator) -> np.ndarray:
    """The mains and their harmonics, with some pink noise. Shape: [S]."""
    time = np.arange(SECONDS * RATE) / RATE
    waves = [np.sin(2 * np.pi * (k * hertz * time + random.random())) / k for k in range(1, 20)]
    pink = _coloured(3, random)
    return np.sum(waves, axis=0) + 0.5 * pink / pink.std()


def _babble(speech: Sequence[Utterance], random: np.random.Generator) -> np.ndarray:
    """Several people who speak at the same time. Shape: [S]."""
    total = np.zeros(SECONDS * RATE)
    for _ in range(VOICES):
        own: list[np.ndarray] = []
        while sum(map(len, own)) < len(total):
            said = load_audio(speech[int(random.integers(len(speech)))].audio, RATE)
            own.append(said / max(float(said.std()), 1e-6))
        total += np.concatenate(own)[: len(total)]
    return total


def write_dev(
    folder: Path,
    dev: Sequence[Utterance],
    noise: Path,
    aligner: Bundle,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> Path:
    """The manifest of a development set in three conditions: the utterances of `dev` as they are,
    all of them in other surroundings, and each of their words alone, tightly cut, in others again.

    Their key `surroundings` says which: recorded, far or word. The `aligner` finds the words. An
    earlier manifest is kept.
    """
    path = folder / "dev.jsonl"
    if path.is_file():
        return path
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    recordings = [torch.from_numpy(load_audio(path, RATE)) for path in sorted(noise.glob("*.wav"))]
    sounds = Sounds(RATE, torch.cat([(32767 * one).short() for one in recordings]))
    audio = folder / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    made = []
    for number, utterance in enumerate(dev):
        progress(number, len(dev))
        made.append(replace(utterance, extra={KEY: "recorded"}))
        samples = load_audio(utterance.audio, RATE)
        parts = [("far", utterance.text, samples)]
        parts += [("word", *cut) for cut in _words(aligner, utterance, samples)]
        for i, (kind, text, part) in enumerate(parts):
            degraded = _moved(part, sounds, random)
            id_, seconds = f"{utterance.id}-{i}", len(degraded) / RATE
            file = (audio / f"{id_}.wav").resolve()
            write_wav(file, degraded, RATE)
            new = Utterance(id_, file, text, seconds, utterance.speaker, extra={KEY: kind})
            made.append(new)
    write_manifest(path, made)
    return path


def _words(
    aligner: Bundle, utterance: Utterance, samples: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Each word, and its samples without the silence on either side."""
    for word in align_words(aligner, torch.from_numpy(samples), utterance.text, utterance.id):
        first, last = int((word.start - BEFORE_S) * RATE), int((word.end + AFTER_S) * RATE)
        yield word.text, trimmed(samples[max(first, 0) : last], TRIM_DB, RATE)


def _moved(samples: np.ndarray, sounds: Sounds, random: np.random.Generator) -> np.ndarray:
    """A recording in other surroundings, at another level. Shape: [S] -> [S]."""
    augment = AugmentConfig(
        noise=NoiseConfig(prob=0.5, snr_db=(8, 25)),
        reverb=ReverbConfig(prob=0.4, rt60=(0.15, 0.6)),
        telephone_prob=0.25,
        lower_rate_prob=0.4,
    )
    degraded = degrade(pad([torch.from_numpy(samples)]), augment, sounds).values[0].numpy()
    peak = max(float(np.abs(degraded).max()), 1e-6)
    degraded = degraded * 10 ** (random.uniform(-20, 0) / 20) / peak
    if random.random() < CODEC_PROB:
        pcm = to_pcm(degraded)
        codec = CODECS[int(random.integers(len(CODECS)))]
        degraded = through_codec(pcm.steps, RATE, codec) * pcm.unit
    return np.asarray(degraded, np.float32)
