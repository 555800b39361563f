"""`asr export`: trained models for other runtimes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from asr.errors import CheckpointError, ConfigError
from asr.io.extras import extras_explained
from asr.io.terminal import progress_bar, show, tell

app = typer.Typer()


class Target(StrEnum):
    onnx = "onnx"
    sherpa = "sherpa"


@app.command(epilog="Example: asr export exp/an4/model --to onnx --out exp/an4/onnx --int8")
def export(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    to: Annotated[
        Target,
        typer.Option(
            help="onnx: for onnxruntime, and for asr without torch; sherpa: for sherpa-onnx on "
            "phones, boards and desktops."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Weights in 8 bits: smaller, and faster on CPUs; sherpa gets both kinds."
        ),
    ] = False,
    waveform: Annotated[
        bool,
        typer.Option(
            "--waveform/--features", help="Input of the graph: samples, or computed features."
        ),
    ] = True,
    check: Annotated[
        Path | None,
        typer.Option(help="Manifest: compare the error rates, and refuse a worse graph."),
    ] = None,
    graph: Annotated[
        bool,
        typer.Option(
            "--graph", help="For sherpa: the n-gram model and the lexicon as a decoding graph."
        ),
    ] = False,
    delay: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="For sherpa: longest delay of streaming, of a model whose model.chunk is a range.",
        ),
    ] = None,
) -> None:
    """Export a trained model for runtimes without torch."""
    if (model / "report.json").is_file():
        raise CheckpointError(
            f"expected a model folder, got the report {model}: its texts are written by "
            "asr report REPORT --texts FORMAT --out DIR"
        )
    if to is Target.sherpa:
        if not waveform:
            raise ConfigError(
                "expected no --features with --to sherpa, whose input depends on the model, got "
                "it: leave it out"
            )
        _export_sherpa(model, out, check, graph, delay)
    elif graph or delay is not None:
        option = "--graph" if graph else "--delay"
        raise ConfigError(f"expected {option} with --to sherpa only, got it: leave it out")
    else:
        _export_onnx(model, out, waveform, int8, check)


def _export_onnx(model: Path, out: Path, waveform: bool, int8: bool, check: Path | None) -> None:
    with extras_explained():
        from asr.export.onnx_folder import export_onnx

    with progress_bar("checking") as progress:
        result = export_onnx(model, out, waveform, int8, check, progress)
    show(f"{result.folder}: {result.megabytes:.1f} MB")
    show(f"largest difference from torch: {result.difference:.1e} nats")
    if result.rescored:
        tell("note: the graph leaves out the attention decoder, so texts are not rescored by it")
    if result.comparison is not None:
        show(str(result.comparison))
    elif int8:
        tell("note: the error rate with 8 bits was not measured: give --check MANIFEST")


def _export_sherpa(
    model: Path, out: Path, check: Path | None, graph: bool, delay: float | None
) -> None:
    with extras_explained():
        from asr.export.sherpa import export_sherpa

    with progress_bar("checking") as progress:
        result = export_sherpa(model, out, check, progress, graph, delay)
    for name, size in result.megabytes.items():
        show(f"{result.folder / name}: {size:.1f} MB")
    show(f"for sherpa_onnx.{result.recognizer}; {result.folder / 'README.md'} shows how")
    if result.other_delays is not None:
        low, high = result.other_delays
        tell(f"note: for whole recordings; with --delay, of {low:.2f} to {high:.2f} s, it streams")
    show(f"largest difference from torch: {result.difference:.1e} nats")
    for name, comparison in result.comparisons.items():
        show(f"{name}: {comparison}")
    if not result.comparisons:
        tell("note: the error rate with 8 bits was not measured: give --check MANIFEST")
    if not result.verified:
        tell("note: not tried with sherpa-onnx, which is not installed: pip install sherpa-onnx")
