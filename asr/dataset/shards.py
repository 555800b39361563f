"""Shards: recordings packed into tar archives of a few hours each.

A corpus of a million files is slow to copy, to list and to read from a disk or an object store; a
few hundred archives are not. A shard is an ordinary tar with `00000012.flac` and `00000012.json`
for every utterance, the layout of WebDataset, so that other tools can read it. The manifest gives
the bytes of each recording in its shard, so that each can be read alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr.audio.load import SAMPLE_RATE, load_audio
from asr.audio.pcm import INT16, to_pcm
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.errors import AsrError, AudioError
from asr.io.files import atomic_path, remove_leftovers
from asr.io.structured import parse_json

FINEST = 2.0**-23  # one step of 24 bits, full scale 1
SHARD_HOURS = 4.0
"""Hours of audio in a shard, about 250 megabytes."""
_STAMP = "shard.json"
MOST_STAMP = 1 << 16  # bytes
_ORDER = 1  # seed of the order in which utterances are assigned to shards

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Archive:
    """An archive, and the number of bytes up to the end of its recordings."""

    path: Path
    bytes: int


@dataclass(frozen=True)
class Packed:
    """The written manifests, and why recordings are missing from them."""

    manifests: tuple[Path, ...]
    shards: int
    unreadable: tuple[str, ...]


def load_recording(
    audio: Path,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    packed: tuple[int, int] | None = None,
    say: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Samples of a recording, or of its seconds `start` to `end`, as from `load_audio`.

    `packed` is its first byte and number of bytes within the shard `audio`. `say` reports damage;
    the default is an `AudioWarning`. Damage in a shard is an error.

    Shape: float32 [S]. Raises AudioError naming the file.
    """
    if packed is None:
        return load_audio(audio, rate, start, end, say)
    first, count = packed
    where = f"{audio}, bytes {first} to {first + count}"
    try:
        with audio.open("rb") as file:
            file.seek(first)
            content = file.read(count)
    except OSError as error:
        raise AudioError(
            f"{where}: expected a recording in a shard, got '{error.strerror}'; fetch or pack the"
            " shard again"
        ) from error
    if len(content) < count:
        raise AudioError(
            f"{where}: expected {count} bytes, got {len(content)}; the shard is incomplete: fetch"
            " or pack it again"
        )
    damage: list[str] = []
    with suppress(AudioError):
        samples = load_audio(content, rate, start, end, damage.append)
        if not damage:
            return samples
    raise AudioError(
        f"{where}: expected a recording, got other bytes; the shard is damaged, or of"
        " another packing than the manifest: pack again, or delete it to fetch it again"
    )


def by_shard(utterances: Sequence[Utterance]) -> tuple[list[Archive], Sequence[int]]:
    """The shards of packed utterances, and the index of each utterance's shard.

    Raises AsrError for an utterance that is not packed.
    """
    sizes: dict[Path, int] = {}
    places: dict[Path, int] = {}
    of = array("i")
    for u in utterances:
        if u.packed is None:
            raise AsrError(
                f"expected packed recordings, got {u.id} in a file of its own: asr pack packs them"
            )
        of.append(places.setdefault(u.audio, len(places)))
        sizes[u.audio] = max(sizes.get(u.audio, 0), sum(u.packed))
    return [Archive(path, size) for path, size in sizes.items()], of


def pack(
    manifests: Sequence[Path],
    folder: Path,
    hours: float = SHARD_HOURS,
    rate: int = SAMPLE_RATE,
    progress: Progress | None = None,
) -> Packed:
    """Write the recordings of manifests into shards in `folder`, with a manifest of the same name.

    Samples are stored at `rate`, the rate of the model, so that training on shards gets the same
    samples. Utterances are assigned to shards at random, so that a few shards contain many
    speakers; the manifest keeps its order. Existing shards are kept if nothing in them has changed:
    an interrupted packing resumes. Recordings that cannot be read are left out and reported.

    Raises AsrError: two manifests of one name, or manifests that cannot be read or written.
    """
    packing = Packing(manifests, folder, hours, rate)
    return packing.finish(packing.write_all(progress))


@dataclass(frozen=True)
class Written:
    """A shard on disk: the bytes of each recording, and why others are missing, by index."""

    name: str
    found: Mapping[int, tuple[int, int]]
    problems: Mapping[str, str]
    """By index as text, which JSON keeps."""
    error: str | None = None
    """One line for all problems."""


