"""Split into train, dev and test: by whole speakers if known, with each recording in one part."""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from asr.dataset.manifest import Utterance, shown
from asr.dataset.repeats import Keys, joined, recording_keys
from asr.errors import AsrError, ManifestError
from asr.io.files import digest, read_json

VOICE = "asr:voice"
"""Column for speakers whose names training must not see; user tables have no such column."""

# Such as test-clean and an4test_clstk, but not latest or contest.
TEST_NAME = re.compile(r"(^|[^a-z])(test|eval)([^a-z]|$)", re.IGNORECASE)
FOLDERS = 3  # above a recording: part of the corpus, speaker, chapter

Parts = Mapping[str, Sequence[Utterance]]
PARTS = ("train", "dev", "test")

SHARE = 0.1  # of the hours, for dev and for test each
SHORTEST = 60.0  # seconds of either, if that is at most a fifth of everything
_MOST_OVER = 1.5  # how far a held-out part may exceed its target
_LEAST = 1 / 3  # of its target, which an earlier split must leave to each of them


@dataclass(frozen=True)
class Known:
    """An earlier split: the part of utterances, by id, and of speakers, by name."""

    utterances: Mapping[str, str]
    speakers: Mapping[str, str]

    def part(self, group: Sequence[Utterance], by_speaker: bool) -> str | None:
        """The part of a group, if it is known. Training wins over dev, and dev over test: what a
        model was trained on cannot measure it."""
        parts = {self.utterances.get(u.id) for u in group}
        if by_speaker:
            parts |= {self.speakers.get(u.speaker) for u in group}
        return next((part for part in PARTS if part in parts), None)


NOTHING_KNOWN = Known({}, {})


@dataclass(frozen=True)
class Split:
    """Train, dev and test; whether they share no speaker; the folder that marked recordings as test
    data, and whether that was ignored because it holds too much."""

    parts: Parts
    disjoint: bool
    marked: str = ""
    all_marked: bool = False
    repeated: bool = False
    """Whether a recording is in several parts, because there are too few recordings."""
    kept: int = 0
    """Utterances that have stayed in the part of an earlier split."""
    seen: bool = False
    """Whether dev or test has recordings of the earlier training set."""


def split_utterances(
    utterances: Sequence[Utterance],
    manifest: Path = Path("dev.jsonl"),
    sounds: Mapping[str, str] = MappingProxyType({}),
    earlier: Known = NOTHING_KNOWN,
) -> Split:
    """About a tenth of the hours for dev and for test each, by whole speakers if there are at least
    three and all are known. Utterances of one recording (`repeats`; `sounds` are digests of their
    samples, by id) go into one part. The choice depends only on ids, speakers, durations and shared
    recordings, and on an `earlier` split.

    Of the earlier split, no recording moves from train to dev or test, nor from dev to test, and
    the others of its group follow it, as long as that leaves enough for each part. A model that was
    trained on the earlier split can then be trained further and measured.

    Recordings in a folder named test form the test set, with nothing but earlier test recordings,
    unless they are most of the data or leave too little for training: data set apart for testing
    must not be trained on, and `asr tune` refuses it as dev.

    Without whole speakers, their names are stored under `VOICE` in `Utterance.extra`: as speakers
    they would be in several parts, which training refuses.
    """
    folders = {u.id: marking_folder(u.audio, manifest) for u in utterances}
    marked = [u for u in utterances if folders[u.id]]
    apart = bool(marked) and 2 * total_seconds(marked) < total_seconds(utterances)
    apart = apart and len(utterances) - len(marked) >= 2  # one for dev, one for training
    pool = [u for u in utterances if not (apart and folders[u.id])]
    least = 2 if apart else 3
    names = {u.speaker for u in pool}
    disjoint = len(names) >= least and all(u.speaker for u in utterances)
    disjoint = disjoint and not (apart and names & {u.speaker for u in marked})
    recordings = recording_keys(utterances, sounds)
    groups: dict[str, list[Utterance]] = {}
    homes: dict[str, str] = {}
    # Fallbacks if too few groups are left: split speakers; ignore the earlier split (first with
    # whole speakers again); split recordings.
    whole: tuple[tuple[bool, Keys], ...] = ((disjoint, recordings), (False, recordings))
    splits = (NOTHING_KNOWN,) if earlier == NOTHING_KNOWN else (earlier, NOTHING_KNOWN)
    choices = [(*choice, known) for known in splits for choice in whole]
    choices.append((disjoint, [[] for _ in utterances], NOTHING_KNOWN))
    for disjoint, keys, known in choices:
        groups = _groups(utterances, keys, disjoint, lambda u: apart and bool(folders[u.id]))
        homes = _drawn(groups, known, disjoint, apart)
        enough = known is NOTHING_KNOWN or _is_enough(groups, homes, apart)
        if len(groups) >= least and enough:
            break
    repeated = keys is not recordings
    home = {u.id: homes[name] for name, group in groups.items() for u in group}
    # The remaining ones are for testing: they are in such a folder, or of the same recording.
    parts: dict[str, list[Utterance]] = {part: [] for part in PARTS}
    for utterance in utterances if disjoint else map(_anonymous, utterances):
        parts[home.get(utterance.id, "test")].append(utterance)
    folder = folders[marked[0].id] if marked else ""
    stayed = (u.id for part in PARTS for u in parts[part] if earlier.utterances.get(u.id) == part)
    kept = sum(1 for _ in stayed)
    seen = any(earlier.utterances.get(u.id) == "train" for u in [*parts["dev"], *parts["test"]])
    return Split(parts, disjoint, folder, bool(marked) and not apart, repeated, kept, seen)


