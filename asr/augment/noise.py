"""Noise, reverberation, the telephone channel and lower sampling rates.

All functions act on a batch of waveforms, on its device. Random numbers come from torch's global
generator, which the trainer seeds for every step.

B utterances, S samples, L samples of an impulse response, R rows that are changed, F frequencies.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torchaudio
from torch import Tensor

from asr.audio.files import find_audio
from asr.audio.load import load_audio
from asr.audio.pcm import INT16, to_pcm
from asr.augment.config import AugmentConfig, NoiseConfig, ReverbConfig
from asr.errors import AudioWarning, ConfigError
from asr.padded import Padded, pad, sent
from asr.shares import draw, pick, rand, randn, sharing

DIRECT_DB = (0.0, 12.0)  # direct sound relative to the room's response: from far to near
DECAY = 3 * math.log(10)  # nepers in 60 dB
TELEPHONE_HZ = (300.0, 3400.0)
TELEPHONE_RATE = 8000
LEVELS = 256  # of the telephone's 8 bits (ITU-T G.711, mu-law)
NO_NOISE = torch.zeros(0, dtype=torch.int16)


@dataclass(frozen=True)
class Sounds:
    """Recordings that are mixed in; without a folder there are none.

    Shape: noise [S], the recordings concatenated, as 16-bit integers; responses: each [L], with the
    direct sound first.
    """

    sample_rate: int
    noise: Tensor
    responses: tuple[Tensor, ...] = ()

    @cached_property
    def rooms(self) -> Tensor:
        """All responses, padded with zeros. Shape: [N, L]."""
        return pad(self.responses).values

    def to(self, device: torch.device | str) -> Sounds:
        responses = tuple(response.to(device) for response in self.responses)
        return Sounds(self.sample_rate, self.noise.to(device), responses)


def load_sounds(augment: AugmentConfig, sample_rate: int) -> Sounds:
    """Read the folders. Raises ConfigError for a folder without recordings, and AudioError for an
    unreadable recording."""
    noise = [
        torch.from_numpy(to_pcm(load_audio(path, sample_rate)).steps)
        for path in _files(augment.noise.folder, "noise")
    ]
    rooms = [
        torch.from_numpy(load_audio(path, sample_rate))
        for path in _files(augment.reverb.folder, "reverb")
    ]
    # The time before the direct sound is the delay of the recording, not of the room.
    responses = tuple(room[int(room.abs().argmax()) :] for room in rooms)
    return Sounds(sample_rate, torch.cat(noise) if noise else NO_NOISE, responses)


def _files(folder: Path | None, name: str) -> list[Path]:
    if folder is None:
        return []
    found = find_audio([folder], _warn) if folder.is_dir() else []
    if not found:
        raise ConfigError(
            f"expected recordings in augment.{name}.folder, got none in {folder}: name a "
            "folder with audio files"
        )
    return found


def _warn(note: str) -> None:
    folder, _, what = note.partition(": ")
    warnings.warn(AudioWarning(folder, what), stacklevel=2)


def degrade(waves: Padded, augment: AugmentConfig, sounds: Sounds) -> Padded:
    """Reverberation, then noise, then the telephone channel, then a lower rate. Shape: [B, S] ->
    [B, S]."""
    waves = reverberate(waves, augment.reverb, sounds)
    waves = add_noise(waves, augment.noise, sounds)
    waves = telephone(waves, augment.telephone_prob, sounds.sample_rate)
    return lower_rate(waves, augment.lower_rate_prob, augment.lower_rates, sounds.sample_rate)


def _chosen(prob: float, waves: Padded) -> Tensor:
    """Which utterances are changed. Shape: [B] bool."""
    return rand(len(waves.lengths), device=waves.values.device) < prob


def _uniform(bounds: tuple[float, float], count: int, device: torch.device) -> Tensor:
    low, high = bounds
    return low + (high - low) * rand(count, device=device)


def power(waves: Padded) -> Tensor:
    """Mean square of the samples of each utterance. Shape: [B, S] -> [B]."""
    return waves.zeroed().values.square().sum(dim=1) / waves.lengths.clamp(min=1)


def add_noise(waves: Padded, config: NoiseConfig, sounds: Sounds) -> Padded:
    """Add noise from a random position of the recordings, repeated if they are too short.

    Shape: [B, S] -> [B, S].
    """
    if not config.prob or not len(sounds.noise):
        return waves
    chosen = _chosen(config.prob, waves)
    (B, S), device = waves.values.shape, waves.values.device
    starts = (rand(B, 1, device=device) * len(sounds.noise)).long()
    places = (starts + torch.arange(S, device=device)) % len(sounds.noise)
    noise = Padded(sounds.noise[places] / INT16, waves.lengths)
    snr = _uniform(config.snr_db, B, device)
    wanted = power(waves) * 10 ** (-snr / 10)
    scale = (wanted / power(noise).clamp(min=1e-12)).sqrt() * chosen
    return Padded(waves.values + scale[:, None] * noise.values, waves.lengths)


def reverberate(waves: Padded, config: ReverbConfig, sounds: Sounds) -> Padded:
    """Play each chosen utterance in its own room, with its power kept. Shape: [B, S] -> [B, S].

    The response of a simulated room is noise that decays exponentially (Polack 1988), 0 to 12 dB
    below the direct sound.
    """
    if not config.prob:
        return waves
    rows, share = pick(config.prob, len(waves.lengths), waves.values.device)
    with sharing(share):
        if sounds.responses:
            responses = _recorded(len(rows), sounds)
        else:
            responses = _simulated(len(rows), config, sounds.sample_rate, waves.values.device)
    if not len(rows):
        return waves
    dry = Padded(waves.values[rows], waves.lengths[rows]).zeroed()
    S, size = dry.values.shape[1], dry.values.shape[1] + responses.shape[1] - 1
    spectrum = torch.fft.rfft(dry.values, size) * torch.fft.rfft(responses, size)
    wet = Padded(torch.fft.irfft(spectrum, size)[:, :S], dry.lengths)
    gain = (power(dry) / power(wet).clamp(min=1e-30)).sqrt()
    values = waves.values.clone()
    values[rows] = wet.values * gain[:, None]
    return Padded(values, waves.lengths)


def _recorded(count: int, sounds: Sounds) -> Tensor:
    """Shape: [count, L]."""
    drawn = draw(lambda n: torch.randint(len(sounds.responses), (n,)), count).tolist()
    if not drawn:  # of a batch that several processes share, one may have none
        return torch.zeros(0, 1)
    longest = max(len(sounds.responses[i]) for i in drawn)
    rooms: Tensor = sounds.rooms
    return rooms.index_select(0, sent(drawn, rooms.device))[:, :longest]


def _simulated(count: int, config: ReverbConfig, sample_rate: int, device: torch.device) -> Tensor:
    """Shape: [count, L]."""
    seconds = _uniform(config.rt60, count, device)
    time = torch.arange(int(config.rt60[1] * sample_rate), device=device) / sample_rate
    tail = randn(count, len(time), device=device)
    tail = tail * torch.exp(-DECAY * time / seconds[:, None])
    tail[:, 0] = 0.0
    level = 10 ** (-_uniform(DIRECT_DB, count, device) / 20)
    tail = tail * (level / tail.square().sum(dim=1).sqrt().clamp(min=1e-12))[:, None]
    tail[:, 0] = 1.0
    return tail


def telephone(waves: Padded, prob: float, sample_rate: int) -> Padded:
    """Pass chosen utterances through a telephone channel. Shape: [B, S] -> [B, S]."""
    if not prob:
        return waves
    rows, _ = pick(prob, len(waves.lengths), waves.values.device)
    if not len(rows):
        return waves
    chosen = Padded(waves.values[rows], waves.lengths[rows]).zeroed().values
    hertz = _frequencies(chosen, sample_rate)
    low, high = TELEPHONE_HZ
    passed = torch.sigmoid((hertz - low) / (low / 6)) * torch.sigmoid((high - hertz) / (high / 40))
    narrow = _filtered(chosen, passed)
    loudest = narrow.abs().amax(dim=1, keepdim=True).clamp(min=1e-15)
    coded = torchaudio.functional.mu_law_encoding(narrow / loudest, LEVELS)
    decoded = torchaudio.functional.mu_law_decoding(coded, LEVELS) * loudest
    values = waves.values.clone()
    # The noise of the 8 bits is that of samples at 8 kHz, so none of it is above 4 kHz.
    values[rows] = _filtered(decoded, _below(hertz, decoded.new_tensor(TELEPHONE_RATE)))
    return Padded(values, waves.lengths)


def lower_rate(waves: Padded, prob: float, rates: Sequence[int], sample_rate: int) -> Padded:
    """Chosen utterances as if recorded at one of `rates`, in samples a second: without the
    frequencies from half of it on. Shape: [B, S] -> [B, S]."""
    if not prob:
        return waves
    device = waves.values.device
    rows, share = pick(prob, len(waves.lengths), device)
    with sharing(share):
        places = (rand(len(rows), device=device) * len(rates)).long()
    if not len(rows):
        return waves
    drawn = sent(list(rates), device)[places][:, None]
    chosen = Padded(waves.values[rows], waves.lengths[rows]).zeroed().values
    values = waves.values.clone()
    values[rows] = _filtered(chosen, _below(_frequencies(chosen, sample_rate), drawn))
    return Padded(values, waves.lengths)


def _frequencies(waves: Tensor, sample_rate: int) -> Tensor:
    """Shape: [R, S] -> [F], in hertz."""
    return torch.fft.rfftfreq(waves.shape[1], 1 / sample_rate, device=waves.device)


def _below(hertz: Tensor, rates: Tensor) -> Tensor:
    """What the filter of a recorder at these rates passes. Shape: [F], [R, 1] -> [R, F]."""
    high = 0.475 * rates
    return torch.sigmoid((high - hertz) / (high / 120))


def _filtered(waves: Tensor, passed: Tensor) -> Tensor:
    """Shape: [R, S], [F] or [R, F] -> [R, S]."""
    return torch.fft.irfft(torch.fft.rfft(waves) * passed, waves.shape[1])
