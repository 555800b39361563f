"""Utterances of a manifest as batches of waveforms and targets."""

from __future__ import annotations

import itertools
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from asr.audio.pcm import INT16, Pcm, to_pcm
from asr.audio.silence import trimmed
from asr.augment.codecs import through_codec
from asr.dataset.cuts import Item, Stretch
from asr.dataset.manifest import Utterance
from asr.dataset.prefetch import R
from asr.dataset.shards import load_recording
from asr.errors import AsrError, AudioError
from asr.io.paths import as_stored
from asr.padded import Padded
from asr.shares import Share, share_of
from asr.text.normalise import TextConfig, normalise
from asr.text.tokens import Tokens

CACHE_BYTES = 2 << 30  # waveforms kept in memory as 16-bit samples: about 18 hours at 16 kHz
Stamp = tuple[int, int]
"""Size of a file in bytes and time of its last change in nanoseconds."""
FADE_S = 0.004  # at the edges of a spliced stretch


@dataclass(frozen=True)
class Batch:
    """Utterances ready for the model.

    Shape:
        waves: values [B, S]; targets: values [B, U] int64; spelled: the same text in characters,
        values [B, C] int64; speeds, tempos: B playing speeds and tempos to apply; samples: the
        lengths of waves, on the host.
    """

    ids: list[str]
    waves: Padded
    targets: Padded
    spelled: Padded
    speeds: list[float]
    tempos: list[float]
    samples: list[int]
    share: Share | None = None
    """The rows of this batch in a batch that several processes share; None: not shared."""
    all_ids: list[str] = field(default_factory=list)
    """Ids of all utterances of the shared batch."""
    weights: torch.Tensor | None = None
    """Weight of each utterance in the loss, float32 [B]; None: all weights are equal."""

    def to(self, device: torch.device | str) -> Batch:
        waves, targets = self.waves.to(device), self.targets.to(device)
        weights = None if self.weights is None else self.weights.to(device)
        spelled = self.spelled.to(device)
        return replace(self, waves=waves, targets=targets, spelled=spelled, weights=weights)


