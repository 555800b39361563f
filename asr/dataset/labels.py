"""Transcripts that a recogniser made, as training data beside those of people.

`asr label` writes such a manifest. Each utterance has a `confidence`, the mean of those of its
words, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asr.dataset.manifest import Joined, Manifest, Selection, Utterance, shown
from asr.dataset.repeats import of_others
from asr.errors import ManifestError
from asr.io.printable import printable

CONFIDENCE = "confidence"
MISFIT = "misfit"  # of a transcript that `asr clean` has ranked


def confidences(path: Path, labels: Manifest) -> list[float]:
    """The confidence of each utterance of a manifest. Raises ManifestError for one without."""
    found = []
    for utterance in labels:
        value: Any = utterance.extra.get(CONFIDENCE)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            got = "none" if value is None else shown(value)
            raise ManifestError(
                f"{path}: utterance {shown(utterance.id)}: expected a confidence from 0 to 1, got "
                f"{got}: make labels with asr label, and give transcripts of people as data.train"
            )
        found.append(float(value))
    return found


def usable(
    labels: Manifest,
    transcribed: Sequence[Utterance],
    missing: Callable[[str], set[str]],
    say: Callable[[str], None],
) -> Selection:
    """The labels to train on. Those of `transcribed` recordings are left out, since dev must not be
    trained on and transcripts of people are better, and those with characters that the tokens lack
    (`missing` names them for a text). `say` reports both.

    Raises ManifestError if none are left.
    """
    places, same, unknown = [], [], []
    for place, (u, transcripts) in enumerate(
        zip(labels, of_others(labels, transcribed), strict=True)
    ):
        lacking = missing(u.text)
        if transcripts:
            same.append(u.id)
        elif lacking:
            unknown.append(f"{u.id}: {''.join(sorted(lacking))!r}")
        else:
            places.append(place)
    for what, left_out in (
        ("of recordings in data.train or data.dev", same),
        ("with characters that the tokens lack", unknown),
    ):
        if left_out:
            say(f"left out, labels {what}: {len(left_out)}, first {printable(left_out[0])}")
    if not places:
        raise ManifestError(
            f"expected labels to train on, got none of {len(labels)} (data.labels): label other "
            "recordings, or train without data.labels"
        )
    return Selection(labels, places)


def join(train: Manifest, path: Path, labels: Sequence[Utterance]) -> Joined:
    """Transcripts of people, and labels from `path`. Raises ManifestError for equal ids."""
    known = {utterance.id for utterance in train}
    both = [utterance.id for utterance in labels if utterance.id in known]
    if both:
        raise ManifestError(
            f"{path}: expected ids that data.train does not have, got {len(both)} in both, first "
            f"{shown(both[0])}: remove or rename them"
        )
    return Joined(train, labels)
