"""`asr clean`: the transcripts that fit their recordings worst."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from asr.errors import ConfigError
from asr.evaluation import AUDIO_MEGABYTES
from asr.io.terminal import progress_bar, tell

app = typer.Typer()


@app.command(epilog="Example: asr clean exp/mine/model data/train.jsonl --worst 5 --out exp/clean")
def clean(
    model: Annotated[Path, typer.Argument(help="Model folder, of asr train.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest whose transcripts are in doubt.")],
    out: Annotated[Path, typer.Option(help="Folder for check.jsonl, check.html and rest.jsonl.")],
    worst: Annotated[
        float, typer.Option(min=0, max=100, help="Percentage of the transcripts to check.")
    ] = 10.0,
    audio_mb: Annotated[
        float, typer.Option(min=0, help="Limit of recordings in the page; others are linked.")
    ] = AUDIO_MEGABYTES,
) -> None:
    """Rank transcripts by how badly the model aligns them, and write the worst ones to check."""
    from asr.dataset.manifest import read_manifest
    from asr.decoding.folder import load_decoder
    from asr.errors import AudioError
    from asr.evaluation.check_page import write_check_page
    from asr.evaluation.misfit import rank, write_ranking
    from asr.evaluation.report_folder import check_writable
    from asr.models.bundle import load_bundle

    utterances = read_manifest(manifest)
    if manifest.resolve() in {(out / name).resolve() for name in ("check.jsonl", "rest.jsonl")}:
        raise ConfigError(f"expected --out that replaces no input, got {out}: choose another")
    bundle = load_bundle(model)
    decoder = load_decoder(model, bundle.tokens, normalise=bundle.normalise)
    check_writable(out)
    failed = 0

    def report(_: str, error: AudioError) -> None:
        nonlocal failed
        tell(f"error: left out: {error}")
        failed += 1

    with progress_bar("aligning") as progress:
        ranked = rank(bundle, decoder, utterances, report, progress)
    count = math.ceil(worst / 100 * len(ranked))
    written = write_ranking(out, ranked, utterances, count)
    write_check_page(out / "check.html", ranked[:count], model, manifest, audio_mb)
    tell(f"{count} of {len(ranked)} transcripts to check, worst first: {out / 'check.html'}")
    for path in written.values():
        tell(f"manifest: {path}")
    if failed:
        sys.exit(1)
