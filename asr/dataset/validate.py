"""The content of manifests and all problems with them, found in one run.

The check does not stop at the first problem. Every problem is reported by utterance id, so that a
corpus can be repaired at once before training starts.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from asr.audio.levels import is_silent, level_problems
from asr.audio.load import SAMPLE_RATE
from asr.audio.pcm import to_int16
from asr.dataset.manifest import BadLine, Utterance, read_entries
from asr.dataset.repeats import joined, recording_keys
from asr.dataset.shards import load_recording
from asr.errors import AsrError, AudioError
from asr.io.paths import as_stored
from asr.io.printable import printable, shown_character
from asr.io.threads import in_threads
from asr.text.characters import unseen
from asr.text.tokens import Tokens

SAME = "same recording"
OVERSHOOT = 0.5
"""Seconds by which a segment may end after its recording, as in Kaldi's extract-segments
(--max-overshoot)."""
_DURATION_TOLERANCE = 0.1  # seconds
# Kinds that are notes, not problems.
_NOTES = {"damaged audio", "quiet audio", "clipped audio", "characters that are not seen"}
_UNREADABLE = {"missing audio", "undecodable audio"}
_BINS = 12


@dataclass(frozen=True)
class Problem:
    """One problem: its kind, the utterance (or speaker) concerned, where, and the details."""

    kind: str
    id: str
    manifest: Path
    detail: str


@dataclass(frozen=True)
class ManifestSummary:
    """The content of one manifest, without malformed lines."""

    path: Path
    hours: float
    utterances: int
    speakers: int


@dataclass(frozen=True)
class LengthBin:
    """The number of utterances with a duration from `low` to below `high` seconds."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class CheckReport:
    """The result of a check: per manifest, and characters and lengths over all manifests."""

    manifests: tuple[ManifestSummary, ...]
    units: Mapping[str, int]
    lengths: tuple[LengthBin, ...]
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...] = ()
    """Problems that do not prevent training."""


@dataclass(frozen=True)
class Located:
    """An utterance and its line."""

    utterance: Utterance
    manifest: Path
    line: int
    unspoken: str = ""
    """Why its text cannot be normalised: words have no phones."""


@dataclass(frozen=True)
class CheckedCorpus:
    """The manifests of one corpus, their utterances in order, and the problems with their lines."""

    manifests: Sequence[Path]
    located: Sequence[Located]
    problems: Sequence[Problem]

    def names(self) -> list[str]:
        """A name for each utterance. Ids may be repeated, but not places."""
        numbers = {path: number for number, path in enumerate(self.manifests, start=1)}
        return [f"manifest {numbers[item.manifest]}, line {item.line}" for item in self.located]


class AudioCheck(NamedTuple):
    """Seconds of a recording, kind and detail of each problem with it, and a digest of its samples
    if there is sound."""

    seconds: float
    problems: Sequence[tuple[str, str]]
    sound: str = ""

    @property
    def unreadable(self) -> str | None:
        """Why there are no samples."""
        found = (f"{kind}: {detail}" for kind, detail in self.problems if kind in _UNREADABLE)
        return next(found, None)


def check_audio(utterance: Utterance) -> AudioCheck:
    """Decode a recording; without one, the seconds are those of the manifest."""
    stored = as_stored(utterance.audio)
    if not os.path.exists(stored):  # noqa: PTH110 (False, no error, on impossible names)
        return AudioCheck(utterance.duration, [("missing audio", str(utterance.audio))])
    try:
        u = utterance
        said: list[str] = []
        samples = load_recording(u.audio, SAMPLE_RATE, u.start, u.end, u.packed, said.append)
    except AudioError as error:
        return AudioCheck(utterance.duration, [("undecodable audio", str(error))])
    found = [("damaged audio", f"{utterance.audio}: {problem}") for problem in said]
    seconds = len(samples) / SAMPLE_RATE
    if abs(seconds - utterance.duration) > _DURATION_TOLERANCE:
        detail = f"{utterance.duration:.2f} s in the manifest, {seconds:.2f} s in {utterance.audio}"
        found.append(("wrong duration", detail))
    if u.end is not None and u.end - u.start > seconds + OVERSHOOT:
        after = u.end - u.start - seconds
        found.append(("past the end", f"ends at {u.end:g} s, {after:.1f} s after {u.audio} does"))
    found += [(kind, f"{what} in {u.audio}") for kind, what in level_problems(samples)]
    sound = "" if is_silent(samples) else hashlib.blake2b(to_int16(samples).tobytes()).hexdigest()
    return AudioCheck(seconds, found, sound)


