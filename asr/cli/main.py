"""The command line: parse, call one function, print. It contains no other logic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from asr import __version__
from asr.cli.align import app as align_app
from asr.cli.clean import app as clean_app
from asr.cli.console import run_command, show_settings
from asr.cli.data import app as data_app
from asr.cli.decoder_options import (
    LanguageModel,
    Lexicon,
    Rescore,
    Set,
    Settings,
)
from asr.cli.evaluate import app as evaluate_app
from asr.cli.export import app as export_app
from asr.cli.label import app as label_app
from asr.cli.lm import app as lm_app
from asr.cli.models import app as models_app
from asr.cli.pretrain import app as pretrain_app
from asr.cli.ray import app as ray_app
from asr.cli.reports import app as reports_app
from asr.cli.serve import app as serve_app
from asr.cli.transcribe import app as transcribe_app
from asr.errors import ConfigError
from asr.io.terminal import progress_bar, set_quiet, show, tell

if TYPE_CHECKING:
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


app.add_typer(data_app)
app.add_typer(align_app)
app.add_typer(evaluate_app)
app.add_typer(label_app)
app.add_typer(pretrain_app)
app.add_typer(clean_app)
app.add_typer(lm_app, name="lm")
app.add_typer(models_app, name="models")
app.add_typer(reports_app)
app.add_typer(transcribe_app)
app.add_typer(export_app)
app.add_typer(serve_app)
app.add_typer(ray_app)


def _version(wanted: bool) -> None:
    if wanted:
        show(f"asr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print only errors to stderr, no progress or notes.")
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
    from asr.training.distributed import joined
    from asr.training.recipe import read_recipe

    with joined():
        train_model(read_recipe(recipe, overrides or []), finish)


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
    from asr.training.distributed import is_first
    from asr.training.trainer import train

    model = train(recipe, finish_now=finish)
    if is_first():
        tell(f"model: {model}")
    return model


if __name__ == "__main__":
    main()
