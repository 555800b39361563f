"""Utterances of the same recording, so that none is in both training and test data."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from asr.audio.files import AUDIO_SUFFIXES
from asr.dataset.manifest import Joined, Utterance
from asr.io.paths import as_stored

# Segments of a recording overlap a little if silence was added at their edges.
_SECONDS = 0.5
_SHARE = 0.25  # of the shorter segment

Keys = list[list[Hashable]]


def recording_keys(utterances: Sequence[Utterance], sounds: Mapping[str, str]) -> Keys:
    """The keys of each utterance's sound: two utterances that share a key are of one recording.

    Shared keys arise from segments of one file that overlap by more than half a second or a quarter
    of the shorter one, from files that differ only in their suffix, and from equal samples, whose
    digests `sounds` gives by utterance id.
    """
    keys: Keys = [[] for _ in utterances]
    files: dict[Hashable, list[int]] = defaultdict(list)
    names: dict[str, str] = {}
    for place, utterance in enumerate(utterances):
        path = os.fspath(utterance.audio)
        name = names.setdefault(path, _without_suffix(os.path.realpath(as_stored(path))))
        files[name, utterance.packed].append(place)
        if digest := sounds.get(utterance.id):
            keys[place].append(("sound", digest))
    for file, places in files.items():
        for place, cluster in _clusters(utterances, places).items():
            keys[place].append((file, cluster))
    return keys


def of_others(utterances: Sequence[Utterance], others: Sequence[Utterance]) -> list[list[int]]:
    """For each utterance, the places of those of `others` that are of the same recording."""
    labels = joined(recording_keys(Joined(others, utterances), {}))
    places: dict[int, list[int]] = defaultdict(list)
    for place, label in enumerate(labels[: len(others)]):
        places[label].append(place)
    return [places.get(label, []) for label in labels[len(others) :]]


def joined(keys: Sequence[Sequence[Hashable]]) -> list[int]:
    """A number for each item; items that share a key, or a chain of keys, have the same.

    >>> joined([["a"], ["b"], ["a", "c"], ["c"]])
    [0, 1, 0, 0]
    """
    parents = list(range(len(keys)))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = place = parents[parents[place]]
        return place

    homes: dict[Hashable, int] = {}
    for place, own in enumerate(keys):
        for key in own:
            first, second = sorted((root(homes.setdefault(key, place)), root(place)))
            parents[second] = first
    return [root(place) for place in range(len(keys))]


def _without_suffix(path: str) -> str:
    bare, suffix = os.path.splitext(path)  # noqa: PTH122 (of millions of names)
    return bare if suffix.lower() in AUDIO_SUFFIXES else path


def _clusters(utterances: Sequence[Utterance], places: Sequence[int]) -> dict[int, int]:
    """The segments of one file, by a number that overlapping segments share."""
    spans = {}
    for place in places:
        end = utterances[place].end
        spans[place] = (utterances[place].start, float("inf") if end is None else end)
    ordered = sorted(places, key=spans.__getitem__)
    own: list[list[Hashable]] = []
    active: list[int] = []  # indices whose segments have not ended
    for number, place in enumerate(ordered):
        start, end = spans[place]
        active = [other for other in active if spans[other][1] > start]
        own.append([place, *(other for other in active if _overlap(spans[other], spans[place]))])
        # One of several equal segments stands for all.
        if number == 0 or spans[ordered[number - 1]] != (start, end):
            active.append(place)
    return dict(zip(ordered, joined(own), strict=True))


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    common = min(one[1], other[1]) - max(one[0], other[0])
    shorter = min(one[1] - one[0], other[1] - other[0])
    return common > _SECONDS or common > _SHARE * shorter
