"""Recordings without transcripts as utterances for pretraining: pieces of speech of bounded length.

A recording that is not longer than the longest piece is one utterance. Of a longer one, only speech
is taken, cut at pauses (`asr/inference/speech_pieces.py`). No audio is written: pieces are seconds
of their recordings, and their texts are empty.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from asr.audio.blocks import audio_blocks
from asr.audio.files import find_audio
from asr.audio.load import audio_duration
from asr.audio.vad import SpeechDetector, speech_detector
from asr.dataset.importers import distinct_ids, folders_as_speakers
from asr.dataset.manifest import Utterance, read_manifest
from asr.dataset.shards import load_recording
from asr.dataset.splits import held_out, total_seconds
from asr.errors import AudioError
from asr.inference.output_names import free_id, recording_ids
from asr.inference.speech_pieces import speech_pieces
from asr.io.paths import Say, as_stored

HELD_OUT = 0.05  # share of the seconds
MOST_HELD_OUT_S = 1800.0

Progress = Callable[[int, int], None]


@dataclass
class Found:
    """Utterances to pretrain on, and what was left out."""

    utterances: list[Utterance] = field(default_factory=list)
    short: int = 0
    """Recordings and pieces that are too short."""
    silent: int = 0
    """Long recordings without speech."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """By id, why recordings are left out, in whole or from some second on."""

    def summary(self) -> str:
        """What was left out, on one line; "" if nothing was."""
        counts = {
            "too short": self.short,
            "without speech": self.silent,
            "not readable": len(self.unreadable),
        }
        return ", ".join(f"{count} {why}" for why, count in counts.items() if count)


def find_recordings(sources: Sequence[Path], say: Say) -> list[Utterance]:
    """The recordings of manifests (.jsonl) and folders, without texts. Those of a folder have a
    duration of 0, and sub-folders as speakers, like for `asr new`. `say` reports files that are
    left out.

    Raises ManifestError for a manifest that cannot be read, AudioError for missing recordings and
    a source without any.
    """
    rows: list[Utterance] = []
    for source in sources:
        if source.suffix == ".jsonl":
            listed = [replace(u, text="") for u in read_manifest(source)]
            _require_files(source, listed)
            rows += listed
            continue
        paths = find_audio([source], say)
        if not paths:
            raise AudioError(
                f"{source}: expected recordings, got a folder without any: check the path"
            )
        speakers = folders_as_speakers(paths, source) if source.is_dir() else {}
        for path, name in recording_ids(source, paths, say).items():
            rows.append(Utterance(name, path, "", 0.0, speakers.get(path, "")))
    return list(distinct_ids(rows))  # manifests may use the same ids


def _require_files(manifest: Path, rows: Sequence[Utterance]) -> None:
    first: dict[Path, str] = {}
    for u in rows:
        first.setdefault(u.audio, u.id)
    missing = [(audio, id_) for audio, id_ in first.items() if not as_stored(audio).is_file()]
    if missing:
        audio, id_ = missing[0]
        raise AudioError(
            f"{manifest}: expected every recording, got {len(missing)} of {len(first)} files "
            f"missing, first {audio} of {id_}: correct the paths"
        )


def cut_recordings(
    rows: Sequence[Utterance],
    rate: int,
    longest: float,
    shortest: float,
    progress: Progress = lambda done, total: None,
) -> Found:
    """The recordings as utterances of `shortest` to `longest` seconds, in order. Only long ones are
    decoded. `rate` is that of the later training, in Hz."""
    found = Found()
    detector: SpeechDetector | None = None
    taken = {u.id for u in rows}
    for done, u in enumerate(rows, start=1):
        try:
            seconds = u.duration or audio_duration(u.audio)
            if seconds < shortest:
                found.short += 1
            elif seconds <= longest:
                found.utterances.append(replace(u, duration=seconds))
            else:
                detector = detector or speech_detector(rate)
                detector.reset()
                _cut(u, rate, longest, shortest, detector, found, taken)
        except AudioError as error:
            found.unreadable[u.id] = str(error)
        progress(done, len(rows))
    return found


def _cut(
    u: Utterance,
    rate: int,
    longest: float,
    shortest: float,
    detector: SpeechDetector,
    found: Found,
    taken: set[str],
) -> None:
    """Add the pieces of speech of a long recording. Raises AudioError where it cannot be read; the
    pieces before have then been added."""
    number, short = 0, 0
    for piece in speech_pieces(_blocks(u, rate), rate, longest, detector):
        if piece is None:
            continue
        # Without what it shares with the piece before.
        start = piece.start + piece.overlap
        end = piece.start + len(piece.samples) / rate
        if end - start < shortest:
            short += not piece.overlap  # else it is the rest of another piece
            continue
        number += 1
        name = free_id(f"{u.id}-{number}", taken)
        times = round(u.start + start, 4), round(u.start + end, 4)
        found.utterances.append(
            replace(u, id=name, duration=times[1] - times[0], start=times[0], end=times[1])
        )
    found.short += short
    found.silent += not number and not short


def _blocks(u: Utterance, rate: int) -> Iterator[np.ndarray]:
    if u.packed is None:
        return audio_blocks(u.audio, rate, u.start, u.end)
    return iter([load_recording(u.audio, rate, u.start, u.end, u.packed)])


def hold_out(rows: Sequence[Utterance], seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances to train on and to measure by, about a twentieth: whole speakers if three or more
    are named and all are known, else whole recordings, else single utterances. Speakers are divided
    if those held out would have more than a quarter of everything, or more than an hour; so are
    recordings.

    Raises AudioError for a single utterance.
    """
    if len(rows) < 2:
        raise AudioError(
            f"expected at least two pieces of speech, one of them to hold out, got {len(rows)}: "
            "give more recordings, or recordings to hold out (--dev)"
        )
    speakers, files = [u.speaker for u in rows], [_file(u) for u in rows]
    keys, held = _drawn(rows, [u.id for u in rows], seed)
    for larger, least in ((files, 2), (speakers, 3)):
        if len(set(larger)) >= least and "" not in larger:
            drawn = _drawn(rows, larger, seed)
            if _seconds(rows, *drawn) <= min(total_seconds(rows) / 4, 2 * MOST_HELD_OUT_S):
                keys, held = drawn
    pairs = list(zip(keys, rows, strict=True))
    return [u for key, u in pairs if key not in held], [u for key, u in pairs if key in held]


def _drawn(
    rows: Sequence[Utterance], keys: Sequence[str], seed: int
) -> tuple[Sequence[str], set[str]]:
    """The keys of utterances, and those keys that are held out."""
    seconds = dict.fromkeys(sorted(set(keys)), 0.0)
    for key, u in zip(keys, rows, strict=True):
        seconds[key] += u.duration
    order = list(seconds)
    random.Random(seed).shuffle(order)
    wanted = min(HELD_OUT * total_seconds(rows), MOST_HELD_OUT_S)
    return keys, held_out(order, seconds, wanted, most=len(order) - 1)


def _seconds(rows: Sequence[Utterance], keys: Sequence[str], held: set[str]) -> float:
    return sum(u.duration for key, u in zip(keys, rows, strict=True) if key in held)


def without(rows: Sequence[Utterance], others: Sequence[Utterance]) -> list[Utterance]:
    """The utterances of recordings that are not among those of `others`."""
    known = {_file(u) for u in others}
    return [u for u in rows if _file(u) not in known]


def _file(u: Utterance) -> str:
    return f"{u.audio.resolve()} {u.packed}"