class Packing:
    """The plan of `pack`: which utterances go into which shard. Each can be written alone."""

    def __init__(
        self,
        manifests: Sequence[Path],
        folder: Path,
        hours: float = SHARD_HOURS,
        rate: int = SAMPLE_RATE,
    ) -> None:
        """Read the manifests. Raises AsrError as `pack` does."""
        names = [path.stem for path in manifests]
        for path in manifests:
            if names.count(path.stem) > 1:
                raise AsrError(f"expected manifests of different names, got {path.name} twice")
            if path.resolve() == (folder / f"{path.stem}.jsonl").resolve():
                raise AsrError(f"expected another folder than that of {path}, got {folder}")
        self._folder, self._rate = folder, rate
        self._parts = {path.stem: read_manifest(path) for path in manifests}
        self.archives: dict[str, tuple[str, list[int]]] = {}
        """The manifest of each shard, and the indices of its utterances, by file name."""
        for name, utterances in self._parts.items():
            for number, places in enumerate(_dealt(utterances.durations, 3600 * hours)):
                self.archives[f"{name}-{number:05}.tar"] = name, places

    def stamp(self, name: str) -> str:
        """A digest of what goes into a shard, with the present state of the files."""
        return _stamp(self._rows(name), self._rate)

    def write(self, name: str, report: Callable[[int], None] | None = None) -> Written:
        """Write a shard, unless it is complete and nothing in it has changed."""
        rows, path = self._rows(name), self._folder / name
        stamp = _stamp(rows, self._rate)
        problems: dict[int, str] = {}
        found = _members(path) if _stamp_of(path) == stamp else {}
        if len(found) < len(rows):  # recordings that could not be read may have been fixed
            problems = _write(path, rows, self._rate, stamp, report)
            found = _members(path)
        elif report is not None:
            report(len(rows))
        error = None
        if problems:
            error = f"{name}: {len(problems)} left out, first: {next(iter(problems.values()))}"
        return Written(name, found, {str(place): why for place, why in problems.items()}, error)

    def write_all(self, progress: Progress | None = None) -> Iterator[Written]:
        """Write every shard."""
        total = sum(map(len, self._parts.values()))
        done = 0
        for name, (_, places) in self.archives.items():
            report = None if progress is None else partial(_report, progress, done, total)
            yield self.write(name, report)
            done += len(places)

    def is_here(self, name: str) -> bool:
        """Whether a shard is in the folder, with all recordings."""
        path = self._folder / name
        is_same = _stamp_of(path) == self.stamp(name)
        return is_same and len(_members(path)) == len(self._rows(name))

    def written(self, name: str, problems: Mapping[str, str]) -> Written:
        """A shard that another process has written. Raises AsrError if it is not here."""
        path = self._folder / name
        found = _members(path) if _stamp_of(path) == self.stamp(name) else {}
        if len(found) + len(problems) != len(self._rows(name)):
            raise AsrError(
                f"expected {path} as it was packed, got none or another: copy it, or delete it and "
                "pack it again"
            )
        return Written(name, found, problems)

    def finish(self, archives: Iterable[Written]) -> Packed:
        """Write the manifests, from all shards in order; shards of an earlier packing are removed.

        Raises AsrError for a manifest that cannot be written.
        """
        found: dict[str, dict[int, Utterance]] = {name: {} for name in self._parts}
        unreadable = []
        for archive in archives:
            name, places = self.archives[archive.name]
            utterances = self._parts[name]
            for place in places:
                bytes_ = archive.found.get(place)
                if bytes_ is None:
                    unreadable.append(f"{utterances[place].id}: {archive.problems[str(place)]}")
                else:
                    found[name][place] = replace(
                        utterances[place],
                        audio=self._folder / archive.name,
                        start=0.0,
                        end=None,
                        packed=bytes_,
                    )
        manifests = []
        for name, rows in found.items():
            _remove_others(self._folder, name, sum(n == name for n, _ in self.archives.values()))
            manifests.append(self._folder / f"{name}.jsonl")
            write_manifest(manifests[-1], (rows[place] for place in sorted(rows)))
        return Packed(tuple(manifests), len(self.archives), tuple(unreadable))

    def _rows(self, name: str) -> list[_Row]:
        part, places = self.archives[name]
        return [(place, self._parts[part][place]) for place in places]


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _dealt(durations: Sequence[float], seconds: float) -> list[list[int]]:
    """Indices of utterances by shard, each of about `seconds`."""
    order = list(range(len(durations)))
    random.Random(_ORDER).shuffle(order)
    shards: list[list[int]] = []
    left = 0.0
    for place in order:
        if not shards or left < durations[place] / 2:
            shards.append([])
            left = seconds
        shards[-1].append(place)
        left -= durations[place]
    return shards


