"""What all corpora share: utterances with their durations, and manifests by split.

A module of a corpus has one function to be called from outside,

    prepare(folder, source=None, progress=None, say=print) -> dict[str, Path]

which writes train, dev and one or more test manifests into `folder` and returns them by name, from
the published archive or from a local copy at `source`. `say` reports what a person should know,
such as what a local copy lacks. Names that begin with a dot are passed over: a Mac puts ._NAME
beside files on other people's disks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from asr.audio.load import audio_duration
from asr.dataset.manifest import Utterance, write_manifest
from asr.errors import AsrError

Progress = Callable[[int, int], None]
Say = Callable[[str], None]

WORTH_PROCESSES = 2000  # files; for fewer, starting processes takes longer than reading headers
CHUNK = 200
OVERSHOOT = 0.5  # seconds by which transcripts may end after their recording, as Kaldi has it


def with_durations(
    utterances: Sequence[Utterance], progress: Progress | None = None
) -> list[Utterance]:
    """The same utterances with the lengths of their recordings, read by all processors where there
    are many. One with an `end` is a stretch, and as long as that says; where it ends a little after
    its recording, it ends with it.

    Raises AudioError naming the first recording that cannot be read, and AsrError naming the first
    stretch that lies outside of its recording.
    """
    files = list(dict.fromkeys(u.audio for u in utterances))
    lengths = dict(zip(files, _lengths(files, progress), strict=True))
    return [_with_duration(u, lengths[u.audio]) for u in utterances]


def _lengths(files: Sequence[Path], progress: Progress | None) -> list[float]:
    if len(files) < WORTH_PROCESSES:
        return _measured(files)
    chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
    found: list[float] = []
    # Forked processes would inherit torch's threads in an unknown state.
    workers = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
    try:
        for chunk in workers.map(_measured, chunks):
            found += chunk
            if progress:
                progress(len(found), len(files))
    finally:
        workers.shutdown(cancel_futures=True)
    return found


def _measured(files: Sequence[Path]) -> list[float]:
    return [audio_duration(path) for path in files]


def _with_duration(utterance: Utterance, length: float) -> Utterance:
    start, end = utterance.start, utterance.end
    if end is None:
        return replace(utterance, duration=length)
    if start >= length or end > length + OVERSHOOT:
        raise AsrError(
            f"expected {utterance.id} within {utterance.audio}, got {start:g} to {end:g} s of "
            f"{length:g} s: get the corpus again"
        )
    return replace(utterance, duration=min(end, length) - start, end=min(end, length))


def write_splits(folder: Path, splits: Mapping[str, Sequence[Utterance]]) -> dict[str, Path]:
    """A manifest for each split, once all of them are known to hold something.

    Raises AsrError for an empty split.
    """
    for name, utterances in splits.items():
        if not utterances:
            raise AsrError(f"expected utterances in {name}, got none: check the local copy")
    paths = {name: folder / f"{name}.jsonl" for name in splits}
    for name, utterances in splits.items():
        write_manifest(paths[name], utterances)
    return paths


def speakers_apart(
    splits: Mapping[str, Sequence[Utterance]], say: Say
) -> dict[str, list[Utterance]]:
    """The same splits, train without speakers who are also in dev or a test set, dev without those
    of a test set: training refuses to choose by voices that it learns. Omissions are reported.
    """
    kept = {}
    for place, (name, utterances) in enumerate(splits.items()):
        later = [] if name.startswith("test") else list(splits)[place + 1 :]
        held = {u.speaker for other in later for u in splits[other]} - {""}
        kept[name] = [u for u in utterances if u.speaker not in held]
        if left := len(utterances) - len(kept[name]):
            say(f"left out of {name}: {left} utterances of speakers of {' or '.join(later)}")
    return kept


def tell_incomplete(say: Say, name: str, found: int, published: int, what: str) -> None:
    """Say so where a local copy holds fewer or more recordings (or talks) than were published."""
    if found != published:
        say(f"not the whole published set: {name}, {found} of {published} {what}")


def locate(source: Path, *places: str) -> Path:
    """The first of `places` that is in a local copy. Raises AsrError naming them."""
    for place in places:
        if (source / place).exists():
            return source / place
    raise AsrError(f"expected {' or '.join(places)} in {source}, got none: check --source")
