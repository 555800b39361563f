"""The command line: parse, call one function, print. It contains no other logic."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from asr import __version__
from asr.cli.console import run_command, show_settings
from asr.cli.data import app as data_app
from asr.cli.decoder_options import (
    DecoderOptions,
    LanguageModel,
    Lexicon,
    Rescore,
    Set,
    Settings,
)
from asr.cli.export import app as export_app
from asr.cli.lm import app as lm_app
from asr.cli.models import app as models_app
from asr.cli.option_groups import with_options
from asr.cli.reports import Normalise, Units, UnitsOption, scoring
from asr.cli.reports import app as reports_app
from asr.cli.serve import app as serve_app
from asr.cli.transcribe import app as transcribe_app
from asr.errors import AlignmentError, ConfigError
from asr.evaluation import AUDIO_MEGABYTES
from asr.io.terminal import progress_bar, set_quiet, show, tell

if TYPE_CHECKING:
    from asr.decoding.decoder import Decoder
    from asr.evaluation.scoring import Scoring
    from asr.models.bundle import Bundle
    from asr.training.recipe import Recipe


class _AnyPlace(TyperGroup):
    """Accepts `--quiet` also after the name of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        rest = [word for word in args[:end] if word != "--quiet"]
        return super().parse_args(ctx, ["--quiet"] * (len(rest) < end) + rest + args[end:])


app = typer.Typer(
    help="Train your own speech recogniser, evaluate it, and transcribe recordings.",
    no_args_is_help=True,
    cls=_AnyPlace,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class TimeFormat(StrEnum):
    json = "json"
    ctm = "ctm"
    textgrid = "textgrid"


app.add_typer(data_app)
app.add_typer(lm_app, name="lm")
app.add_typer(models_app, name="models")
app.add_typer(reports_app)
app.add_typer(transcribe_app)
app.add_typer(export_app)
app.add_typer(serve_app)


def _version(wanted: bool) -> None:
    if wanted:
        show(f"asr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print only errors to stderr, no progress and notes.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    set_quiet(quiet)


def main() -> None:
    """Entry point of the `asr` command."""
    run_command(app)


@app.command(epilog="Example: asr demo --out exp/demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for audio, model and report.")] = Path(
        "exp/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same result.")] = 1,
) -> None:
    """Synthesise a small speech corpus, train on it, evaluate, transcribe. About five minutes."""
    from rich.console import Console

    from asr.demo.run import run_demo

    run_demo(out, seed, Console(highlight=False, markup=False, soft_wrap=True))


def _recipe_settings(wanted: bool) -> None:
    if wanted:
        from asr.training.recipe import Recipe

        show_settings(Recipe, ("text.phones",))  # filled in by training, not by users


@app.command(epilog="Example: asr train recipe.yaml train.epochs=80 model.hidden=256")
def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe file (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Overrides of its settings."),
    ] = None,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings", callback=_recipe_settings, is_eager=True, help="List every key, and exit."
        ),
    ] = False,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Stop training: make the model from the best epochs so far."),
    ] = False,
) -> None:
    """Train a model, or resume a training that was stopped."""
    from asr.training.recipe import read_recipe

    train_model(read_recipe(recipe, overrides or []), finish)


@app.command(epilog="Example: asr evaluate exp/an4/model test.jsonl --lm exp/lm --out exp/test")
@with_options
def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    manifest: Annotated[Path, typer.Argument(help="Recordings with transcripts.")],
    options: DecoderOptions,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report (HTML, text, JSON).")
    ] = None,
    normalise: Normalise = "none",
    units: UnitsOption = Units.auto,
    audio_mb: Annotated[
        float, typer.Option(min=0, help="Limit of recordings in the page; others are linked.")
    ] = AUDIO_MEGABYTES,
) -> None:
    """Word, character and sentence error rates with intervals, and a page of all errors."""
    from asr.models.bundle import load_bundle

    bundle = load_bundle(model)
    decoder = options.load(model, bundle)
    how = scoring(normalise, units)
    if not evaluate_model(model, manifest, out, decoder, how, audio_mb, bundle):
        sys.exit(1)


