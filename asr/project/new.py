"""A project from a user's recordings: manifests, a commented recipe, and the next commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from asr.dataset.importers import LeftOut
from asr.dataset.manifest import Utterance, write_manifest
from asr.dataset.splits import Parts, split_utterances, total_seconds
from asr.dataset.validate import (
    SAME,
    AudioCheck,
    CheckReport,
    Problem,
    check_audio,
    check_manifests,
)
from asr.dataset.validate_text import render
from asr.errors import AsrError
from asr.io.files import atomic_path, refuse_taken, remove_leftovers
from asr.io.printable import printable, printable_name
from asr.io.terminal import progress_bar
from asr.models.acoustic import AcousticModel
from asr.models.bundle import Bundle
from asr.project.defaults import Proposal, Texts, examine
from asr.project.earlier import Earlier, earlier_sets
from asr.project.initial import Initial, proposed_recipe, read_initial
from asr.project.notes import (
    earlier_notes,
    left_out_notes,
    one_line,
    size_notes,
    speaker_notes,
    spoken,
    text_notes,
)
from asr.project.recordings import Examined, Listing, listed, measured, recalled
from asr.text.normalise import TextConfig
from asr.text.tokens import build_tokens
from asr.training.estimate import measure_training
from asr.training.recipe import read_recipe

Say = Callable[[str], None]

FEWEST = 10  # utterances
# Problems of `asr check` with which an utterance cannot be used for training.
_USELESS = frozenset(
    {"missing audio", "undecodable audio", "silent audio", "empty text", "text does not fit"}
)


def new_project(
    project: str | Path,
    source: str | Path,
    say: Say = print,
    examined: Examined | None = None,
    model: str | None = None,
) -> None:
    """Write the folder `project` atomically, and report what was found and the next commands. With
    what shards have `examined`, no recording is read. The recipe trains from random weights, or
    from the `model` in a folder (`read_initial`); recordings that this model was trained or tested
    with then stay in their set.

    Raises AsrError for an existing folder, an unreadable source, a bad model, and if more than half
    of the source cannot be used.
    """
    project = Path(project)
    refuse_taken(project)
    initial = None if model is None else read_initial(model)
    earlier = Earlier() if initial is None else earlier_sets(initial.folder)
    listing, kept, unreadable, checks = _usable(source, examined)
    before = earlier.known(kept)
    found = listing.found
    left_out = [*found.left_out, *listing.nameless, *unreadable]
    check_once = _checking_once(checks)
    sounds: dict[str, str] = {}
    with atomic_path(project) as temporary:
        while True:
            _refuse_mostly_bad(source, kept, left_out)
            temporary.mkdir(exist_ok=True)
            split = split_utterances(kept, project / "dev.jsonl", sounds, before)
            learnt, texts, proposal = _write(temporary, split.parts, source, initial)
            report = _check(temporary, project, check_once)
            useless = {p.id: f"{p.kind}: {p.detail}" for p in report.problems if p.kind in _USELESS}
            known = {name: one.sound for name, one in checks.items() if one.sound}
            shared = any(problem.kind == SAME for problem in report.problems)
            if not useless and (not shared or known == sounds):
                break
            sounds = known
            left_out += [LeftOut(name, why) for name, why in useless.items()]
            kept = [u for u in kept if u.id not in useless]
        training = _measure(temporary)
        _list_left_out(temporary, left_out)
    remove_leftovers(project)
    if split.repeated:  # reported once by a note
        report = replace(report, problems=tuple(p for p in report.problems if p.kind != SAME))
    minutes = total_seconds(kept) / 60
    say(f"found {printable(found.kind)}: {len(kept)} utterances, {spoken(minutes)}\n")
    say(render(report))
    for note in [
        *left_out_notes(left_out, project),
        *([found.note] if found.note else []),
        *speaker_notes(kept, split, found.speakers),
        *earlier_notes(split, earlier),
        *text_notes(split.parts, learnt, texts, initial.characters if initial else frozenset()),
        *size_notes(split.parts, proposal, training, initial.folder if initial else None),
    ]:
        say(note)
    _say_next(project, say)


def _usable(
    source: str | Path, examined: Examined | None
) -> tuple[Listing, list[Utterance], list[LeftOut], dict[str, AudioCheck]]:
    """What a source holds, its recordings that can be read and the others, and what is known of
    their sound."""
    if examined is not None:
        return examined.listing, *recalled(examined)
    listing = listed(source)
    return listing, *measured(list(listing.named.values())), {}


def _refuse_mostly_bad(
    source: str | Path, kept: Sequence[Utterance], left_out: Sequence[LeftOut]
) -> None:
    if len(left_out) > len(kept):
        first = left_out[0]
        raise AsrError(
            f"expected recordings with texts in {source}, got {len(left_out)} of"
            f" {len(kept) + len(left_out)} that cannot be used, first {first.name}: {first.why}:"
            " fix them, or name another folder or table"
        )
    if len(kept) < FEWEST:
        raise AsrError(
            f"expected at least {FEWEST} recordings with texts, got {len(kept)} ({source}):"
            " record more"
        )


# --- writing ---


def _write(
    folder: Path, parts: Parts, source: str | Path, initial: Initial | None
) -> tuple[Texts, Texts, Proposal]:
    """Returns the texts of train, the texts of all parts, and the proposal."""
    for name, utterances in parts.items():
        write_manifest(folder / f"{name}.jsonl", utterances)
    train = parts["train"]
    config = (initial and initial.text) or TextConfig()
    learnt = examine([u.text for u in train], config)
    # A name may contain line ends, or characters that YAML or UTF-8 do not allow.
    place = " ".join(str(Path(source).absolute()).split())
    shown = "".join(c if c.isprintable() else "?" for c in place)
    recipe, proposal = proposed_recipe(shown, train, learnt, initial)
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    everything = [u.text for utterances in parts.values() for u in utterances]
    return learnt, examine(everything, config), proposal


def _list_left_out(folder: Path, left_out: Sequence[LeftOut]) -> None:
    if left_out:
        lines = "".join(f"{one_line(item)}\n" for item in left_out)
        (folder / "left-out.txt").write_text(lines, encoding="utf-8")


def _checking_once(checks: dict[str, AudioCheck]) -> Callable[[Utterance], AudioCheck]:
    """Decode each recording only the first time: leaving out utterances does not change the others.
    `checks` holds those so far, by id."""

    def check_once(utterance: Utterance) -> AudioCheck:
        if utterance.id not in checks:
            checks[utterance.id] = check_audio(utterance)
        return checks[utterance.id]

    return check_once


def _check(
    folder: Path, project: Path, check_once: Callable[[Utterance], AudioCheck]
) -> CheckReport:
    """The result of `asr check` for the project at its final path."""
    recipe = read_recipe(folder / "recipe.yaml")
    tokens = build_tokens([], recipe.tokens)
    # Only its frame rate is needed, which depends neither on its size nor on attention.
    changes = {"hidden": 1, "layers": 1, "attention_heads": 0, "attention_window": None}
    small = recipe.model.model_copy(update=changes)
    model = AcousticModel(recipe.features, small, len(tokens))
    bundle = Bundle(model, tokens, recipe.text)
    manifests = [folder / f"{name}.jsonl" for name in ("train", "dev", "test")]
    with progress_bar("checking") as progress:
        report = check_manifests(
            manifests,
            output_frames=bundle.output_frames,
            normalise=bundle.normalise,
            progress=progress,
            check_audio=check_once,
        )

    def placed(problem: Problem) -> Problem:
        detail = problem.detail.replace(str(folder), str(project))
        return replace(problem, manifest=project / problem.manifest.name, detail=detail)

    return replace(
        report,
        manifests=tuple(replace(m, path=project / m.path.name) for m in report.manifests),
        problems=tuple(map(placed, report.problems)),
        notes=tuple(map(placed, report.notes)),
    )


def _measure(folder: Path) -> float | None:
    """Minutes that training will take, or None if a step of it fails."""
    try:
        with progress_bar("measuring training steps"):
            return measure_training(read_recipe(folder / "recipe.yaml")) / 60
    except (AsrError, MemoryError, RuntimeError):
        return None


def _say_next(project: Path, say: Say) -> None:
    where = printable(shlex.quote(str(project)))
    say(f"\nRecipe to read and edit: {printable_name(project / 'recipe.yaml')}. Next:")
    say(f"  asr train {where}/recipe.yaml")
    say(f"  asr evaluate {where}/run/model {where}/test.jsonl --out {where}/report")