def stamp(path: Path) -> Stamp | None:
    """Size and modification time, to detect changes of a file; None if there is no such file."""
    try:
        found = as_stored(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


class SpeechDataset:
    """The utterances of a manifest; waveforms are decoded on first use and cached."""

    def __init__(
        self,
        utterances: Sequence[Utterance],
        tokens: Tokens | None,
        text: TextConfig,
        sample_rate: int,
        weights: Sequence[float] = (),
        stamps: Mapping[Path, Stamp] | None = None,
    ) -> None:
        """Without `tokens` there are no targets: for evaluation, where texts may have any
        characters. `weights` are what the utterances count in training; empty: all the same.
        `stamps` are those of the files when a training began: one that has changed is refused.

        Raises AsrError naming the first transcript that the tokens cannot encode, or that has words
        without phones.
        """
        self.utterances = utterances
        self._tokens = tokens
        self.references: list[str] = []
        self.durations: list[float] = []
        self.speakers: list[str] = []
        for u in utterances:
            reference = _named(u.id, partial(normalise, u.text, text))
            if tokens is not None:
                _named(u.id, partial(tokens.encode, reference))
            self.references.append(reference)
            self.durations.append(u.duration)
            self.speakers.append(u.speaker)
        self.sample_rate = sample_rate
        self.weights = weights
        self.stamps = stamps or {}
        self._cache: dict[int, Pcm] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.utterances)

    def target(self, index: int) -> list[int]:
        """The target tokens of an utterance; they are not cached, since there may be a million."""
        return self._tokens.encode(self.references[index]) if self._tokens else []

    def spelled(self, index: int) -> list[int]:
        """The same text in characters."""
        return self._spelled(self.target(index))

    def waveform(self, index: int) -> np.ndarray:
        """Mono samples float32 [S] at the dataset's rate, full scale 32768; with fractions in quiet
        recordings. Raises AudioError naming the file, also if it has changed since the training
        began."""
        pcm = self._cache.get(index) or self._decode(index)
        return pcm.samples * np.float32(INT16)

    def _decode(self, index: int) -> Pcm:
        u = self.utterances[index]
        decoded = load_recording(u.audio, self.sample_rate, u.start, u.end, u.packed)
        now = stamp(u.audio) if u.audio in self.stamps else None
        if now != self.stamps.get(u.audio):
            got = "a file that has changed" if now else "no such file"  # it has gone since
            raise AudioError(
                f"{u.audio}: expected the recording of {u.id} as it was when the training began, "
                f"got {got}: restore it to resume the training, or train from the start in "
                "another out"
            )
        # Rounded even when not cached, so that the cache never changes a result.
        pcm = to_pcm(decoded)
        if self._cached_bytes + pcm.steps.nbytes <= CACHE_BYTES:
            self._cache[index] = pcm
            self._cached_bytes += pcm.steps.nbytes
        return pcm

    def _samples(self, stretch: Stretch) -> np.ndarray:
        samples = self.waveform(stretch.index)
        if stretch.whole:
            return samples
        rate = self.sample_rate
        end = None if stretch.end is None else int(stretch.end * rate)
        return _faded(samples[int(stretch.start * rate) : end], int(FADE_S * rate))

    def _played(self, item: Item) -> np.ndarray:
        samples = np.concatenate([self._samples(stretch) for stretch in item.stretches])
        if item.trim_db is not None:
            samples = trimmed(samples, item.trim_db, self.sample_rate)
        if item.codec is None:
            return samples
        pcm = to_pcm(samples / np.float32(INT16))  # a quiet recording is coded at a normal level
        coded = through_codec(pcm.steps, self.sample_rate, item.codec)
        return coded * np.float32(pcm.unit * INT16)

    def _target(self, stretch: Stretch) -> list[int]:
        if stretch.whole:
            return self.target(stretch.index)
        assert self._tokens is not None
        words = self.references[stretch.index].split()[stretch.first : stretch.last]
        return self._tokens.encode(" ".join(words))

    def _spelled(self, target: Sequence[int]) -> list[int]:
        return self._tokens.spell(target) if self._tokens else []

    def share(self, items: Sequence[Item], rank: int, size: int) -> Batch:
        """The part of a batch that process `rank` of `size` computes."""
        share = share_of(len(items), rank, size)
        assert isinstance(share.rows, slice)
        part = self.batch(items[share.rows])
        return replace(part, share=share, all_ids=[self._name(item) for item in items])

    def _name(self, item: Item) -> str:
        return "+".join(self.utterances[i].id for i in item.indices)

    def batch(self, items: Sequence[Item]) -> Batch:
        played = [self._played(item) for item in items]
        parts = [[self._target(stretch) for stretch in item.stretches] for item in items]
        targets = [list(itertools.chain.from_iterable(part)) for part in parts]
        waves = _padded(played, np.float32)
        waves.values.numpy()[:] /= INT16
        return Batch(
            ids=[self._name(item) for item in items],
            waves=waves,
            targets=_padded(targets, np.int64),
            spelled=_padded([self._spelled(target) for target in targets], np.int64),
            speeds=[item.speed for item in items],
            tempos=[item.tempo for item in items],
            samples=[len(row) for row in played],
            weights=self._weights(items, parts),
        )

    def _weights(
        self, items: Sequence[Item], targets: Sequence[Sequence[Sequence[int]]]
    ) -> torch.Tensor | None:
        """The weight of each item: the mean of its stretches, by their number of tokens."""
        if not self.weights:
            return None
        rows = []
        for item, part in zip(items, targets, strict=True):
            own = [self.weights[index] for index in item.indices]
            counts = [len(target) for target in part] if any(part) else [1] * len(own)
            rows.append(float(np.average(own, weights=counts)))
        return torch.tensor(rows)


def _faded(samples: np.ndarray, length: int) -> np.ndarray:
    """The same with fades at the edges, so that a cut does not click."""
    length = min(length, len(samples) // 2)
    ramp = np.linspace(0, 1, length)
    faded = samples.astype(np.float32)
    faded[:length] *= ramp
    faded[len(faded) - length :] *= ramp[::-1]
    return faded


def _named(name: str, function: Callable[[], R]) -> R:
    """Call the function; its errors name the utterance."""
    try:
        return function()
    except AsrError as error:
        raise AsrError(f"utterance {name}: {error}") from None


def _padded(rows: Sequence[Sequence[int] | np.ndarray], dtype: type) -> Padded:
    # numpy, because this runs beside the training: a second thread with torch operators starts a
    # second OpenMP pool, and the two pools slow each other down (five times).
    lengths = [len(row) for row in rows]
    values: np.ndarray = np.zeros((len(rows), max(lengths)), dtype)
    for target, row, length in zip(values, rows, lengths, strict=True):
        target[:length] = row
    return Padded(torch.from_numpy(values), torch.tensor(lengths))
