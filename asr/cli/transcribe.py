"""`asr transcribe`: recordings to text, to stdout or as files in a folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from asr.cli.decoder_options import DecoderOptions
from asr.cli.live import LiveOptions, run_live
from asr.cli.option_groups import SectionedCommand, with_options
from asr.errors import AsrError, AudioError, ConfigError, disk_trouble
from asr.io.printable import printable_name
from asr.io.terminal import progress_bar, show, tell

if TYPE_CHECKING:
    from asr.inference.formats import Format, FormatConfig
    from asr.inference.output_folder import OutputFolder
    from asr.inference.recognizer import Recognizer
    from asr.inference.transcribe import Source
    from asr.inference.transcript import Transcript

app = typer.Typer()

Write = Callable[[Path, "Transcript"], None]
STDIN = Path("-")
_FORMATS = "txt, json, srt, vtt, tsv, ctm, textgrid, trn, or all"


class Channels(StrEnum):
    mix = "mix"
    each = "each"


@dataclass(frozen=True)
class InputOptions:
    """What is read of each recording."""

    SECTION: ClassVar[str] = "Recordings"

    channels: Annotated[
        Channels,
        typer.Option(help="Their mix, or each by itself, as in a call with a speaker on each."),
    ] = Channels.mix
    start: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Begin each recording there.")
    ] = 0.0
    end: Annotated[
        float | None, typer.Option(min=0.0, metavar="SECONDS", help="End each recording there.")
    ] = None


@dataclass(frozen=True)
class OutputOptions:
    """What is written where."""

    SECTION: ClassVar[str] = "Output"

    format: Annotated[
        list[str],
        typer.Option(
            metavar="FORMAT", help=f"{_FORMATS}; several with --out, as in srt,json. [default: txt]"
        ),
    ] = ()  # type: ignore[assignment]  # typer gives a list
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for a file per recording and format; default: print."),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep files in --out that are of this recording, model and options."
        ),
    ] = False

    def formats(self) -> tuple[Format, ...]:
        """The formats in the order of `FORMATS`, each once."""
        from asr.inference.formats import FORMATS

        wanted = [word.strip() for words in self.format or ["txt"] for word in words.split(",")]
        for word in wanted:
            if word not in (*FORMATS, "all"):
                raise typer.BadParameter(f"{word!r} is none of {_FORMATS}", param_hint="--format")
        return tuple(f for f in FORMATS if f in wanted or "all" in wanted)


@dataclass(frozen=True)
class SubtitleOptions:
    """How srt and vtt look."""

    SECTION: ClassVar[str] = "Subtitles (srt and vtt)"

    line_width: Annotated[int, typer.Option(min=1, help="Characters of a line.")] = 42
    line_count: Annotated[int, typer.Option(min=1, help="Lines of a subtitle.")] = 2
    shortest: Annotated[
        float, typer.Option(min=0.001, help="Seconds that each is shown at least.")
    ] = 0.833
    longest: Annotated[float, typer.Option(min=0.001, help="Seconds at most.")] = 7.0
    reading_speed: Annotated[
        float, typer.Option(min=0.1, help="Characters a second that can be read.")
    ] = 20.0
    gap: Annotated[float, typer.Option(min=0.0, help="Seconds between two at least.")] = 0.083
    highlight: Annotated[
        bool, typer.Option("--highlight", help="Underline the word that is being said.")
    ] = False

    def config(self) -> FormatConfig:
        from asr.inference.formats import FormatConfig
        from asr.inference.subtitles import SubtitleConfig

        subtitles = SubtitleConfig(
            width=self.line_width,
            lines=self.line_count,
            shortest=self.shortest,
            longest=self.longest,
            reading_speed=self.reading_speed,
            gap=self.gap,
        )
        return FormatConfig(subtitles, self.highlight)


@app.command(
    cls=SectionedCommand,
    epilog="Example: asr transcribe talk.mp4 recordings/ --format srt,json --out texts",
)
@with_options
def transcribe(
    input: InputOptions,
    output: OutputOptions,
    subtitles: SubtitleOptions,
    options: DecoderOptions,
    live: LiveOptions,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Audio and video files, folders of them, patterns, and - for standard input."
        ),
    ] = [],  # noqa: B006
    model: Annotated[
        Path | None, typer.Option(help="Model folder; default: the included AN4 model.")
    ] = None,
) -> None:
    """Transcribe recordings to text, subtitles and other formats.

    Lines of text have the name of the recording before them if there are several.
    """
    from asr.inference.formats import WITHOUT_WORDS

    formats, config = output.formats(), subtitles.config()
    if output.resume and output.out is None:
        raise ConfigError("expected --out with --resume, got none: name the folder to go on with")
    if output.out is not None and live.live:
        raise ConfigError("expected --out without --live, got both: leave one out")
    if run_live(lambda: options.recognizer(model), files, ",".join(formats), live):
        return
    recognizer = options.recognizer(model)
    found, failed = _find(files)
    present = list(dict.fromkeys(path for _, paths in found for path in paths))
    total = failed + len(present)
    kept: set[Path] = set()
    if output.out is None:
        named = len(files) > 1 or files != present
        write = _printer(formats, config, present, named)
    else:
        settings = {"model": model, **asdict(options), **asdict(input), "rate": live.rate}
        folder = _folder(output.out, found, formats, config, settings)
        write = folder.write
        if output.resume:
            kept = folder.done()
            tell(f"note: {len(kept)} of {len(present)} recordings are done already")
    timed = not WITHOUT_WORDS.issuperset(formats)
    left = [path for path in present if path not in kept]
    failed += _transcribe_all(recognizer, left, _Reading(input, live.rate, timed), write)
    if failed and total > 1:
        tell(f"{failed} of {total} recordings failed")
    if failed:
        sys.exit(1)


Found = list[tuple[Path, list[Path]]]  # arguments, and the recordings that each gave


def _find(files: Sequence[Path]) -> tuple[Found, int]:
    """The recordings of each argument, and the number of arguments without any, after an error for
    each."""
    from asr.audio.files import find_audio

    found, failed = [], 0
    for file in files:
        try:
            below = [file]
            if file != STDIN:
                below = find_audio([file], lambda note: tell(f"note: {note}"))
            if not below:
                raise AudioError(f"{file}: expected a folder with recordings, got none in it")
            found.append((file, below))
        except AsrError as error:
            tell(f"error: {error}")
            failed += 1
    return found, failed


def _printer(
    formats: Sequence[Format], config: FormatConfig, present: Sequence[Path], named: bool
) -> Write:
    """A function that prints a transcript. Raises ConfigError if its end could not be seen."""
    from asr.inference.formats import JOINABLE, text_lines, to_text
    from asr.inference.time_formats import ctm_names

    if len(formats) > 1:
        raise ConfigError(
            f"expected --out with several formats, got none: name a folder for {len(formats)} "
            "files per recording"
        )
    format, names = formats[0], ctm_names(present)
    if format not in JOINABLE and len(present) > 1:
        raise ConfigError(
            f"expected --out with --format {format} of {len(present)} recordings, got none: name a "
            "folder for their files"
        )

    def write(path: Path, transcript: Transcript) -> None:
        if transcript.error is not None and not transcript.segments:
            return
        if format == "txt":
            name = f"{printable_name(path)}\t" if named else ""
            show("\n".join(name + line for line in text_lines(transcript) or [""]))
        else:
            show(to_text(transcript, format, names[path], config), end="")

    return write


def _folder(
    out: Path,
    found: Found,
    formats: Sequence[Format],
    config: FormatConfig,
    settings: dict[str, object],
) -> OutputFolder:
    from asr import __version__
    from asr.inference.output_folder import OutputFolder, settings_digest
    from asr.inference.output_names import output_names
    from asr.inference.time_formats import ctm_names
    from asr.inference.transcribe import default_model

    settings |= {"model": settings["model"] or default_model(), "version": __version__}
    names = output_names(found)
    total = settings_digest({**settings, "config": config})
    return OutputFolder(out, names, ctm_names(names), formats, config, total)


@dataclass(frozen=True)
class _Reading:
    """How recordings are read."""

    options: InputOptions
    rate: int | None
    """Hz of raw samples on standard input."""
    timed: bool
    """Whether words are to have times."""


def _transcribe_all(
    recognizer: Recognizer, paths: Sequence[Path], reading: _Reading, write: Write
) -> int:
    """Transcribe and write; the number of recordings that failed, after an error for each."""
    failed = done = 0
    with ExitStack() as stack:
        sources: list[Source] = list(paths)
        if STDIN in paths:
            sources[paths.index(STDIN)] = _standard_input(reading.rate, stack)
        progress = stack.enter_context(progress_bar("transcribing"))
        results = recognizer.transcribe(
            sources,
            words=reading.timed,
            start=reading.options.start,
            end=reading.options.end,
            channels=reading.options.channels.value,
            progress=progress if sys.stderr.isatty() else None,  # it reads every header
        )
        try:
            for path, source, result in zip(paths, sources, results, strict=True):
                named = _named(path, source, result)
                errors = [named.error, _written(path, named, write)]
                for error in filter(None, errors):
                    tell(f"error: {error}")
                failed += any(errors)
                done += 1
        except KeyboardInterrupt:
            tell(f"{done} of {len(paths)} recordings are transcribed")
            raise
    return failed


def _standard_input(rate: int | None, stack: ExitStack) -> Source:
    """Standard input as raw samples of a rate, or as a file until the stack is closed.

    Raises AudioError for a terminal and for an input without bytes.
    """
    from asr.audio.piped import Polled, RawPcm, spooled

    if sys.stdin.isatty():
        raise AudioError(
            "expected a recording on standard input, got a terminal; send it by a pipe, as in: "
            "asr transcribe - < talk.wav"
        )
    if rate is None:
        return stack.enter_context(spooled(sys.stdin.buffer))
    stream = Polled(sys.stdin.fileno())

    def interrupt(number: int, frame: object) -> None:
        stream.stop()  # else the thread that reads would wait for the end of the input
        raise KeyboardInterrupt

    stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, interrupt))
    return RawPcm(stream, rate)


def _named(path: Path, source: Source, transcript: Transcript) -> Transcript:
    """A transcript of standard input under the name of that, not of a temporary file."""
    from asr.audio.piped import NAME

    if path != STDIN:
        return transcript
    error = transcript.error and transcript.error.replace(str(source), NAME)
    return replace(transcript, path=path, error=error)


def _written(path: Path, transcript: Transcript, write: Write) -> str | None:
    """Write a transcript; why that failed, if it did.

    Raises OSError for a disk that takes no file at all.
    """
    try:
        write(path, transcript)
    except AsrError as error:
        return str(error)
    except OSError as error:
        if error.filename is None or disk_trouble(error):
            raise
        where = printable_name(error.filename)
        return f"{printable_name(path)}: expected to write {where}, got {error.strerror}; rename it"
    return None
