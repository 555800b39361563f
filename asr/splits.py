"""Train, dev and test: by whole speakers where they are known, and never a recording in two."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from asr.manifest import Utterance
from asr.proposal import VOICE
from asr.repeats import Keys, joined, recording_keys
from asr.tuning import marking_folder

Parts = Mapping[str, Sequence[Utterance]]

SHARE = 0.1  # of the hours, for dev and for test each
SHORTEST = 60.0  # seconds of either, where that is no more than a fifth of everything
_MOST_OVER = 1.5  # how far a held-out part may exceed what is wanted


@dataclass(frozen=True)
class Split:
    """Train, dev and test, and whether no speaker is in two of them; the folder that said which
    recordings are for testing, and whether that was passed over: too much lies in such."""

    parts: Parts
    disjoint: bool
    marked: str = ""
    all_marked: bool = False
    repeated: bool = False
    """Whether recordings are in several parts, since there are too few different ones."""


def split_utterances(
    utterances: Sequence[Utterance],
    manifest: Path = Path("dev.jsonl"),
    sounds: Mapping[str, str] = MappingProxyType({}),
) -> Split:
    """About a tenth of the hours for dev and for test each, by whole speakers where there are three
    or more and each is known. Utterances of one recording (`repeats`; `sounds` are digests of what
    is heard, by id) go into one part. The choice depends on ids, speakers, durations and on which
    utterances are of one recording alone.

    What lies in a folder named test is the test set, and nothing else is, unless that is most of
    all or leaves too little to learn from: what somebody has set apart must not be learnt, and
    `asr tune` refuses it as dev.

    Elsewhere speakers are held under `VOICE` in `Utterance.extra`: as speakers they would be in
    several parts, which training refuses.
    """
    folders = {u.id: marking_folder(u.audio, manifest) for u in utterances}
    marked = [u for u in utterances if folders[u.id]]
    apart = bool(marked) and 2 * total_seconds(marked) < total_seconds(utterances)
    apart = apart and len(utterances) - len(marked) >= 2  # one for dev, one to learn from
    pool = [u for u in utterances if not (apart and folders[u.id])]
    least = 2 if apart else 3
    names = {u.speaker for u in pool}
    disjoint = len(names) >= least and all(u.speaker for u in utterances)
    disjoint = disjoint and not (apart and names & {u.speaker for u in marked})
    recordings = recording_keys(utterances, sounds)
    groups: dict[str, list[Utterance]] = {}
    # Where too few groups are left, first speakers are divided and then recordings.
    choices: tuple[tuple[bool, Keys], ...] = (
        (disjoint, recordings),
        (False, recordings),
        (disjoint, [[] for _ in utterances]),
    )
    for disjoint, keys in choices:
        groups = _groups(utterances, keys, disjoint, lambda u: apart and bool(folders[u.id]))
        if len(groups) >= least:
            break
    repeated = keys is not recordings
    seconds = {name: total_seconds(group) for name, group in groups.items()}
    total = sum(seconds.values())
    wanted = max(SHARE * total, min(SHORTEST, total / 5))
    order = sorted(seconds, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    test = set() if apart else _held_out(order, seconds, wanted, most=len(order) - 2)
    rest = [name for name in order if name not in test]
    dev = _held_out(rest, seconds, wanted, most=len(rest) - 1)
    homes = dict.fromkeys(order, "train") | dict.fromkeys(dev, "dev") | dict.fromkeys(test, "test")
    parts: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    home = {u.id: homes[name] for name, group in groups.items() for u in group}
    for utterance in utterances:
        # What is in no group is for testing: it lies in such a folder, or is the same recording.
        part = parts[home.get(utterance.id, "test")]
        part.append(utterance if disjoint else _anonymous(utterance))
    folder = folders[marked[0].id] if marked else ""
    return Split(parts, disjoint, folder, bool(marked) and not apart, repeated)


def _groups(
    utterances: Sequence[Utterance],
    recordings: Keys,
    by_speaker: bool,
    is_marked: Callable[[Utterance], bool],
) -> dict[str, list[Utterance]]:
    """Utterances that must go into one part, by the first of their names; none that is marked for
    testing or of the same recording."""
    keys = [
        [*own, ("speaker", u.speaker)] if by_speaker else own
        for u, own in zip(utterances, recordings, strict=True)
    ]
    members: dict[int, list[Utterance]] = defaultdict(list)
    for utterance, label in zip(utterances, joined(keys), strict=True):
        members[label].append(utterance)
    return {
        min(u.speaker if by_speaker else u.id for u in group): group
        for group in members.values()
        if not any(map(is_marked, group))
    }


def total_seconds(utterances: Sequence[Utterance]) -> float:
    return sum(u.duration for u in utterances)


def _held_out(
    order: Sequence[str], seconds: Mapping[str, float], wanted: float, most: int
) -> set[str]:
    """Groups in this order until there is enough; the smallest where each is too large."""
    chosen: set[str] = set()
    total = 0.0
    for name in order:
        if total >= wanted or len(chosen) == most:
            break
        if total + seconds[name] <= _MOST_OVER * wanted:
            chosen.add(name)
            total += seconds[name]
    return chosen or {min(order, key=lambda name: seconds[name])}


def _anonymous(utterance: Utterance) -> Utterance:
    if not utterance.speaker:
        return utterance
    return replace(utterance, speaker="", extra={**utterance.extra, VOICE: utterance.speaker})