def _drawn(
    groups: Mapping[str, Sequence[Utterance]], known: Known, by_speaker: bool, apart: bool
) -> dict[str, str]:
    """The part of each group: the known one, or one that is drawn. Test recordings that are set
    `apart` are in no group."""
    seconds = {name: total_seconds(group) for name, group in groups.items()}
    wanted = _wanted(seconds)
    order = sorted(seconds, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    parts = {name: known.part(groups[name], by_speaker) for name in order}
    homes = {name: part for name, part in parts.items() if part is not None}
    for part, later in (("test", ("dev", "train")), ("dev", ("train",))):
        if part == "test" and apart:
            continue
        held = sum(seconds[name] for name, home in homes.items() if home == part)
        free = [name for name in order if name not in homes]
        # One group each for the parts that are still empty, and one that is new to train on.
        most = len(free) - max(bool(held), sum(other not in homes.values() for other in later))
        if held:  # more of it only in small steps
            free = [name for name in free if seconds[name] <= _MOST_OVER * (wanted - held)]
        if free and most > 0 and held * _MOST_OVER < wanted:
            homes |= dict.fromkeys(held_out(free, seconds, wanted - held, most), part)
    return {name: homes.get(name, "train") for name in order}


def _is_enough(
    groups: Mapping[str, Sequence[Utterance]], homes: Mapping[str, str], apart: bool
) -> bool:
    """Whether there is something to train on, and not too little to measure by."""
    seconds = dict.fromkeys(PARTS, 0.0)
    for name, group in groups.items():
        seconds[homes[name]] += total_seconds(group)
    least = _LEAST * _wanted(seconds)
    measured = ("dev",) if apart else ("dev", "test")
    return seconds["train"] > 0 and all(seconds[part] >= least for part in measured)


def _wanted(seconds: Mapping[str, float]) -> float:
    """Seconds for dev and for test each, of the seconds of all groups or parts."""
    total = sum(seconds.values())
    return max(SHARE * total, min(SHORTEST, total / 5))


def _groups(
    utterances: Sequence[Utterance],
    recordings: Keys,
    by_speaker: bool,
    is_marked: Callable[[Utterance], bool],
) -> dict[str, list[Utterance]]:
    """Utterances that must go into one part, by the first of their keys, without those marked for
    testing or of the same recording as one of these."""
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


def held_out(
    order: Sequence[str], seconds: Mapping[str, float], wanted: float, most: int
) -> set[str]:
    """Groups in this order until there is enough; the smallest group if each is too large."""
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


def refuse_test_set(model: Path | None, manifest: Path, utterances: Sequence[Utterance]) -> None:
    """Raise AsrError if the name of the manifest, the folders of its recordings, or the test report
    of a recipe beside the model show that this is a test set. Folders do not count for utterances
    with the value "dev" in the column `part`."""
    reason = ""
    others = (u for u in utterances if u.extra.get("part") != "dev")
    folders = {name for u in others if (name := marking_folder(u.audio, manifest))}
    if TEST_NAME.search(manifest.stem):
        reason = "its name"
    elif folders:
        reason = f"the folder {min(folders)} of its recordings"
    report = None if model is None else model.parent / "test" / "report.json"
    if report is not None and report.is_file() and _is_of(report, manifest):
        reason = f"the report {report}"
    if reason:
        raise AsrError(
            f"expected a development set, got {manifest}, which {reason} marks as a test set: "
            "take speakers cut from the training data"
        )


def _is_of(report: Path, manifest: Path) -> bool:
    try:
        return bool(read_json(report)["run"]["manifest_sha256"] == digest(manifest))
    except (ValueError, KeyError, TypeError):
        return False  # a report on other data


def _folders(audio: Path, manifest: Path) -> tuple[str, ...]:
    """The folders between a manifest and a recording below it, or the last few above another."""
    folder, home = audio.resolve().parent, manifest.resolve().parent
    if folder.is_relative_to(home):
        return folder.relative_to(home).parts
    return folder.parts[-FOLDERS:]


def marking_folder(audio: Path, manifest: Path) -> str:
    """The folder above a recording whose name marks a test set, or ""."""
    return next((part for part in _folders(audio, manifest) if TEST_NAME.search(part)), "")


def split_speakers(
    utterances: Sequence[Utterance], speakers: int, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Hold out `speakers` whole speakers: (rest, held out), both in the order given.

    The choice depends only on the seed and the set of speakers, not on the utterances' order.

    Raises:
        ManifestError: an utterance without a speaker; too few speakers to leave one on each side.

    >>> utterances = [Utterance(str(n), Path("a.wav"), "yes", 1.0, speaker=s)
    ...               for n, s in enumerate("abba")]
    >>> [[u.speaker for u in part] for part in split_speakers(utterances, 1, seed=0)]
    [['a', 'a'], ['b', 'b']]
    """
    for utterance in utterances:
        if not utterance.speaker:
            raise ManifestError(
                f"utterance {shown(utterance.id)}: expected a speaker to split by, got none;"
                ' add "speaker" to the manifest'
            )
    names = sorted({utterance.speaker for utterance in utterances})
    if not 1 <= speakers < len(names):
        raise ManifestError(
            f"expected to hold out at least 1 and fewer than all {len(names)} speakers,"
            f" got {speakers}; hold out fewer or add speakers"
        )
    chosen = set(random.Random(seed).sample(names, speakers))
    rest = [utterance for utterance in utterances if utterance.speaker not in chosen]
    return rest, [utterance for utterance in utterances if utterance.speaker in chosen]
