"""Recordings without transcripts as labelled utterances: what a recogniser writes, and how certain
it is.

A recording of more than 30 seconds gives an utterance for each stretch of speech between pauses.
What is longer than half as much again as the wanted length is cut between words. No audio is
written.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asr.audio.files import find_audio
from asr.audio.silence import quietest
from asr.dataset.labels import CONFIDENCE
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.segments import WordPart, segments
from asr.dataset.shards import load_recording
from asr.errors import AudioError, ConfigError, ReportError
from asr.inference.joining import items_of
from asr.inference.output_names import free_id, recording_ids
from asr.inference.recognizer import Recognizer
from asr.inference.time_formats import Word
from asr.inference.transcribe import Source
from asr.inference.transcript import Segment, Transcript
from asr.io.paths import Say

SECONDS = 10.0  # approximate length of an utterance where speech does not pause
DIGITS = 4  # of a confidence

_OWN = ("text", "duration", "start", "end")  # what a label does not share with its recording


@dataclass(frozen=True)
class Labelled:
    """The utterances that were found in a recording, and why there are none or it ends early."""

    recording: Utterance
    seconds: float
    utterances: tuple[Utterance, ...]
    """With a confidence, in the order of their start; those without a word are left out."""
    error: str | None = None

    @property
    def text(self) -> str:
        return " ".join(utterance.text for utterance in self.utterances)

    @property
    def confidence(self) -> float:
        """Mean of all words; 0 without any."""
        counts = [len(u.text.split()) for u in self.utterances]
        sure = (confidence_of(u) * n for u, n in zip(self.utterances, counts, strict=True))
        return math.fsum(sure) / max(1, sum(counts))


def confidence_of(utterance: Utterance) -> float:
    """The confidence of a labelled utterance."""
    return float(utterance.extra[CONFIDENCE])


def recordings(source: Path, say: Say) -> Sequence[Utterance]:
    """The recordings of a manifest (.jsonl), or of a folder; texts of theirs are not used. `say`
    reports files that are left out.

    Raises AsrError for a manifest that cannot be read, and a folder without recordings.
    """
    if source.suffix == ".jsonl":
        return read_manifest(source)
    names = recording_ids(source, find_audio([source], say), say)
    if not names:
        raise AudioError(f"expected recordings to label, got none in {source}: check the folder")
    return [Utterance(name, path, "", 0.0) for path, name in names.items()]


def check_writes_words(recognizer: Recognizer) -> None:
    """Raise ConfigError for a model of phones: what it writes is no transcript."""
    if recognizer.bundle.text.phones is not None:
        raise ConfigError(
            "expected a model that writes words, got one of phones: label with one of characters, "
            "words or subwords"
        )


def label_all(
    recognizer: Recognizer, rows: Sequence[Utterance], seconds: float = SECONDS
) -> Iterator[Labelled]:
    """The labelled utterances of each recording, in order; a bad one has an error.

    Speech without pauses is cut into utterances of about `seconds`. Recordings are read ahead and
    recognised together, as `asr transcribe` does it.
    """
    unreadable: dict[int, str] = {}
    sources = _sources(rows, recognizer.sample_rate, unreadable)
    made = recognizer.transcribe(sources, recognizer.sample_rate)
    for number, (u, transcript) in enumerate(zip(rows, made, strict=True)):
        if number in unreadable:
            yield Labelled(u, 0.0, (), unreadable.pop(number))
            continue
        try:
            found = tuple(_utterances(u, transcript, recognizer.sample_rate, seconds))
            yield Labelled(u, transcript.seconds, found, transcript.error)
        except AudioError as error:  # the recording has changed since
            yield Labelled(u, transcript.seconds, (), str(error))


def _sources(rows: Sequence[Utterance], rate: int, unreadable: dict[int, str]) -> Iterator[Source]:
    """Whole recordings by their path, segments and packed ones as samples."""
    for number, u in enumerate(rows):
        if not u.start and u.end is None and u.packed is None:
            yield u.audio
            continue
        try:
            yield load_recording(u.audio, rate, u.start, u.end, u.packed)
        except AudioError as error:
            unreadable[number] = str(error)
            yield b""


def _utterances(
    u: Utterance, transcript: Transcript, rate: int, seconds: float
) -> Iterator[Utterance]:
    whole = len(transcript.segments) == 1 and _is_whole(transcript.segments[0], transcript)
    for segment in transcript.segments:
        if not segment.words:
            continue
        own = replace(u, text=segment.text, duration=round(segment.end - segment.start, 4))
        if not whole:
            start, end = u.start + segment.start, u.start + segment.end
            own = replace(own, start=round(start, 4), end=round(end, 4))
        parts = list(_cut(own, segment, rate, seconds))
        counts = [len(part.text.split()) for part in parts]
        words = iter(segment.words)
        for part, count in zip(parts, counts, strict=True):
            said = list(itertools.islice(words, count))
            if sum(counts) > len(segment.words):  # a word was divided: all have its confidence
                said = list(segment.words)
            yield replace(part, id=u.id, extra={**u.extra, CONFIDENCE: _mean(said)})


def _is_whole(segment: Segment, transcript: Transcript) -> bool:
    return not segment.start and segment.end >= transcript.seconds - 1e-3 and not transcript.error


def _mean(words: Sequence[Word]) -> float:
    sure = [word.confidence or 0.0 for word in words]
    return round(math.fsum(sure) / len(sure), DIGITS)


def _cut(u: Utterance, segment: Segment, rate: int, seconds: float) -> Iterable[Utterance]:
    """A segment, cut at the quietest moments between its words if it is long; in scripts without
    spaces, between tokens."""
    items = items_of(segment.words, seconds / 2)
    if u.duration <= 1.5 * seconds or len(items) < 2:
        return [u]
    samples = load_recording(u.audio, rate, u.start, u.end, u.packed)
    gaps = [
        quietest(samples, a.word.end - segment.start, b.word.start - segment.start, rate)
        for a, b in itertools.pairwise(items)
    ]
    parts = [WordPart(item.word.text, item.glued) for item in items]
    return segments(u, parts, gaps, len(samples) / rate, seconds, str)


# --- plain values ---


def label_values(labelled: Labelled) -> dict[str, Any]:
    """The utterances as plain JSON values, as far as they differ from the recording."""
    rows = [
        {name: getattr(u, name) for name in _OWN} | {CONFIDENCE: confidence_of(u)}
        for u in labelled.utterances
    ]
    return {"seconds": labelled.seconds, "utterances": rows}


def read_labelled(values: Mapping[str, Any], u: Utterance, error: str | None) -> Labelled:
    """The inverse of `label_values`, for recording `u`."""
    found = (
        replace(
            u, extra={**u.extra, CONFIDENCE: row[CONFIDENCE]}, **{name: row[name] for name in _OWN}
        )
        for row in values["utterances"]
    )
    return Labelled(u, values["seconds"], tuple(found), error)


# --- the manifest ---


@dataclass
class Written:
    """The numbers of labels and their seconds, of those that were kept and of all."""

    kept: int = 0
    kept_seconds: float = 0.0
    labels: int = 0
    seconds: float = 0.0
    empty: int = 0
    """Recordings without a word."""

    def __str__(self) -> str:
        return (
            f"{self.kept} of {self.labels} labels, {self.kept_seconds / 3600:.2f} of "
            f"{self.seconds / 3600:.2f} hours"
        )


def write_labels(
    out: Path, found: Iterable[Labelled], ids: Iterable[str], least: float = 0.0
) -> Written:
    """Write labels of at least a confidence as a manifest, atomically. `ids` are those of all
    recordings.

    Raises ReportError if there are none, ManifestError for a path that cannot be written.
    """
    taken, written, kept = set(ids), Written(), []
    for labelled in found:
        written.empty += labelled.error is None and not labelled.utterances
        for u in _named(labelled, taken):
            written.labels += 1
            written.seconds += u.duration
            if confidence_of(u) >= least:
                kept.append(u)
                written.kept_seconds += u.duration
    written.kept = len(kept)
    if not written.labels:
        raise ReportError(
            f"expected words in the recordings, got none in {written.empty} that can be read: give "
            "recordings of speech, or train a better model first"
        )
    if not kept:
        raise ReportError(
            f"expected labels with a confidence of at least {least:g}, got none of "
            f"{written.labels}: raise --target, or train a better model first"
        )
    write_manifest(out, kept)
    return written


def _named(labelled: Labelled, taken: set[str]) -> Iterator[Utterance]:
    """The utterances with ids that differ from all in `taken`, to which they are added. A recording
    that is one utterance keeps its id."""
    recording = labelled.recording
    times = [(u.start, u.end) for u in labelled.utterances]
    if times == [(recording.start, recording.end)]:
        yield labelled.utterances[0]
        return
    for number, u in enumerate(labelled.utterances, start=1):
        yield replace(u, id=free_id(f"{recording.id}-{number}", taken))
