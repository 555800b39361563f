"""Functions for all corpora: utterances with durations, and manifests by split.

A module of a corpus has one public function,

    prepare(folder, source=None, progress=None, say=print) -> dict[str, Path]

which writes train, dev and one or more test manifests into `folder` and returns them by name, from
the published archive or from a local copy at `source`. `say` reports notes for the user, such as
missing files of a local copy. Names that begin with a dot are skipped: macOS writes ._NAME beside
files on other file systems.
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
OVERSHOOT = 0.5  # seconds by which transcripts may end after their recording, as in Kaldi


def with_durations(
    utterances: Sequence[Utterance], progress: Progress | None = None
) -> list[Utterance]:
    """The same utterances with the durations of their recordings, read by all processors if there
    are many. An utterance with an `end` is a segment with that duration; if it ends slightly after
    its recording, it ends with the recording.

    Raises AudioError naming the first unreadable recording, and AsrError naming the first segment
    outside its recording.
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
    """A manifest for each split, after a check that all of them have utterances.

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
    """The same splits, train without speakers of dev or a test set, dev without those of a test
    set: training refuses a dev set with speakers of train. Omissions are reported.
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
    """Report a local copy with fewer or more recordings (or talks) than the published corpus."""
    if found != published:
        say(f"not the whole published set: {name}, {found} of {published} {what}")


def locate(source: Path, *places: str) -> Path:
    """The first of `places` in a local copy. Raises AsrError naming them."""
    for place in places:
        if (source / place).exists():
            return source / place
    raise AsrError(f"expected {' or '.join(places)} in {source}, got none: check --source")
