"""`asr align`: the times of the words of known texts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.option_groups import with_options
from asr.cli.sharding import ShardOptions, merged_rows
from asr.errors import AlignmentError
from asr.io.terminal import progress_bar, show, tell

if TYPE_CHECKING:
    from asr.inference.forced_alignment import Aligned
    from asr.io.shard_results import Row

app = typer.Typer()


class TimeFormat(StrEnum):
    json = "json"
    ctm = "ctm"
    textgrid = "textgrid"


@app.command(epilog="Example: asr align exp/an4/model talk.wav --text talk.txt --format ctm")
@with_options
def align(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    source: Annotated[Path, typer.Argument(help="Manifest, or a recording with --text.")],
    sharding: ShardOptions,
    text: Annotated[
        Path | None, typer.Option(help="File with the transcript of the recording.")
    ] = None,
    format: Annotated[TimeFormat, typer.Option(help="Output format.")] = (TimeFormat.json),
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for one file per utterance; default: print."),
    ] = None,
) -> None:
    """Align known texts: the times of all words, in recordings of up to four hours."""
    from asr.inference.forced_alignment import align_all, read_aligned, read_source
    from asr.io.shard_results import Row, file_size
    from asr.models.bundle import load_bundle

    sharding.check(out)
    utterances = read_source(source, text)
    by_id = {u.id: u for u in utterances}
    options = {"model": model, "source": source, "text": text}
    work = sharding.work("align", out, options, list(by_id))

    def results(ids: Sequence[str]) -> Iterator[tuple[str, Row]]:
        for result in align_all(load_bundle(model), utterances, set(ids)):
            yield result.id, Row(asdict(result), result.error)

    def size(id_: str) -> int | None:
        return file_size(by_id[id_].audio)

    if work is None:
        failed = _write(align_all(load_bundle(model), utterances), len(utterances), format, out)
    elif sharding.merge:
        with merged_rows(work, size) as row:
            aligned = (read_aligned(row(id_).value) for id_ in work.ids)
            failed = _write(aligned, len(utterances), format, out)
    else:
        failed = sharding.run(work, size, results)
    if failed:
        sys.exit(1)


def _write(results: Iterable[Aligned], count: int, format: TimeFormat, out: Path | None) -> int:
    """Write or print the results and report failures; returns the number of failures."""
    from asr.inference.forced_alignment import to_text, write_aligned

    failed = 0
    with progress_bar("aligning") as progress:
        for done, result in enumerate(results, start=1):
            try:
                if result.error is not None:
                    raise AlignmentError(result.error)
                if out is None:
                    show(to_text(result, format.value), end="")
                else:
                    write_aligned(out, result, format.value)
            except AlignmentError as error:
                tell(f"error: {error}")
                failed += 1
            progress(done, count)
    return failed
