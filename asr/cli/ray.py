"""`asr ray`: the shards of a command as tasks of a Ray cluster, and their merge."""

from __future__ import annotations

import io
import logging
import os
import platform
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.align import app as align_app
from asr.cli.clean import app as clean_app
from asr.cli.console import run_command
from asr.cli.data import app as data_app
from asr.cli.evaluate import app as evaluate_app
from asr.cli.label import app as label_app
from asr.cli.transcribe import app as transcribe_app
from asr.errors import AsrError, ConfigError
from asr.io.extras import require
from asr.io.sharding import MOST_SHARDS, Shard
from asr.io.terminal import progress_bar, tell

app = typer.Typer()

COMMANDS = ("align", "check", "clean", "cut", "evaluate", "label", "new", "pack", "transcribe")
RETRIES = 5  # of a shard whose worker or machine dies


@app.command(
    "ray",
    epilog="Example: asr ray --shards 64 transcribe recordings/ --out texts",
    context_settings={"allow_interspersed_args": False},
)
def on_ray(
    command: Annotated[
        list[str],
        typer.Argument(metavar="COMMAND...", help=f"{', '.join(COMMANDS)}; with its --out."),
    ],
    shards: Annotated[
        int, typer.Option(min=1, max=MOST_SHARDS, help="Number of tasks into which it is divided.")
    ],
    cpus: Annotated[float, typer.Option(min=0.1, help="Processors of each task.")] = 1.0,
    gpus: Annotated[float, typer.Option(min=0.0, help="GPUs of each, such as 0.5.")] = 0.0,
) -> None:
    """Run a command on a Ray cluster, in shards, and merge the results.

    The cluster is that of RAY_ADDRESS or of this machine; else one is started here. All machines
    need the same folders. A shard whose worker dies is resumed by another one.
    """
    if command[0] not in COMMANDS:
        raise ConfigError(
            f"expected one of {', '.join(COMMANDS)} with asr ray, got {command[0]!r}: name one"
        )
    require("ray")
    said = run_shards(command, shards, cpus, gpus)
    try:
        _commands()(_with(command, "--merge"), standalone_mode=False)
    except AsrError:  # shards are missing: why, once
        for line in dict.fromkeys(said):
            tell(line)
        raise


def run_shards(words: Sequence[str], count: int, cpus: float, gpus: float) -> list[str]:
    """Do all shards of a command as tasks of Ray; the lines of their errors."""
    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    # A process for each task (max_calls), since threads and GPU memory of an earlier one would
    # remain.
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, max_calls=1)
    task = remote(do_shard)
    here = str(Path.cwd())
    running = {
        task.remote(list(words), here, number, count): Shard(number, count)
        for number in range(1, count + 1)
    }
    said: list[str] = []
    with progress_bar(words[0]) as progress:
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            shard = running.pop(ended)
            try:
                said += ray.get(ended)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().partition("\n")[0]
                said.append(f"error: shard {shard}: {type(error).__name__}: {reason}")
            progress(count - len(running), count)
    return said


def do_shard(words: Sequence[str], folder: str, number: int, count: int) -> list[str]:
    """In a worker: do one shard in this folder; the lines of its errors."""
    try:
        os.chdir(folder)
    except OSError as error:
        return [
            f"error: expected the folder {folder} on every machine, got {error.strerror} on "
            f"{platform.node()}: share it, or work in one that they share"
        ]
    own = _with(words, "--shard", str(Shard(number, count)))
    with redirect_stderr(io.StringIO()) as said, suppress(SystemExit):
        run_command(lambda: _commands()(own))
    return [line for line in said.getvalue().splitlines() if line.startswith("error: ")]


def _commands() -> typer.Typer:
    """The commands that can be divided."""
    group = typer.Typer(pretty_exceptions_enable=False)
    for part in (align_app, clean_app, data_app, evaluate_app, label_app, transcribe_app):
        group.add_typer(part)
    return group


def _with(words: Sequence[str], *more: str) -> list[str]:
    """The command with options after its name: a `--` may follow."""
    return [words[0], *more, *words[1:]]
