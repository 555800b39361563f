"""Notes for the user about a new project."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.dataset.source import LeftOut
from asr.dataset.splits import Parts, Split, total_seconds
from asr.io.files import read_json
from asr.io.printable import printable, printable_name
from asr.project.defaults import Proposal, Texts
from asr.project.earlier import Earlier

SHOWN = 10


def left_out_notes(left_out: Sequence[LeftOut], project: Path) -> list[str]:
    if not left_out:
        return []
    lines = [f"left out: {len(left_out)} (all in {printable_name(project / 'left-out.txt')})"]
    lines += [f"  {one_line(item)}" for item in left_out[:SHOWN]]
    if len(left_out) > SHOWN:
        lines.append(f"  and {len(left_out) - SHOWN} more")
    return ["\n".join(lines)]


def one_line(item: LeftOut) -> str:
    """What was left out and why, printable for any file name."""
    return printable(f"{item.name}: {item.why}")


def speaker_notes(kept: Sequence[Utterance], split: Split, origin: str) -> list[str]:
    names = sorted({u.speaker for u in kept} - {""})
    notes = []
    if names:
        more = ", ..." if len(names) > 3 else ""
        notes.append(
            f"speakers: {len(names)}, from {origin}: {printable(', '.join(names[:3]))}{more}"
        )
    else:
        notes.append("speakers: unknown (use a column `speaker`, or one sub-folder per speaker)")
    if split.all_marked:
        notes.append(
            f"recordings are in a folder named {printable(split.marked)}: `asr tune` treats them as"
            " a test set and refuses; to use it, rename the folder and start again"
        )
    elif split.marked:
        notes.append(f"the recordings in the folder {printable(split.marked)} are the test set")
    if split.repeated:
        notes.append(
            "the same recordings are in several parts, because there are too few different ones:"
            " error rates will be lower than for new recordings"
        )
    if split.disjoint:
        notes.append("speakers of dev and test are not in train: error rates hold for new voices")
        return notes
    notes.append(
        "speakers are too few, unknown, or shared with test: dev and test are cut by utterance,"
        " error rates hold for these voices only, and will be higher for new ones"
    )
    return notes


def earlier_notes(split: Split, earlier: Earlier) -> list[str]:
    """Notes on the sets of the trainings of an initial model."""
    notes = []
    if split.seen:
        notes.append(
            "dev or test has recordings that the model was trained on: error rates will be lower"
            " than for new recordings; record others for a test"
        )
    elif split.kept:
        notes.append(
            f"sets of the earlier training: {split.kept} recordings stay in theirs, and none moves"
            " from train to dev or test"
        )
    elif earlier.train:
        notes.append(
            "none of these recordings is known from the earlier training; if some were moved or"
            " packed since, dev or test may have recordings that the model was trained on"
        )
    if earlier.missing:
        notes.append(
            "sets of an earlier training are not known, because "
            f"{printable_name(earlier.missing[0])} cannot be read: dev or test may have recordings"
            " that the model was trained on"
        )
    if earlier.unknown is not None:
        notes.append(
            f"{printable_name(earlier.unknown)} does not list the recordings that it was trained on"
            f"{_of_corpora(earlier.unknown)}: dev or test may have some of them, and error rates"
            " would then be too low"
        )
    return notes


def _of_corpora(model: Path) -> str:
    """The corpora that a model states, in brackets; "" if it states none."""
    try:
        corpora = read_json(model / "info.json")["about"]["datasets"]
        return f" ({', '.join(printable_name(name) for name in corpora)})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def text_notes(
    parts: Parts, learnt: Texts, texts: Texts, known: frozenset[str] = frozenset()
) -> list[str]:
    """Notes on what the texts contain. `known` are the characters that an initial model writes."""
    notes = letter_notes(texts)
    for what, found, advice in (
        ("digits", texts.digits, "write numbers as they are spoken if you can"),
        ("punctuation", texts.punctuation, "set text.punctuation to remove if you do not need it"),
    ):
        if found:
            shown = " ".join(c for c, _ in found.most_common(SHOWN))
            notes.append(
                f"{what}: {sum(found.values())} in the texts ({shown}): not spoken, so the"
                f" model would have to learn when to write them; {advice}"
            )
    if texts.unspaced:
        notes.append("no spaces between words: error rates will count characters")
    able = learnt.characters.keys() | known
    new = {c: count for c, count in texts.characters.items() if c not in able}
    if new:
        notes.append(
            f"characters of dev or test that train lacks: {' '.join(islice(new, SHOWN))}"
            f" ({sum(new.values())} times): the model cannot write them"
        )
    said = {u.text for u in parts["train"]}
    again = sum(u.text in said for u in parts["test"])
    if 2 * again > len(parts["test"]):
        notes.append(
            f"{again} of {len(parts['test'])} test sentences are also in train: error rates hold"
            " for known sentences, not for free speech"
        )
    return notes


def letter_notes(texts: Texts) -> list[str]:
    """Notes on letters that normalisation changes."""
    notes = []
    if texts.capitals:
        shown = " ".join(c for c, _ in texts.capitals.most_common(SHOWN))
        notes.append(
            f"capitals: {sum(texts.capitals.values())} in the texts ({shown}): the model will write"
            " lower case; set text.case to keep if you need them"
        )
    if texts.dotless:
        notes.append(
            "İ or ı occur: set text.language to tr for Turkish, or to az for Azerbaijani; otherwise"
            " capitals become the wrong letters (I becomes i, and İ an i with a second dot)"
        )
    return notes


def size_notes(
    parts: Parts, proposal: Proposal, minutes: float | None, initial: Path | None = None
) -> list[str]:
    hours = total_seconds(parts["train"]) / 3600
    time = ""
    if minutes is not None:
        time = f"; about {spoken(minutes)} on this machine, from measured training steps"
    network = f"{proposal.units} as tokens, {proposal.layers} layers of {proposal.hidden} cells"
    if initial is not None:
        network = f"train further from {printable_name(initial)}"
    notes = [f"proposal: {network}, {proposal.epochs} epochs{time}"]
    if initial is None and hours < 1 / 6:
        notes.append("less than ten minutes of training data: too little; record more")
    elif initial is None and hours < 1:
        notes.append("less than an hour of training data: enough for commands, not for free speech")
    return notes


def spoken(minutes: float) -> str:
    if minutes < 90:
        return f"{round(minutes)} minutes" if minutes >= 1.5 else "a minute"
    hours = minutes / 60
    return f"{round(hours)} hours" if hours < 48 else f"{round(hours / 24)} days"