def check_manifests(
    paths: Sequence[str | Path],
    tokens: Tokens | None = None,
    output_frames: Callable[[float], int] | None = None,
    normalise: Callable[[str], str] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    check_audio: Callable[[Utterance], AudioCheck] = check_audio,
) -> CheckReport:
    """Read the manifests of one corpus and decode all their audio.

    Args:
        paths: manifests that belong together: ids and speakers must not repeat across them.
        tokens: the vocabulary of the texts; None accepts every character.
        output_frames: model frames for seconds of audio; None skips the check that texts fit.
        normalise: the normalisation of training, applied to texts before the checks.
        workers: decoding threads; None takes one per processor.
        progress: called with (utterances decoded, all utterances).
        check_audio: checks one recording; a caller with two checks may cache the results.

    Raises:
        ManifestError: a manifest is missing or unreadable.
    """
    corpus = read_corpus(paths, normalise)

    def audio(place: int) -> AudioCheck:
        return check_audio(corpus.located[place].utterance)

    return check_corpus(corpus, audio, tokens, output_frames, workers, progress)


def read_corpus(
    paths: Iterable[str | Path], normalise: Callable[[str], str] | None = None
) -> CheckedCorpus:
    """Read manifests and find the problems that are seen without audio.

    Raises ManifestError as `check_manifests` does.
    """
    manifests, repeated = _distinct(paths)
    located, problems = _read(manifests, normalise)
    problems += repeated + _duplicate_ids(located) + _shared_speakers(located)
    return CheckedCorpus(manifests, located, problems)


