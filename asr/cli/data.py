"""The commands that create, check and prepare corpora."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.console import check_out
from asr.cli.option_groups import with_options
from asr.cli.sharding import ShardOptions, merged_rows
from asr.errors import ConfigError
from asr.io.printable import printable_lines
from asr.io.terminal import progress_bar, show, tell

if TYPE_CHECKING:
    from asr.dataset.validate import AudioCheck
    from asr.io.shard_results import Row, State
    from asr.text.tokens import Tokens

app = typer.Typer()


@app.command(epilog="Example: asr new greetings recordings/")
@with_options
def new(
    project: Annotated[Path, typer.Argument(help="Folder to create.")],
    source: Annotated[Path, typer.Argument(help="Folder or table of recordings with texts.")],
    sharding: ShardOptions,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Model folder or encoder of asr pretrain to train further, or the word default"
            " for the included model; without it, training starts from random weights.",
        ),
    ] = None,
) -> None:
    """Create manifests and a recipe from recordings with texts, and print the next command."""
    from asr.io.files import refuse_taken
    from asr.project.new import new_project
    from asr.project.recordings import Examined, examine, listed, state

    shard = sharding.check(project)
    if shard is None and not sharding.merge:
        return new_project(project, source, model=from_)
    refuse_taken(project)
    listing = listed(source)
    named = listing.named
    work = sharding.work("new", project, {}, list(named))
    assert work is not None

    def states(id_: str) -> State:
        return state(named[id_])

    if shard is not None:
        failed = sharding.run(work, states, lambda left: examine([named[id_] for id_ in left]))
        sys.exit(min(1, failed))
    with merged_rows(work, states) as row:
        new_project(project, source, examined=Examined(listing, row), model=from_)


@app.command(epilog="Example: asr check data/train.jsonl data/dev.jsonl --model exp/an4/model")
@with_options
def check(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests of one corpus.")],
    sharding: ShardOptions,
    model: Annotated[
        Path | None, typer.Option(help="Check against this model's tokens and frame rate.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the report, as text.")] = None,
) -> None:
    """Report hours, speakers, characters, lengths, and all problems of a corpus by utterance."""
    from asr.dataset import validate
    from asr.dataset.validate_text import render
    from asr.io.paths import as_stored
    from asr.io.shard_results import Row, file_size
    from asr.io.threads import in_threads

    _check_report(out, manifests)
    shard = sharding.check(out)
    # Only the checks of texts need the model, and they belong to the merge.
    tokens, frames, normalise = _text_checks(model if shard is None else None)
    corpus = validate.read_corpus(manifests, normalise)
    names = corpus.names()
    places = {name: place for place, name in enumerate(names)}
    files = {f"manifest {number}": path for number, path in enumerate(manifests, start=1)}
    work = sharding.work("check", out, files, names)

    def audio(place: int) -> AudioCheck:
        return validate.check_audio(corpus.located[place].utterance)

    def results(left: Sequence[str]) -> Iterator[tuple[str, Row]]:
        checks = in_threads(audio, [places[name] for name in left])
        for name, found in zip(left, checks, strict=True):
            yield name, Row(found, found.unreadable)

    def size(name: str) -> int | None:
        return file_size(as_stored(corpus.located[places[name]].utterance.audio))

    if work is not None and shard is not None:
        sys.exit(min(1, sharding.run(work, size, results)))
    with ExitStack() as stack:
        row = None if work is None else stack.enter_context(merged_rows(work, size))

        def found(place: int) -> AudioCheck:
            return audio(place) if row is None else validate.AudioCheck(*row(names[place]).value)

        progress = stack.enter_context(progress_bar("checking"))
        workers = None if row is None else 1  # rows are read one at a time
        report = validate.check_corpus(corpus, found, tokens, frames, workers, progress)
    _write_report(out, render(report))
    show(render(report))
    if report.problems:
        sys.exit(1)


def _check_report(out: Path | None, manifests: Sequence[Path]) -> None:
    """Refuse a report that would replace an input, or could not be written in the end."""
    if out is not None and (
        out.is_dir() or out.resolve() in {path.resolve() for path in manifests}
    ):
        raise ConfigError(
            f"expected the name of a file for the report, no folder or manifest, got --out {out}: "
            "choose another"
        )


def _text_checks(
    model: Path | None,
) -> tuple[Tokens | None, Callable[[float], int] | None, Callable[[str], str] | None]:
    """Tokens, frames for seconds of audio, and normalisation of a model."""
    if model is None:
        return None, None, None
    from asr.models.bundle import load_bundle

    bundle = load_bundle(model)
    return bundle.tokens, bundle.output_frames, bundle.normalise


def _write_report(out: Path | None, text: str) -> None:
    if out is None:
        return
    from asr.io.files import atomic_path, remove_leftovers

    remove_leftovers(out)
    with atomic_path(out) as temporary:
        temporary.write_text(printable_lines(text), encoding="utf-8")


@app.command(epilog="Example: asr augment recipe.yaml --listen 5 --out exp/listen")
def augment(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Overrides of its settings."),
    ] = None,
    listen: Annotated[int, typer.Option(min=1, help="Number of utterances.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for the recordings and a page.")] = Path(
        "exp/listen"
    ),
) -> None:
    """Write examples of augmented training recordings, with a page to listen to them."""
    from asr.training.preview import write_examples
    from asr.training.recipe import read_recipe

    examples = write_examples(read_recipe(recipe, overrides or []), out, listen)
    tell(f"{len(examples)} utterances: {out / 'listen.html'}")


@app.command(epilog="Example: asr pack data/train.jsonl data/dev.jsonl --out packed")
@with_options
def pack(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests of one corpus.")],
    sharding: ShardOptions,
    out: Annotated[Path, typer.Option(help="Folder for the shards and their manifests.")],
    hours: Annotated[float, typer.Option(min=0.01, help="Hours of audio per shard.")] = 4.0,
    rate: Annotated[int, typer.Option(min=1000, help="Sample rate in Hz.")] = 16000,
) -> None:
    """Pack recordings into archives of a few hours, to train from a disk or an object store."""
    from asr.dataset.shards import Packing
    from asr.io.shard_results import Row

    packing = Packing(manifests, out, hours, rate)
    files = {f"manifest {number}": path for number, path in enumerate(manifests)}
    options = {**files, "hours": hours, "rate": rate}
    work = sharding.work("pack", out, options, list(packing.archives))

    def results(names: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for name in names:
            written = packing.write(name)
            yield name, Row(written.problems, written.error)

    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar("packing"))
        if work is None:
            result = packing.finish(packing.write_all(progress))
        elif sharding.merge:
            row = stack.enter_context(merged_rows(work, packing.stamp))
            result = packing.finish(packing.written(name, row(name).value) for name in work.ids)
        else:
            sys.exit(min(1, sharding.run(work, packing.stamp, results, packing.is_here)))
    for problem in result.unreadable:
        tell(f"error: left out: {problem}")
    tell(f"{result.shards} shards: {', '.join(map(str, result.manifests))}")
    if result.unreadable:
        sys.exit(1)


@app.command(epilog="Example: asr cut exp/first/model data/train.jsonl --out data/short.jsonl")
@with_options
def cut(
    model: Annotated[Path, typer.Argument(help="Model folder, for the times of words.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of long recordings.")],
    sharding: ShardOptions,
    out: Annotated[Path, typer.Option(help="Manifest of their segments.")],
    seconds: Annotated[
        float, typer.Option(min=0.5, help="Target length of a segment in seconds.")
    ] = 4.0,
) -> None:
    """Cut long recordings into short utterances, between words; no audio is written."""
    from asr.dataset.manifest import Selection, read_manifest
    from asr.inference.segment import cut_all, cut_values, read_cut, write_cuts
    from asr.io.shard_results import Row, file_size
    from asr.models.bundle import load_bundle

    check_out(out, manifest)
    utterances = read_manifest(manifest)
    places = {u.id: place for place, u in enumerate(utterances)}
    options = {"model": model, "manifest": manifest, "seconds": seconds}
    work = sharding.work("cut", out, options, list(places))

    def results(ids: Sequence[str]) -> Iterator[tuple[str, Row]]:
        own = Selection(utterances, [places[id_] for id_ in ids])
        for id_, found in zip(ids, cut_all(load_bundle(model), own, seconds), strict=True):
            yield id_, Row(cut_values(found), found.error)

    def size(id_: str) -> int | None:
        return file_size(utterances[places[id_]].audio)

    with ExitStack() as stack:
        if work is None:
            cuts = cut_all(load_bundle(model), utterances, seconds)
        elif sharding.merge:
            row = stack.enter_context(merged_rows(work, size))
            found = ((u, row(u.id)) for u in utterances)
            cuts = (read_cut(r.value, u, r.error) for u, r in found)
        else:
            sys.exit(min(1, sharding.run(work, size, results)))
        progress = stack.enter_context(progress_bar("cutting"))
        result = write_cuts(out, cuts, len(utterances), progress)
    for problem in result.left_whole:
        tell(f"error: left whole: {problem}")
    tell(f"{result.utterances} utterances in {result.segments} segments: {out}")
    if result.left_whole:
        sys.exit(1)
