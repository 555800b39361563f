"""`asr clean`: the transcripts that fit their recordings worst."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.console import check_out
from asr.cli.option_groups import with_options
from asr.cli.sharding import ShardOptions, merged_rows
from asr.errors import AudioError, ConfigError
from asr.evaluation import AUDIO_MEGABYTES
from asr.io.terminal import progress_bar, tell

if TYPE_CHECKING:
    from asr.dataset.manifest import Utterance
    from asr.decoding.decoder import Decoder
    from asr.evaluation.misfit import Ranked
    from asr.io.shard_results import Row
    from asr.models.bundle import Bundle

Progress = Callable[[int, int], None]

app = typer.Typer()


@app.command(epilog="Example: asr clean exp/mine/model data/train.jsonl --worst 5 --out exp/clean")
@with_options
def clean(
    model: Annotated[Path, typer.Argument(help="Model folder, of asr train.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest whose transcripts to check.")],
    sharding: ShardOptions,
    out: Annotated[Path, typer.Option(help="Folder for check.jsonl, check.html and rest.jsonl.")],
    worst: Annotated[
        float, typer.Option(min=0, max=100, help="Percentage of the transcripts to check.")
    ] = 10.0,
    audio_mb: Annotated[
        float, typer.Option(min=0, help="Megabytes of audio in the page; the rest is linked.")
    ] = AUDIO_MEGABYTES,
) -> None:
    """Rank transcripts by how badly the model aligns them, and write the worst ones to check."""
    from asr.dataset.manifest import Selection, read_manifest
    from asr.evaluation.check_page import write_check_page
    from asr.evaluation.misfit import read_values, worst_first, write_ranking
    from asr.evaluation.report_folder import check_writable
    from asr.io.shard_results import file_size

    utterances = read_manifest(manifest)
    check_out(out, manifest, written=("check.jsonl", "rest.jsonl"))
    _refuse_review(out)
    places = {u.id: place for place, u in enumerate(utterances)}
    work = sharding.work("clean", out, {"model": model, "manifest": manifest}, list(places))

    def size(id_: str) -> int | None:
        return file_size(utterances[places[id_]].audio)

    def results(ids: Sequence[str]) -> Iterator[tuple[str, Row]]:
        return _measured(*_load(model), Selection(utterances, [places[id_] for id_ in ids]))

    if work is not None and not sharding.merge:
        sys.exit(min(1, sharding.run(work, size, results)))
    found: dict[str, Ranked] = {}
    failed = 0
    with ExitStack() as stack:
        if work is None:
            loaded = _load(model)
            progress = stack.enter_context(progress_bar("aligning"))
            rows = _measured(*loaded, utterances, progress)
        else:
            row = stack.enter_context(merged_rows(work, size))
            rows = ((id_, row(id_)) for id_ in places)
        check_writable(out)
        for id_, one in rows:
            if one.error is None:
                found[id_] = read_values(one.value, utterances[places[id_]])
            else:
                tell(f"error: {one.error}")
                failed += 1
    _require_any(found, manifest, out)
    ranked = worst_first(found[id_] for id_ in places if id_ in found)
    count = math.ceil(worst * len(ranked) / 100)
    written = write_ranking(out, ranked, utterances, count)
    write_check_page(out / "check.html", ranked[:count], model, manifest, audio_mb)
    tell(f"{count} of {len(ranked)} transcripts to check, worst first: {out / 'check.html'}")
    for path in written.values():
        tell(f"manifest: {path}")
    if failed:
        sys.exit(1)


def _refuse_review(out: Path) -> None:
    """Raise ConfigError if a person has reviewed an earlier ranking in that folder: its texts
    belong to other files of rest and check."""
    from asr.serving.review import written_path

    for part, kind in product(("check.jsonl", "rest.jsonl"), ("reviewed", "left_out")):
        written = written_path(out / part, kind)
        if written.exists():
            raise ConfigError(
                f"expected --out without an earlier review, got {written}: choose another folder"
            )


def _require_any(found: Mapping[str, Ranked], manifest: Path, out: Path) -> None:
    """Raise AudioError if no recording could be read, before an earlier result is replaced."""
    if not found:
        raise AudioError(
            f"expected recordings that can be read, got none in {manifest}: correct the paths; "
            f"nothing in {out} was changed"
        )


def _load(model: Path) -> tuple[Bundle, Decoder]:
    from asr.decoding.folder import load_decoder
    from asr.models.bundle import load_bundle

    bundle = load_bundle(model)
    return bundle, load_decoder(model, bundle.tokens, normalise=bundle.normalise)


def _measured(
    bundle: Bundle,
    decoder: Decoder,
    utterances: Sequence[Utterance],
    progress: Progress | None = None,
) -> Iterator[tuple[str, Row]]:
    """Ids with the findings of each utterance, or why its recording cannot be read."""
    from asr.evaluation.misfit import measure, values_of
    from asr.io.shard_results import Row

    bad: list[tuple[str, AudioError]] = []

    def report(id_: str, error: AudioError) -> None:
        bad.append((id_, error))

    for found in measure(bundle, decoder, utterances, report, progress):
        yield found.utterance.id, Row(values_of(found), None)
    for id_, error in bad:
        yield id_, Row(None, f"left out: {error}")