def check_corpus(
    corpus: CheckedCorpus,
    audio: Callable[[int], AudioCheck],
    tokens: Tokens | None = None,
    output_frames: Callable[[float], int] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """As `check_manifests`; `audio` checks the recording of the utterance at an index."""
    located, problems = corpus.located, list(corpus.problems)

    def examine(place: int) -> tuple[list[Problem], str]:
        checked = audio(place)
        return _utterance_problems(located[place], checked, tokens, output_frames), checked.sound

    sounds: list[str] = []
    with closing(in_threads(examine, range(len(located)), workers)) as examined:
        for done, (found, sound) in enumerate(examined, start=1):
            problems += found
            sounds.append(sound)
            if progress is not None:
                progress(done, len(located))
    problems += _shared_recordings(located, sounds)
    order = {path: rank for rank, path in enumerate(corpus.manifests)}
    problems.sort(key=lambda problem: order[problem.manifest])
    return CheckReport(
        manifests=tuple(_summary(path, located) for path in corpus.manifests),
        units=Counter(character for item in located for character in item.utterance.text),
        lengths=_histogram([item.utterance.duration for item in located]),
        problems=tuple(problem for problem in problems if problem.kind not in _NOTES),
        notes=tuple(problem for problem in problems if problem.kind in _NOTES),
    )


# --- what the manifests hold ---


def _distinct(paths: Iterable[str | Path]) -> tuple[list[Path], list[Problem]]:
    """Each file once, under its first name, and the repeated ones."""
    names: dict[Path, list[Path]] = {}
    for path in map(Path, paths):
        names.setdefault(path.resolve(), []).append(path)
    problems = [
        Problem("repeated manifest", again.name, first, f"given again as {again}, read once")
        for first, *others in names.values()
        for again in others
    ]
    return [first for first, *_ in names.values()], problems


def _read(
    manifests: Iterable[Path], normalise: Callable[[str], str] | None
) -> tuple[list[Located], list[Problem]]:
    located: list[Located] = []
    problems: list[Problem] = []
    for path in manifests:
        before = len(located) + len(problems)
        dropped: Counter[str] = Counter()
        for line, entry in read_entries(path):
            if isinstance(entry, BadLine):
                name, detail = f"line {line}", entry.problem
                if entry.id:
                    name, detail = entry.id, f"{name}: {detail}"
                problems.append(Problem("malformed line", name, path, detail))
            else:
                dropped.update(unseen(entry.text))
                text, unspoken = entry.text, ""
                try:
                    text = normalise(text) if normalise is not None else text
                except AsrError as error:
                    text, unspoken = "", str(error)
                located.append(Located(replace(entry, text=text), path, line, unspoken))
        if dropped:
            listed = ", ".join(f"U+{ord(c):04X} {count}" for c, count in dropped.most_common())
            detail = f"{listed}: training drops them"
            problems.append(Problem("characters that are not seen", path.name, path, detail))
        if len(located) + len(problems) == before:
            detail = "expected at least one utterance, got none; prepare it again"
            problems.append(Problem("empty manifest", path.name, path, detail))
    return located, problems


def _summary(path: Path, located: Iterable[Located]) -> ManifestSummary:
    own = [item.utterance for item in located if item.manifest == path]
    return ManifestSummary(
        path=path,
        hours=sum(utterance.duration for utterance in own) / 3600,
        utterances=len(own),
        speakers=len({utterance.speaker for utterance in own} - {""}),
    )


def _histogram(seconds: Sequence[float]) -> tuple[LengthBin, ...]:
    """About a dozen bins of one round width, from the shortest to the longest."""
    if not seconds:
        return ()
    low, high = min(seconds), max(seconds)
    tenths = _round_up(10 * (high - low) / _BINS)
    # Edges are rounded floats, so lengths are compared with them, not divided by the width.
    first, last = int(10 * low / tenths) - 1, int(10 * high / tenths) + 1
    edges = [n * tenths / 10 for n in range(first, last + 2)]
    counts = Counter(bisect_right(edges, value) - 1 for value in seconds)
    return tuple(
        LengthBin(edges[n], edges[n + 1], counts[n]) for n in range(min(counts), max(counts) + 1)
    )


def _round_up(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, 100, ..."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if factor * step >= width:
                return factor * step
        step *= 10


# --- problems ---


def _duplicate_ids(located: Iterable[Located]) -> list[Problem]:
    first: dict[str, Located] = {}
    problems = []
    for item in located:
        other = first.setdefault(item.utterance.id, item)
        if other is not item:
            detail = f"line {item.line}: already at {other.manifest}:{other.line}"
            problems.append(Problem("duplicate id", item.utterance.id, item.manifest, detail))
    return problems


def _shared_speakers(located: Iterable[Located]) -> list[Problem]:
    """Each speaker once for every manifest after the first; unnamed speakers are not shared."""
    homes: dict[str, dict[Path, int]] = {}
    for item in located:
        if item.utterance.speaker:
            home = homes.setdefault(item.utterance.speaker, {})
            home[item.manifest] = home.get(item.manifest, 0) + 1
    problems = []
    for speaker, home in homes.items():
        first, *others = home
        for manifest in others:
            detail = f"speaks in {home[manifest]} utterances here and {home[first]} in {first}"
            problems.append(Problem("shared speaker", speaker, manifest, detail))
    return problems


def _shared_recordings(located: Sequence[Located], sounds: Sequence[str]) -> list[Problem]:
    """Each utterance whose recording is also in an earlier manifest."""
    utterances = [replace(item.utterance, id=str(n)) for n, item in enumerate(located)]
    keys = recording_keys(utterances, {str(n): sound for n, sound in enumerate(sounds)})
    homes: dict[int, Located] = {}
    problems = []
    for item, label in zip(located, joined(keys), strict=True):
        first = homes.setdefault(label, item)
        if first.manifest != item.manifest:
            u = first.utterance
            detail = (
                f"{item.utterance.audio}, as {printable(u.id)} at {first.manifest}:{first.line}"
            )
            problems.append(Problem(SAME, item.utterance.id, item.manifest, detail))
    return problems


def _utterance_problems(
    item: Located,
    audio: AudioCheck,
    tokens: Tokens | None,
    output_frames: Callable[[float], int] | None,
) -> list[Problem]:
    utterance = item.utterance
    seconds, found = audio.seconds, list(audio.problems)
    if item.unspoken:
        found.append(("words without phones", item.unspoken))
    else:
        found += _text_problems(utterance, tokens)
    if output_frames is not None:
        needed = _frames_needed(utterance.text, tokens)
        frames = output_frames(seconds)
        if frames < needed:
            found.append(
                (
                    "text does not fit",
                    f"{needed} frames needed for the text, {frames} left of {seconds:.2f} s",
                )
            )
    return [Problem(kind, utterance.id, item.manifest, detail) for kind, detail in found]


def _text_problems(utterance: Utterance, tokens: Tokens | None) -> list[tuple[str, str]]:
    if not utterance.text.strip():
        return [("empty text", f"text is {utterance.text!r}")]
    missing = tokens.missing(utterance.text) if tokens is not None else set()
    if not missing:
        return []
    named = ", ".join(f"{shown_character(c)} (U+{ord(c):04X})" for c in sorted(missing))
    return [("unknown characters", f"not in the vocabulary: {named}")]


def _frames_needed(text: str, tokens: Tokens | None) -> int:
    """The least number of frames for CTC: one per token and a blank between equal neighbours."""
    if tokens is None:
        units: Sequence[object] = text
    else:  # words with unknown characters are reported elsewhere; the rest may already not fit
        units = tokens.encode(" ".join(w for w in text.split() if not tokens.missing(w)))
    return len(units) + sum(a == b for a, b in pairwise(units))