@app.command(epilog="Example: asr align exp/an4/model talk.wav --text talk.txt --format ctm")
def align(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    source: Annotated[Path, typer.Argument(help="Manifest, or a recording with --text.")],
    text: Annotated[
        Path | None, typer.Option(help="File with the transcript of the recording.")
    ] = None,
    format: Annotated[TimeFormat, typer.Option(help="Output format.")] = (TimeFormat.json),
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for one file per utterance; default: print."),
    ] = None,
) -> None:
    """Align known texts: the times of all words, in recordings of any length."""
    from asr.inference.forced_alignment import align_all, read_source, to_text, write_aligned
    from asr.models.bundle import load_bundle

    bundle, failed = load_bundle(model), 0
    utterances = read_source(source, text)
    with progress_bar("aligning") as progress:
        for done, result in enumerate(align_all(bundle, utterances), start=1):
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
            progress(done, len(utterances))
    if failed:
        sys.exit(1)


@app.command(epilog="Example: asr tune exp/an4/model exp/an4/data/dev.jsonl --lm exp/lm")
def tune(
    model: Annotated[Path, typer.Argument(help="Model folder, in which the decoder is stored.")],
    manifest: Annotated[
        Path | None, typer.Argument(help="Manifest of the development set.")
    ] = None,
    lm: LanguageModel = None,
    rescore: Rescore = None,
    lexicon: Lexicon = None,
    set_: Set = None,
    settings: Settings = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the plot; default: MODEL-tuning.")
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Remove the decoder: MODEL is greedy again.")
    ] = False,
) -> None:
    """Tune the language model's weight, the word bonus and the beam, and store them."""
    from asr.decoding.folder import load_decoder, remove_decoder, save_decoder
    from asr.evaluation.report_folder import check_writable
    from asr.evaluation.tune_decoder import picture_folder, to_text, write_tuning
    from asr.evaluation.tune_decoder import tune as tune_decoder
    from asr.models.bundle import load_bundle

    bundle = load_bundle(model)
    if reset:
        if manifest or lm or rescore or lexicon or set_ or out:
            raise ConfigError("expected only MODEL with --reset, got more: omit the rest")
        remove_decoder(model)
        tell(f"decoder: greedy, as before the tuning of {model}")
        return
    if manifest is None:
        raise ConfigError("expected a development set, got none: name its manifest after MODEL")
    decoder = load_decoder(
        model,
        bundle.tokens,
        "beam",
        lm=lm,
        rescore=rescore,
        lexicon=lexicon,
        overrides=set_ or [],
        normalise=bundle.normalise,
    )
    out = out or picture_folder(model)
    check_writable(out)  # before the tuning, which takes time
    with progress_bar("tuning") as progress:
        result = tune_decoder(model, manifest, decoder, progress, bundle)
    save_decoder(model, result.decoder)
    write_tuning(result, out)
    show(to_text(result, manifest.name))
    if result.decoder.neural is None and (model / "lstm").exists():
        tell(f"not used, but kept: {model / 'lstm'}; to try it again, give it as --rescore")
    tell(f"decoder: {model / 'decoder.json'}, picture: {out}")


@app.command(epilog="Example: asr gradients docs/gradients.yaml frames=200 --out exp/gradients")
def gradients(
    config: Annotated[
        Path | None, typer.Argument(help="Layers to compare (YAML); default: a built-in set.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of its settings."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for plot and numbers.")] = Path("exp/gradients"),
) -> None:
    """Measure and plot the gradient flow through time in recurrent layers."""
    from asr.experiments.gradients import measure, read_config, to_text, write
    from asr.io.extras import require

    require("matplotlib")
    changes = list(overrides or [])
    if config is not None and "=" in str(config) and not config.exists():
        changes, config = [str(config), *changes], None
    result = measure(read_config(config, changes))
    write(result, out)
    show(to_text(result))
    tell(f"picture: {out / 'gradients.png'}")


def train_model(recipe: Recipe, finish: bool = False) -> Path:
    """Train by a recipe, and print the path of the model."""
    from asr.training.trainer import train

    model = train(recipe, finish_now=finish)
    tell(f"model: {model}")
    return model


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
    from asr.evaluation.report_text import to_text

    with progress_bar("recognising") as progress:
        result = evaluate(model, manifest, out, progress, decoder, scoring, audio_megabytes, bundle)
    try:
        output(to_text(result.report))
    finally:  # also if the reader closes the output early
        for reason in result.unreadable.values():
            tell(f"error: {reason}")
        if out is not None:
            tell(f"report: {out / 'report.html'}")
    return not result.unreadable


if __name__ == "__main__":
    main()
