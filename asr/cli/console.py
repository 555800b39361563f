"""Common functions of the commands: one-line errors, progress with time left, settings."""

from __future__ import annotations

import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

import typer

from asr.cli.loading import loading_shown
from asr.errors import AsrError, AudioWarning, ConfigError, disk_trouble
from asr.io.extras import extras_explained
from asr.io.terminal import show, tell, write_utf8
from asr.training.interrupt import InterruptedTraining

if TYPE_CHECKING:
    from asr.config import Config


INTERRUPTED = 130  # the exit status of shells after Ctrl-C
OUTPUT_CLOSED = 141  # and for a program whose output is no longer read, as with `head`


def run_command(command: Callable[[], object]) -> None:
    """Run `command`; an expected error becomes one line on stderr and a non-zero exit status, and
    damage of a usable recording becomes one line. If the reader of the output has closed it, the
    command ends without a message."""
    write_utf8()
    try:
        try:
            _run(command)
        finally:
            sys.stdout.flush()  # while an error of it can still be reported
    except BrokenPipeError:
        _drop_output()
        sys.exit(OUTPUT_CLOSED)
    except OSError as error:
        _drop_output()
        _tell_os_error(error, "the output")
        sys.exit(1)
    except SystemExit as end:
        # typer and rich make an exit of a closed pipe.
        if isinstance(end.__context__, BrokenPipeError):
            _drop_output()
            sys.exit(OUTPUT_CLOSED)
        raise


def _drop_output() -> None:
    """Drop the buffers of streams that cannot be written, which Python would flush again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _tell_os_error(error: OSError, otherwise: str) -> None:
    """Report an error such as no permission, no space, or a file in place of a folder."""
    where = error.filename or otherwise
    if trouble := disk_trouble(error):
        tell(f"error: expected room to write {where}, got {trouble}")
    else:
        tell(f"error: expected to read or write {where}, got {error.strerror or error}")


def _run(command: Callable[[], object]) -> None:
    try:
        with loading_shown(sys.stderr), _damage_in_one_line(), extras_explained():
            command()
    except AsrError as error:
        tell(f"error: {error}")
        sys.exit(1)
    except BrokenPipeError:
        raise
    except OSError as error:
        _tell_os_error(error, "a file or the output")
        sys.exit(1)
    except InterruptedTraining as stop:
        tell(str(stop))
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        tell("stopped")
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer makes this of Ctrl-C, without a word
            tell("stopped")
        raise


@contextmanager
def _damage_in_one_line() -> Iterator[None]:
    """Print the damage of a recording once, however often it is read."""
    reported: set[str] = set()
    others = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not isinstance(message, AudioWarning):
            others(message, category, filename, lineno, file, line)
        elif message.name not in reported:
            reported.add(message.name)
            with suppress(BrokenPipeError):  # as Python does with other warnings
                tell(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", AudioWarning)
        warnings.showwarning = show
        yield


def show_settings(config: type[Config], omit: Collection[str] = ()) -> NoReturn:
    """Print every key of a configuration with its default and meaning, and exit."""
    from asr.config import settings

    for setting in settings(config):
        if setting.key in omit:
            continue
        default = f" = {setting.default}" if setting.default else ""
        show(f"{setting.key}{default}")
        if setting.meaning:
            show(textwrap.indent(textwrap.fill(setting.meaning, 84), "    "))
    raise typer.Exit


def check_out(out: Path, *inputs: Path | None, written: Collection[str] = ()) -> None:
    """Raise ConfigError if `out`, or the files `written` in that folder, replace an input."""
    places = {(out / name).resolve() for name in written} or {out.resolve()}
    if places & {path.resolve() for path in inputs if path is not None}:
        raise ConfigError(f"expected --out that replaces no input, got {out}: choose another")
