"""The options of `asr transcribe`: what is read of recordings, and what is written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

if TYPE_CHECKING:
    from asr.inference.formats import Format, FormatConfig

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
        typer.Option(
            help="mix: the mean of all channels; each: every channel by itself, as in a call."
        ),
    ] = Channels.mix
    start: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="SECONDS", help="Where transcription of each recording starts."
        ),
    ] = 0.0
    end: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="SECONDS", help="Where transcription of each recording ends."
        ),
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
            "--resume",
            help="Keep files in --out that were made of the same recording, model and options.",
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
        float, typer.Option(min=0.001, help="Shortest time that a subtitle is shown, in seconds.")
    ] = 0.833
    longest: Annotated[
        float, typer.Option(min=0.001, help="Longest time that a subtitle is shown, in seconds.")
    ] = 7.0
    reading_speed: Annotated[
        float, typer.Option(min=0.1, help="Characters a second that can be read.")
    ] = 20.0
    gap: Annotated[
        float, typer.Option(min=0.0, help="Shortest time between two subtitles, in seconds.")
    ] = 0.083
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