_Row = tuple[int, Utterance]


def _write(
    path: Path,
    rows: Sequence[_Row],
    rate: int,
    stamp: str,
    report: Callable[[int], None] | None,
) -> dict[int, str]:
    """Write a shard; returns why recordings are missing from it, by index."""
    problems = {}
    remove_leftovers(path)
    # Decoding, resampling and encoding release the interpreter lock.
    workers = ThreadPoolExecutor(os.cpu_count())
    try:
        with atomic_path(path) as temporary, tarfile.open(temporary, "w") as archive:
            _add(archive, _STAMP, json.dumps({"digest": stamp}).encode())
            encoded = workers.map(partial(_encoded, rate=rate), (row for _, row in rows))
            for done, ((place, row), sound) in enumerate(zip(rows, encoded, strict=True), start=1):
                if isinstance(sound, str):
                    problems[place] = sound
                else:
                    _add(archive, f"{place:08}.flac", sound)
                    _add(archive, f"{place:08}.json", json.dumps(_facts(row)).encode())
                if report is not None:
                    report(done)
    finally:
        workers.shutdown(cancel_futures=True)
    return problems


def _encoded(utterance: Utterance, rate: int) -> bytes | str:
    """The recording as a file whose samples equal those of a dataset, or its error: FLAC of 16
    bits, or of 24 if it is quiet; a floating-point wav if it exceeds full scale, which FLAC would
    clip, or is too quiet for 24 bits."""
    u = utterance
    try:
        samples = load_recording(u.audio, rate, u.start, u.end, u.packed)
    except AudioError as error:
        return str(error)
    sound = io.BytesIO()
    pcm = to_pcm(samples)
    if pcm.unit == 1 / INT16:
        soundfile.write(sound, pcm.steps, rate, format="FLAC", subtype="PCM_16")
    elif FINEST <= pcm.unit < 1 / INT16:
        fine = (pcm.samples / np.float32(FINEST)).astype(np.int32) << 8
        soundfile.write(sound, fine, rate, format="FLAC", subtype="PCM_24")
    else:
        soundfile.write(sound, pcm.samples, rate, format="WAV", subtype="FLOAT")
    return sound.getvalue()


def _facts(utterance: Utterance) -> dict[str, Any]:
    own = {name: getattr(utterance, name) for name in ("id", "text", "duration", "speaker")}
    return own | dict(utterance.extra)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _stamp(rows: Sequence[_Row], rate: int) -> str:
    """A digest of everything that goes into a shard, with the present state of the files."""
    total = hashlib.sha256(str(rate).encode())
    for place, u in rows:
        try:
            state = u.audio.stat()
            file = [state.st_size, state.st_mtime_ns]
        except (OSError, ValueError):
            file = []  # missing: reported when it is read
        row = [place, str(u.audio), u.start, u.end, u.packed, file, _facts(u)]
        total.update(json.dumps(row).encode())
    return total.hexdigest()


def _stamp_of(path: Path) -> str:
    """The digest with which a shard was written; "" if there is no such shard."""
    try:
        with tarfile.open(path, "r:") as archive:
            first = archive.next()
            if first is None or first.name != _STAMP:
                return ""
            content = archive.extractfile(first)
            return "" if content is None else str(parse_json(content.read(MOST_STAMP))["digest"])
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError):
        return ""


def _members(path: Path) -> Mapping[int, tuple[int, int]]:
    """First byte and number of bytes of every recording in a shard, by the utterance's index;
    empty if the shard is damaged."""
    try:
        with tarfile.open(path, "r:") as archive:
            return {
                int(member.name.removesuffix(".flac")): (member.offset_data, member.size)
                for member in archive
                if member.name.endswith(".flac")
            }
    except (OSError, tarfile.TarError):
        return {}


def _remove_others(folder: Path, name: str, count: int) -> None:
    """Remove shards that an earlier packing with more shards has left."""
    for path in folder.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9].tar"):
        if int(path.stem[-5:]) >= count and _stamp_of(path):
            path.unlink()
