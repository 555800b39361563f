"""`asr models`: list, show, pack, unpack, push and pull models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.io.terminal import errors, tell

if TYPE_CHECKING:
    from rich.table import Table

    from asr.sharing.evaluations import Evaluation
    from asr.sharing.facts import ModelFacts

app = typer.Typer(help="Models: list and show them, pass them on as one file or on the hub.")

Model = Annotated[Path, typer.Argument(help="Model folder.")]
Repository = Annotated[str, typer.Argument(help="Name on the hub: NAME/MODEL.")]


@app.command("list", epilog="Example: asr models list exp")
def list_models(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders of models; default: the working folder.")
    ] = None,
) -> None:
    """List the models in and below folders, and the included one, with error rates and sizes."""
    from rich.console import Console

    from asr.errors import AsrError
    from asr.inference.transcribe import trained_model
    from asr.sharing.facts import find_models, read_facts

    found, failed = [], 0
    for folder in folders or []:
        if not folder.is_dir():
            tell(f"error: expected a folder, got {folder}: check the path")
            failed += 1
    for folder in find_models([*(folders or [Path()]), trained_model()]):
        try:
            found.append(read_facts(folder))
        except AsrError as error:
            tell(f"error: left out: {error}")
            failed += 1
    Console(highlight=False, markup=False).print(_models_table(found, trained_model()))
    if failed:
        sys.exit(1)


def _models_table(models: list[ModelFacts], included: Path) -> Table:
    from rich.table import Table

    from asr.io.printable import printable, printable_name
    from asr.sharing.card import interval_text, rate_text, size_text

    table = Table(box=None, pad_edge=False, caption_justify="left", caption_style="")
    table.add_column("model", overflow="fold", min_width=16)
    table.add_column("tokens")
    for column in ("errors %", "95 %", "date", "size", "weights"):
        table.add_column(column, justify="right", no_wrap=True)
    for facts in models:
        one, info = facts.main, facts.info
        rated = ["", "", info.date]
        if one is not None:
            rated = [f"{one.measure} {rate_text(one.rate)}", interval_text(one), one.day]
        elif info.dev_errors is not None and info.dev_words:
            rated[0] = f"dev {rate_text(info.dev_errors / info.dev_words)}"
            table.caption = "dev: on the development set at the end of training"
        same = facts.folder.resolve() == included.resolve()
        name = "(included)" if same else printable_name(facts.folder)
        size = "" if facts.parameters is None else f"{facts.parameters / 1e6:.2f} M"
        row = [name, facts.token_kind, *rated, size_text(facts.bytes), size]
        table.add_row(*map(printable, row))
    return table


@app.command("show", epilog="Example: asr models show exp/an4/model")
def show_model(
    model: Annotated[
        Path | None, typer.Argument(help="Model folder or package; default: the included model.")
    ] = None,
) -> None:
    """Show the card of a model: data, licence, error rates, speed, size, network, decoder."""
    from rich.console import Console

    from asr.inference.transcribe import trained_model
    from asr.sharing.facts import read_facts
    from asr.sharing.package import facts_of_package

    place = model or trained_model()
    facts = facts_of_package(place) if place.is_file() else read_facts(place)
    console = Console(highlight=False, markup=False)
    console.print(_card_table(facts, "the included model" if model is None else str(model)))
    if facts.evaluations:
        console.print()
        console.print(_evaluations_table(facts.evaluations))


def _card_table(facts: ModelFacts, name: str) -> Table:
    from rich.table import Table

    from asr.io.printable import printable
    from asr.sharing.card import rows

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, text in ({"model": printable(name)} | rows(facts)).items():
        table.add_row(key, text)
    return table


def _evaluations_table(evaluations: tuple[Evaluation, ...]) -> Table:
    from rich.table import Table

    from asr.io.printable import printable
    from asr.sharing.card import interval_text, rate_text

    table = Table(box=None, pad_edge=False)
    table.add_column("test set", overflow="fold")
    for column in ("errors %", "95 %", "errors", "real time", "date"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("decoder", overflow="fold", min_width=16)
    for one in evaluations:
        speed = "" if one.real_time_factor is None else f"{one.real_time_factor:.4f}"
        cells = [one.manifest, f"{one.measure} {rate_text(one.rate)}", interval_text(one)]
        cells += [f"{one.errors}/{one.length}", speed, one.day, one.decoder]
        table.add_row(*map(printable, cells))
    return table


@app.command("pack", epilog="Example: asr models pack exp/an4/model an4.zip")
def pack_model(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Package to write, a zip file.")],
) -> None:
    """Pack a model folder into one file, with its card, error rates and checksums."""
    from asr.sharing.card import size_text
    from asr.sharing.package import pack

    facts, others = pack(model, file)
    _tell_of(facts, others)
    tell(f"package: {file}, {size_text(file.stat().st_size)}")


@app.command("unpack", epilog="Example: asr models unpack an4.zip exp/an4-copy")
def unpack_model(
    file: Annotated[Path, typer.Argument(help="Package that `asr models pack` wrote.")],
    folder: Annotated[Path, typer.Argument(help="Model folder to create.")],
) -> None:
    """Unpack a package into a new model folder; one that is damaged or unsafe changes nothing."""
    from asr.sharing.package import unpack

    unpack(file, folder)
    tell(f"model: {folder}")


@app.command("push", epilog="Example: asr models push exp/an4/model NAME/an4")
def push_model(
    model: Model,
    repository: Repository,
    private: Annotated[
        bool, typer.Option("--private", help="Create the repository for you alone.")
    ] = False,
) -> None:
    """Publish a model on the Hugging Face hub, with a card written from its reports."""
    from asr.sharing.hub import push

    _quieten_client()
    address, facts, others = push(model, repository, private)
    _tell_of(facts, others)
    tell(f"published: {address}")


@app.command("pull", epilog="Example: asr models pull NAME/an4 exp/an4")
def pull_model(
    repository: Repository,
    folder: Annotated[Path, typer.Argument(help="Model folder to create.")],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; default: the newest.")
    ] = None,
) -> None:
    """Fetch a model from the Hugging Face hub into a new folder."""
    from asr.sharing.hub import pull

    _quieten_client()
    pull(repository, folder, revision)
    tell(f"model: {folder}")


def _quieten_client() -> None:
    """The hub's client shows progress on a terminal only, and never with `--quiet`."""
    from asr.io.extras import require

    require("huggingface_hub")
    if errors().quiet or not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()


def _tell_of(facts: ModelFacts, others: list[str]) -> None:
    """What is missing in a model that is passed on."""
    if others:
        tell(f"left out, no part of the model: {', '.join(others)}")
    about = facts.about
    lacking = [name for name in ("languages", "licence") if not getattr(about, name)]
    if not facts.evaluations:
        tell("note: no error rate is known: put the report of `asr evaluate` beside the model")
    if lacking:
        tell(
            f"warning: {' and '.join(lacking)} unknown: give the recipe a section about and run "
            "asr train again (a finished training only adds it), or give info.json "
            '"about": {"languages": ["en"], "licence": "cc-by-4.0"}'
        )
