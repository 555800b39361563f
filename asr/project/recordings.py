"""The recordings of a new project: their names, lengths, and whether they can be decoded.

This is what takes long in a large corpus, and what many machines can do in shards (`examine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from asr.audio.load import audio_duration
from asr.dataset.importers import LeftOut, read_source
from asr.dataset.lines import is_whole
from asr.dataset.manifest import Utterance
from asr.dataset.source import Source
from asr.dataset.validate import OVERSHOOT, AudioCheck, check_audio
from asr.errors import AudioError
from asr.io.paths import as_stored
from asr.io.shard_results import Row, State, file_size
from asr.io.terminal import progress_bar
from asr.io.threads import in_threads


@dataclass(frozen=True)
class Listing:
    """What a source holds: the utterances that a manifest can hold, by id, and the others."""

    found: Source
    named: dict[str, Utterance]
    nameless: Sequence[LeftOut]


@dataclass(frozen=True)
class Examined:
    """The recordings of a source as shards have found them."""

    listing: Listing
    row: Callable[[str], Row]


def listed(source: str | Path) -> Listing:
    """Read the texts of a source; no recording is opened. Raises AsrError as `read_source`."""
    found = read_source(source)
    named, nameless = _nameable(found.utterances)
    return Listing(found, {utterance.id: utterance for utterance in named}, nameless)


def _nameable(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[LeftOut]]:
    """The utterances that a manifest can hold, and those that UTF-8 cannot encode."""
    kept, left_out = [], []
    for utterance in utterances:
        if not is_whole(f"{utterance.id}{utterance.audio}{utterance.speaker}"):
            left_out.append(LeftOut(utterance.id, "its name is not UTF-8: rename it"))
        elif not is_whole(utterance.text):
            left_out.append(LeftOut(utterance.id, "half a character in its text: correct it"))
        else:
            kept.append(utterance)
    return kept, left_out


def measured(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[LeftOut]]:
    """The utterances with their durations, and those with unreadable recordings."""
    paths = list(dict.fromkeys(u.audio for u in utterances))
    lengths: dict[Path, float | str] = {}
    with progress_bar("measuring") as progress, closing(in_threads(_length, paths)) as found:
        for path, length in zip(paths, found, strict=True):
            lengths[path] = length
            progress(len(lengths), len(paths))
    return _sorted_out([_placed(u, lengths[u.audio]) for u in utterances])


def _sorted_out(
    found: Sequence[Utterance | LeftOut],
) -> tuple[list[Utterance], list[LeftOut]]:
    kept = [one for one in found if isinstance(one, Utterance)]
    return kept, [one for one in found if isinstance(one, LeftOut)]


def _placed(utterance: Utterance, length: float | str) -> Utterance | LeftOut:
    """The utterance with its duration, in a recording of this length or with this error."""
    if isinstance(length, str):
        return LeftOut(utterance.id, length)
    if utterance.start >= length:
        why = f"starts at {utterance.start} s, after the end of {utterance.audio}"
        return LeftOut(utterance.id, why)
    if utterance.end is not None and utterance.end > length + OVERSHOOT:
        after = f"{utterance.end - length:.1f} s after the end of {utterance.audio}"
        return LeftOut(utterance.id, f"ends at {utterance.end:g} s, {after}")
    end = None if utterance.end is None else min(utterance.end, length)
    seconds = (length if end is None else end) - utterance.start
    return replace(utterance, duration=max(round(seconds, 3), 0.001), end=end)


def _length(path: Path) -> float | str:
    try:
        return audio_duration(path, say=lambda _: None)  # the check reports damage
    except AudioError as error:
        return str(error)


# --- in shards ---


def state(utterance: Utterance) -> State:
    """Size of the recording and bounds of the utterance, to detect changes."""
    size = file_size(as_stored(utterance.audio))
    if utterance.start or utterance.end is not None:
        return f"{size} {utterance.start} {utterance.end}"
    return size


def examine(utterances: Sequence[Utterance]) -> Iterator[tuple[str, Row]]:
    """Id and result of each: the length of its recording, or why it cannot be read, and the check
    of what it contains, or null."""
    length = cache(_length)

    def one(utterance: Utterance) -> Row:
        seconds = length(utterance.audio)
        placed = _placed(utterance, seconds)
        if isinstance(placed, LeftOut):
            return Row([seconds, None], f"{placed.name}: {placed.why}")
        check = check_audio(placed)
        return Row([seconds, check], check.unreadable and f"{placed.id}: {check.unreadable}")

    for utterance, row in zip(utterances, in_threads(one, utterances), strict=True):
        yield utterance.id, row


def recalled(
    examined: Examined,
) -> tuple[list[Utterance], list[LeftOut], dict[str, AudioCheck]]:
    """As `measured`, with the checks by id, from the results of shards."""
    found: list[Utterance | LeftOut] = []
    checks: dict[str, AudioCheck] = {}
    for id_, utterance in examined.listing.named.items():
        seconds, check = examined.row(id_).value
        found.append(_placed(utterance, seconds))
        if check is not None:
            checks[id_] = _check_of(check)
    return *_sorted_out(found), checks


def _check_of(value: Any) -> AudioCheck:
    seconds, problems, sound = value
    return AudioCheck(seconds, [(kind, detail) for kind, detail in problems], sound)
