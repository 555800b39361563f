"""A project from somebody's recordings: manifests, a commented recipe, and what to do next."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from asr.audio import audio_duration
from asr.check import CheckReport, Heard, check_manifests, hear, render
from asr.console import progress_bar
from asr.errors import AsrError, AudioError
from asr.evaluation.lines import is_whole
from asr.files import atomic_path, remove_leftovers
from asr.manifest import Utterance, write_manifest
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.proposal import VOICE, Proposal, Texts, examine, propose, recipe_text
from asr.sources import LeftOut, read_source
from asr.text import TextConfig
from asr.tokens import build_tokens
from asr.training.recipe import read_recipe
from asr.tuning import marking_folder

Parts = Mapping[str, Sequence[Utterance]]
Say = Callable[[str], None]

SHARE = 0.1  # of the hours, for dev and for test each
SHORTEST = 60.0  # seconds of either, where that is no more than a fifth of everything
FEWEST = 10  # utterances
SHOWN = 10
_MOST_OVER = 1.5  # how far a held-out part may exceed what is wanted
# What `asr check` finds that no training could use.
_USELESS = frozenset(
    {"missing audio", "undecodable audio", "silent audio", "empty text", "text does not fit"}
)


@dataclass(frozen=True)
class Split:
    """Train, dev and test, and whether no speaker is in two of them; the folder that said which
    recordings are for testing, and whether that was passed over: too much lies in such."""

    parts: Parts
    disjoint: bool
    marked: str = ""
    all_marked: bool = False


def new_project(project: str | Path, source: str | Path, say: Say = print) -> None:
    """Write the folder `project`, whole or not at all, and say what was found and what comes next.

    Raises AsrError for a folder that is taken, a source that cannot be read, and where more than
    half of it cannot be used.
    """
    project = Path(project)
    _refuse_taken(project)
    found = read_source(source)
    named, nameless = _nameable(found.utterances)
    kept, unreadable = _measured(named)
    left_out = [*found.left_out, *nameless, *unreadable]
    hear_once = _hearing_once()
    with atomic_path(project) as temporary:
        while True:
            _refuse_mostly_bad(source, kept, left_out)
            temporary.mkdir(exist_ok=True)
            split = split_utterances(kept, project / "dev.jsonl")
            learnt, texts, proposal = _write(temporary, split.parts, source)
            report = _check(temporary, project, hear_once)
            useless = {p.id: f"{p.kind}: {p.detail}" for p in report.problems if p.kind in _USELESS}
            if not useless:
                break
            left_out += [LeftOut(name, why) for name, why in useless.items()]
            kept = [u for u in kept if u.id not in useless]
        if left_out:
            lines = "".join(f"{_one_line(item)}\n" for item in left_out)
            (temporary / "left-out.txt").write_text(lines, encoding="utf-8")
    remove_leftovers(project)
    minutes = _seconds(kept) / 60
    say(f"found {found.kind}: {len(kept)} utterances, {_spoken(minutes)}\n")
    say(render(report))
    for note in [
        *_left_out_notes(left_out, project),
        *([found.note] if found.note else []),
        *_speaker_notes(kept, split, found.speakers),
        *_text_notes(split.parts, learnt, texts),
        *_size_notes(split.parts, proposal),
    ]:
        say(note)
    _say_next(project, say)


def _refuse_taken(project: Path) -> None:
    empty = project.is_dir() and not any(project.iterdir())
    if project.resolve() == Path.cwd() or (project.exists() and not empty):
        raise AsrError(
            f"expected the name of a new folder, got {project}, which is there: choose another one"
        )


def _refuse_mostly_bad(
    source: str | Path, kept: Sequence[Utterance], left_out: Sequence[LeftOut]
) -> None:
    if len(left_out) > len(kept):
        first = left_out[0]
        raise AsrError(
            f"expected recordings with texts in {source}, got {len(left_out)} of"
            f" {len(kept) + len(left_out)} that cannot be used, first {first.name}: {first.why}:"
            " mend them, or name another folder or table"
        )
    if len(kept) < FEWEST:
        raise AsrError(
            f"expected at least {FEWEST} recordings with texts, got {len(kept)} ({source}):"
            " record more"
        )


# --- names and durations ---


def _nameable(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[LeftOut]]:
    """The utterances that a manifest can hold, and those that UTF-8 cannot."""
    kept, left_out = [], []
    for utterance in utterances:
        if not is_whole(f"{utterance.id}{utterance.audio}{utterance.speaker}"):
            left_out.append(LeftOut(utterance.id, "its name is no UTF-8: rename it"))
        elif not is_whole(utterance.text):
            left_out.append(LeftOut(utterance.id, "half a character in its text: correct it"))
        else:
            kept.append(utterance)
    return kept, left_out


def _measured(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[LeftOut]]:
    """The utterances with their durations, and those whose recordings cannot be read."""
    paths = list(dict.fromkeys(u.audio for u in utterances))
    lengths: dict[Path, float | str] = {}
    threads = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        with progress_bar("measuring") as progress:
            for path, length in zip(paths, threads.map(_length, paths), strict=True):
                lengths[path] = length
                progress(len(lengths), len(paths))
    finally:
        threads.shutdown(cancel_futures=True)
    kept, left_out = [], []
    for utterance in utterances:
        length = lengths[utterance.audio]
        if isinstance(length, str):
            left_out.append(LeftOut(utterance.id, length))
        elif utterance.start >= length:
            why = f"starts at {utterance.start} s, after the end of {utterance.audio}"
            left_out.append(LeftOut(utterance.id, why))
        else:
            end = None if utterance.end is None else min(utterance.end, length)
            seconds = (length if end is None else end) - utterance.start
            kept.append(replace(utterance, duration=max(round(seconds, 3), 0.001), end=end))
    return kept, left_out


def _length(path: Path) -> float | str:
    try:
        return audio_duration(path, say=lambda _: None)  # the check names what is damaged
    except AudioError as error:
        return str(error)


# --- splits ---


def split_utterances(utterances: Sequence[Utterance], manifest: Path = Path("dev.jsonl")) -> Split:
    """About a tenth of the hours for dev and for test each, by whole speakers where there are three
    or more and each is known. The choice depends on ids, speakers and durations alone.

    What lies in a folder named test is the test set, and nothing else is, unless that is most of
    all or leaves too little to learn from: what somebody has set apart must not be learnt, and
    `asr tune` refuses it as dev.

    Elsewhere speakers are held under `VOICE` in `Utterance.extra`: as speakers they would be in
    several parts, which training refuses.
    """
    folders = {u.id: marking_folder(u.audio, manifest) for u in utterances}
    marked = [u for u in utterances if folders[u.id]]
    apart = bool(marked) and 2 * _seconds(marked) < _seconds(utterances)
    apart = apart and len(utterances) - len(marked) >= 2  # one for dev, one to learn from
    pool = [u for u in utterances if not (apart and folders[u.id])]
    names = {u.speaker for u in pool}
    disjoint = len(names) >= (2 if apart else 3) and all(u.speaker for u in utterances)
    disjoint = disjoint and not (apart and names & {u.speaker for u in marked})
    groups: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in pool:
        groups[utterance.speaker if disjoint else utterance.id].append(utterance)
    seconds = {name: _seconds(group) for name, group in groups.items()}
    total = sum(seconds.values())
    wanted = max(SHARE * total, min(SHORTEST, total / 5))
    order = sorted(seconds, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    test = set() if apart else _held_out(order, seconds, wanted, most=len(order) - 2)
    rest = [name for name in order if name not in test]
    dev = _held_out(rest, seconds, wanted, most=len(rest) - 1)
    homes = dict.fromkeys(order, "train") | dict.fromkeys(dev, "dev") | dict.fromkeys(test, "test")
    parts: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for utterance in utterances:
        name = utterance.speaker if disjoint else utterance.id
        home = "test" if apart and folders[utterance.id] else homes[name]
        parts[home].append(utterance if disjoint else _anonymous(utterance))
    folder = folders[marked[0].id] if marked else ""
    return Split(parts, disjoint, folder, bool(marked) and not apart)


def _seconds(utterances: Sequence[Utterance]) -> float:
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


# --- writing ---


def _write(folder: Path, parts: Parts, source: str | Path) -> tuple[Texts, Texts, Proposal]:
    """Also gives what the texts of train hold, what all of them hold, and what was proposed."""
    for name, utterances in parts.items():
        write_manifest(folder / f"{name}.jsonl", utterances)
    train = parts["train"]
    learnt = examine([u.text for u in train], TextConfig())
    proposal = propose(train, learnt)
    hours = _seconds(train) / 3600
    # A name may hold what would end the comment, or what is neither YAML nor UTF-8.
    place = " ".join(str(Path(source).absolute()).split())
    shown = "".join(c if c.isprintable() else "?" for c in place)
    (folder / "recipe.yaml").write_text(recipe_text(shown, hours, proposal), encoding="utf-8")
    everything = [u.text for utterances in parts.values() for u in utterances]
    return learnt, examine(everything, TextConfig()), proposal


def _hearing_once() -> Callable[[Utterance], Heard]:
    """Decode each recording the first time only: what is left out changes no other one."""
    heard: dict[str, Heard] = {}

    def hear_once(utterance: Utterance) -> Heard:
        if utterance.id not in heard:
            heard[utterance.id] = hear(utterance)
        return heard[utterance.id]

    return hear_once


def _check(folder: Path, project: Path, hear_once: Callable[[Utterance], Heard]) -> CheckReport:
    """What `asr check` finds, as if the project stood in its place already."""
    recipe = read_recipe(folder / "recipe.yaml")
    tokens = build_tokens([], recipe.tokens)
    # Only its frame rate is asked for, which does not depend on its size.
    small = recipe.model.model_copy(update={"hidden": 1, "layers": 1})
    model = AcousticModel(recipe.features, small, len(tokens))
    bundle = Bundle(model, tokens, recipe.text)
    manifests = [folder / f"{name}.jsonl" for name in ("train", "dev", "test")]
    with progress_bar("checking") as progress:
        report = check_manifests(
            manifests,
            output_frames=bundle.output_frames,
            normalise=bundle.normalise,
            progress=progress,
            hear=hear_once,
        )
    return replace(
        report,
        manifests=tuple(replace(m, path=project / m.path.name) for m in report.manifests),
        problems=tuple(replace(p, manifest=project / p.manifest.name) for p in report.problems),
        notes=tuple(replace(p, manifest=project / p.manifest.name) for p in report.notes),
    )


# --- what a person should know ---


def _left_out_notes(left_out: Sequence[LeftOut], project: Path) -> list[str]:
    if not left_out:
        return []
    lines = [f"left out: {len(left_out)} (all in {project / 'left-out.txt'})"]
    lines += [f"  {_one_line(item)}" for item in left_out[:SHOWN]]
    if len(left_out) > SHOWN:
        lines.append(f"  and {len(left_out) - SHOWN} more")
    return ["\n".join(lines)]


def _one_line(item: LeftOut) -> str:
    # Names of files may be no UTF-8, and hold line ends.
    text = f"{item.name}: {item.why}".encode("utf-8", "replace").decode()
    return " ".join(text.split())


def _speaker_notes(kept: Sequence[Utterance], split: Split, origin: str) -> list[str]:
    names = sorted({u.speaker for u in kept} - {""})
    notes = []
    if names:
        more = ", ..." if len(names) > 3 else ""
        notes.append(f"speakers: {len(names)}, from {origin}: {', '.join(names[:3])}{more}")
    else:
        notes.append("speakers: unknown (a column `speaker`, or a sub-folder each, would tell)")
    if split.all_marked:
        notes.append(
            f"recordings lie in a folder named {split.marked}: `asr tune` takes them for a test set"
            " and refuses; give it another name and begin anew, if you mean to use it"
        )
    elif split.marked:
        notes.append(f"test is what lies in the folder {split.marked}, and nothing else")
    if split.disjoint:
        notes.append("dev and test are speakers that are not in train: figures hold for new voices")
        return notes
    notes.append(
        "speakers are too few, unknown, or shared with test: dev and test are cut by utterance,"
        " figures will be for these voices only, and new ones will be recognised worse"
    )
    return notes


def _text_notes(parts: Parts, learnt: Texts, texts: Texts) -> list[str]:
    notes = []
    for what, found, advice in (
        ("digits", texts.digits, "write numbers as they are spoken if you can"),
        ("punctuation", texts.punctuation, "set text.punctuation to remove if you do not need it"),
    ):
        if found:
            shown = " ".join(c for c, _ in found.most_common(SHOWN))
            notes.append(
                f"{what}: {sum(found.values())} in the texts ({shown}): nobody says them, and the"
                f" model would have to learn when to write them; {advice}"
            )
    if texts.unspaced:
        notes.append("no blanks between words: error rates will count characters")
    new = {c: count for c, count in texts.characters.items() if c not in learnt.characters}
    if new:
        notes.append(
            f"characters of dev or test that train lacks: {' '.join(islice(new, SHOWN))}"
            f" ({sum(new.values())} times): the model cannot write them"
        )
    said = {u.text for u in parts["train"]}
    again = sum(u.text in said for u in parts["test"])
    if 2 * again > len(parts["test"]):
        notes.append(
            f"{again} of {len(parts['test'])} test sentences are also in train: figures will be for"
            " known sentences, not for free speech"
        )
    return notes


def _size_notes(parts: Parts, proposal: Proposal) -> list[str]:
    hours = _seconds(parts["train"]) / 3600
    notes = [
        f"proposal: {proposal.units} as units, {proposal.layers} layers of {proposal.hidden} cells,"
        f" {proposal.epochs} epochs; roughly {_spoken(proposal.minutes(hours))} on two processor"
        " cores, less on more or on a GPU"
    ]
    if hours < 1 / 6:
        notes.append("less than ten minutes to learn from: too little to rely on; record more")
    elif hours < 1:
        notes.append("less than an hour to learn from: enough for commands, not for free speech")
    return notes


def _spoken(minutes: float) -> str:
    if minutes < 90:
        return f"{round(minutes)} minutes" if minutes >= 1.5 else "a minute"
    hours = minutes / 60
    return f"{round(hours)} hours" if hours < 48 else f"{round(hours / 24)} days"


def _say_next(project: Path, say: Say) -> None:
    where = shlex.quote(str(project))
    say(f"\nThe recipe, to read and to change: {project / 'recipe.yaml'}. Next:")
    say(f"  asr train {where}/recipe.yaml")
    say(f"  asr evaluate {where}/run/model {where}/test.jsonl --out {where}/report")
