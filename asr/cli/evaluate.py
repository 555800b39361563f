"""`asr evaluate`: the error rates of a model, and their report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.decoder_options import DecoderOptions
from asr.cli.option_groups import SectionedCommand, with_options
from asr.cli.reports import Normalise, Units, UnitsOption, scoring
from asr.cli.sharding import ShardOptions, merged_rows
from asr.evaluation import AUDIO_MEGABYTES
from asr.io.terminal import progress_bar, show, tell

if TYPE_CHECKING:
    from asr.decoding.decoder import Decoder
    from asr.evaluation.evaluate import Evaluation
    from asr.evaluation.scoring import Scoring
    from asr.io.shard_results import Row
    from asr.models.bundle import Bundle

app = typer.Typer()


@app.command(
    cls=SectionedCommand,
    epilog="Example: asr evaluate exp/an4/model test.jsonl --lm exp/lm --out exp/test",
)
@with_options
def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    manifest: Annotated[Path, typer.Argument(help="Recordings with transcripts.")],
    options: DecoderOptions,
    sharding: ShardOptions,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report (HTML, text, JSON).")
    ] = None,
    normalise: Normalise = "none",
    units: UnitsOption = Units.auto,
    audio_mb: Annotated[
        float, typer.Option(min=0, help="Megabytes of audio in the page; the rest is linked.")
    ] = AUDIO_MEGABYTES,
) -> None:
    """Word, character and sentence error rates with intervals, and a page of all errors."""
    from asr.models.bundle import load_bundle

    shard = sharding.check(out)
    bundle = load_bundle(model)
    decoder = options.load(model, bundle)
    how = scoring(normalise, units)
    if shard is None and not sharding.merge:
        ok = evaluate_model(model, manifest, out, decoder, how, audio_mb, bundle)
    else:
        facts = {"model": model, "manifest": manifest, **asdict(options)}
        ok = _evaluate_shards(sharding, facts, out, decoder, how, audio_mb, bundle)
    if not ok:
        sys.exit(1)


def evaluate_model(
    model: Path,
    manifest: Path,
    out: Path | None,
    decoder: Decoder | None = None,
    scoring: Scoring | None = None,
    audio_megabytes: float = AUDIO_MEGABYTES,
    bundle: Bundle | None = None,
    output: Callable[[str], object] = show,
) -> bool:
    """Evaluate and print the report; return False, after an error for each, if recordings could not
    be read."""
    from asr.evaluation.evaluate import evaluate

    with progress_bar("recognising") as progress:
        result = evaluate(model, manifest, out, progress, decoder, scoring, audio_megabytes, bundle)
    return _print(result, out, output)


def _evaluate_shards(
    sharding: ShardOptions,
    facts: dict[str, object],
    out: Path | None,
    decoder: Decoder,
    scoring: Scoring,
    audio_megabytes: float,
    bundle: Bundle,
) -> bool:
    """Recognise one shard, or report on all; False if recordings could not be read."""
    from asr.dataset.manifest import Selection, read_manifest
    from asr.evaluation.evaluate import read_result, recognize, report_results, texts_and_audio
    from asr.io.shard_results import Row, file_size

    model, manifest = facts["model"], facts["manifest"]
    assert isinstance(model, Path)
    assert isinstance(manifest, Path)
    utterances = read_manifest(manifest)
    places = {u.id: place for place, u in enumerate(utterances)}
    work = sharding.work("evaluate", out, facts, list(places))
    assert work is not None

    def results(ids: Sequence[str]) -> Iterator[tuple[str, Row]]:
        own = Selection(utterances, [places[id_] for id_ in ids])
        for id_, row in recognize(bundle, decoder, texts_and_audio(bundle, own)).items():
            yield id_, Row(asdict(row), row.error)

    def size(id_: str) -> int | None:
        return file_size(utterances[places[id_]].audio)

    if not sharding.merge:
        return not sharding.run(work, size, results)
    with merged_rows(work, size) as row:
        results_by_id = {id_: read_result(row(id_).value) for id_ in work.ids}
    dataset = texts_and_audio(bundle, utterances)
    result = report_results(
        model, manifest, out, decoder, scoring, audio_megabytes, bundle, dataset, results_by_id
    )
    return _print(result, out, show)


def _print(result: Evaluation, out: Path | None, output: Callable[[str], object]) -> bool:
    from asr.evaluation.report_text import to_text

    try:
        output(to_text(result.report))
    finally:  # also if the reader closes the output early
        for reason in result.unreadable.values():
            tell(f"error: {reason}")
        if out is not None:
            tell(f"report: {out / 'report.html'}")
    return not result.unreadable
