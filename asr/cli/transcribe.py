"""`asr transcribe`: recordings to text, to stdout or as files in a folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.decoder_options import DecoderOptions
from asr.cli.live import LiveOptions, run_live
from asr.cli.option_groups import SectionedCommand, with_options
from asr.cli.sharding import ShardOptions, merged_rows
from asr.cli.transcribe_options import InputOptions, OutputOptions, SubtitleOptions
from asr.errors import AsrError, AudioError, ConfigError, disk_trouble
from asr.io.printable import printable_name
from asr.io.terminal import progress_bar, show, tell

if TYPE_CHECKING:
    from asr.inference.formats import Format, FormatConfig
    from asr.inference.output_folder import OutputFolder
    from asr.inference.recognizer import Recognizer
    from asr.inference.transcribe import Source
    from asr.inference.transcript import Transcript
    from asr.io.shard_results import Row

app = typer.Typer()

Write = Callable[[Path, "Transcript"], None]
STDIN = Path("-")


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
    sharding: ShardOptions,
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
    from asr.inference.output_names import output_names

    formats, config = output.formats(), subtitles.config()
    sharded = sharding.check(output.out) is not None or sharding.merge
    if output.resume and output.out is None:
        raise ConfigError("expected --out with --resume, got none: name the folder to resume")
    if output.out is not None and live.live:
        raise ConfigError("expected --out without --live, got both: leave one out")
    if live.live and (input, subtitles) != (InputOptions(), SubtitleOptions()):
        raise ConfigError(
            "expected --live without options of recordings and subtitles, got some: leave out "
            "--start, --end, --channels and those of subtitles"
        )
    if sharded and STDIN in files:
        raise ConfigError("expected files with --shard and --merge, got -: standard input is one")
    if run_live(lambda: options.recognizer(model), files, ",".join(formats), live):
        return
    recognizer = None if sharded else options.recognizer(model)  # a merge needs none
    found, failed = _find(files)
    present = list(dict.fromkeys(path for _, paths in found for path in paths))
    total = failed + len(present)
    reading = _Reading(input, live.rate, not WITHOUT_WORDS.issuperset(formats))
    if recognizer is None:
        failed += _in_shards(sharding, model, found, reading, output, config, options)
    elif output.out is None:
        named = len(files) > 1 or files != present
        write = _printer(formats, config, present, named)
        failed += _transcribe_all(recognizer, present, reading, write)
    else:
        settings = _settings(model, options, reading)
        folder = _folder(output.out, output_names(found), formats, config, settings)
        kept = _kept(folder) if output.resume else set()
        left = [path for path in present if path not in kept]
        failed += _transcribe_all(recognizer, left, reading, folder.write)
    if failed and total > 1 and not sharding.shard:
        tell(f"{failed} of {total} recordings failed")
    if failed:
        sys.exit(1)


def _in_shards(
    sharding: ShardOptions,
    model: Path | None,
    found: Found,
    reading: _Reading,
    output: OutputOptions,
    config: FormatConfig,
    options: DecoderOptions,
) -> int:
    """Transcribe one shard, or write the files of all shards; returns the number of failures."""
    from asr.inference.output_names import output_names
    from asr.inference.plain_values import read_transcript, transcript_values
    from asr.io.shard_results import Row, file_size

    assert output.out is not None
    names, settings = output_names(found), _settings(model, options, reading)
    paths = {name.as_posix(): path for path, name in names.items()}
    facts = {**settings, "timed": reading.timed}
    work = sharding.work("transcribe", output.out, facts, list(paths))
    assert work is not None
    if sharding.merge or output.resume:
        folder = _folder(output.out, names, output.formats(), config, settings)
        kept = _kept(folder) if output.resume else set()
        work = replace(work, kept=frozenset(names[path].as_posix() for path in kept))

    def size(id_: str) -> int | None:
        return file_size(paths[id_])

    def results(ids: Sequence[str]) -> Iterator[tuple[str, Row]]:
        own = [paths[id_] for id_ in ids]
        for id_, made in zip(ids, reading.transcripts(options.recognizer(model), own), strict=True):
            yield id_, Row(transcript_values(made), made.error)

    if not sharding.merge:
        return sharding.run(work, size, results)
    with merged_rows(work, size) as row:
        rows = ((paths[id_], row(id_)) for id_ in work.wanted)
        made = ((path, read_transcript(r.value, path, r.error)) for path, r in rows)
        return _write_all(made, len(work.wanted), folder.write)


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


def _settings(model: Path | None, options: DecoderOptions, reading: _Reading) -> dict[str, object]:
    """All that changes transcripts. A path stands for the content of the files there."""
    from asr.inference.transcribe import default_model

    own = {"model": model or default_model(), "rate": reading.rate}
    return {**own, **asdict(options), **asdict(reading.options)}


def _kept(folder: OutputFolder) -> set[Path]:
    kept = folder.done()
    tell(f"note: {len(kept)} of {len(folder.names)} recordings are done already")
    return kept


def _folder(
    out: Path,
    names: Mapping[Path, PurePath],
    formats: Sequence[Format],
    config: FormatConfig,
    settings: dict[str, object],
) -> OutputFolder:
    from asr import __version__
    from asr.inference.output_folder import OutputFolder, settings_digest
    from asr.inference.time_formats import ctm_names

    total = settings_digest({**settings, "version": __version__, "config": config})
    return OutputFolder(out, names, ctm_names(names), formats, config, total)


@dataclass(frozen=True)
class _Reading:
    """How recordings are read."""

    options: InputOptions
    rate: int | None
    """Hz of raw samples on standard input."""
    timed: bool
    """Whether words are to have times."""

    def transcripts(
        self,
        recognizer: Recognizer,
        sources: Sequence[Source],
        progress: Callable[[float, float], None] | None = None,
    ) -> Iterator[Transcript]:
        return recognizer.transcribe(
            sources,
            words=self.timed,
            start=self.options.start,
            end=self.options.end,
            channels=self.options.channels.value,
            progress=progress,
        )


def _transcribe_all(
    recognizer: Recognizer, paths: Sequence[Path], reading: _Reading, write: Write
) -> int:
    """Transcribe, write and report failures; returns the number of failures."""
    with ExitStack() as stack:
        sources: list[Source] = list(paths)
        if STDIN in paths:
            sources[paths.index(STDIN)] = _standard_input(reading.rate, stack)
        progress = stack.enter_context(progress_bar("transcribing"))
        # Progress reads every header.
        shown = progress if sys.stderr.isatty() else None
        results = zip(paths, sources, reading.transcripts(recognizer, sources, shown), strict=True)
        named = ((path, _named(path, source, made)) for path, source, made in results)
        return _write_all(named, len(paths), write)


def _write_all(results: Iterable[tuple[Path, Transcript]], count: int, write: Write) -> int:
    """Write transcripts and report failures; returns the number of failures."""
    failed = done = 0
    try:
        for path, transcript in results:
            errors = [transcript.error, _written(path, transcript, write)]
            for error in filter(None, errors):
                tell(f"error: {error}")
            failed += any(errors)
            done += 1
    except KeyboardInterrupt:
        tell(f"{done} of {count} recordings are transcribed")
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
