"""A transcript in the formats that people use.

    txt        the text, a line per segment
    json       segments with words, times and confidences, on one line
    srt, vtt   subtitles
    tsv        start and end in milliseconds, and text, of each segment; as Whisper's command writes
    ctm        times and confidences of words, for NIST's tools
    textgrid   words and tokens for Praat
    trn        the text with the recording's name, for NIST's sclite

The words of a channel are marked with it, if the channels were transcribed separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from asr.inference.subtitle_text import SubtitleWord, space
from asr.inference.subtitles import Cue, SubtitleConfig, label_of, subtitles
from asr.inference.time_formats import Word, to_ctm, to_json, to_textgrid
from asr.inference.transcript import Segment, Transcript
from asr.io.printable import name_fields, printable, printable_json

Format = Literal["txt", "json", "srt", "vtt", "tsv", "ctm", "textgrid", "trn"]

FORMATS: tuple[Format, ...] = get_args(Format)

SUFFIXES: dict[Format, str] = {f: ".TextGrid" if f == "textgrid" else f".{f}" for f in FORMATS}
"""The usual suffix of each format's files."""

WITHOUT_WORDS: frozenset[Format] = frozenset({"txt", "tsv", "trn"})
"""Formats that need no words with times."""

JOINABLE: frozenset[Format] = frozenset({"txt", "json", "ctm", "trn"})
"""Formats in which one file may hold several recordings."""


@dataclass(frozen=True)
class FormatConfig:
    """How subtitles look."""

    subtitles: SubtitleConfig = field(default_factory=SubtitleConfig)
    highlight: bool = False
    """Whether the word that is being said is underlined, in a cue for each word."""


def to_text(
    transcript: Transcript, format: Format, name: str, config: FormatConfig | None = None
) -> str:
    """A transcript in one of the formats, ending with a line feed unless it is empty.

    `name` is that of the recording in ctm and trn; `ctm_names` gives suitable ones.
    """
    config = config or FormatConfig()
    writers: dict[Format, Callable[[], str]] = {
        "txt": lambda: "".join(f"{line}\n" for line in text_lines(transcript)),
        "json": lambda: printable_json(_json(transcript)) + "\n",
        "srt": lambda: to_srt(subtitles(transcript, config.subtitles), config.highlight),
        "vtt": lambda: to_vtt(subtitles(transcript, config.subtitles), config.highlight),
        "tsv": lambda: _tsv(transcript),
        "ctm": lambda: _ctm(name, transcript),
        "textgrid": lambda: _textgrid(transcript),
        "trn": lambda: _trn(name, transcript),
    }
    return writers[format]()


def text_lines(transcript: Transcript) -> list[str]:
    """The text of each segment that has one.

    >>> text_lines(Transcript(None, (Segment(0, 1, "yes"), Segment(1, 2, ""))))
    ['yes']
    """
    return [_line(segment) for segment in transcript.segments if segment.text.strip()]


def _line(segment: Segment) -> str:
    return printable(label_of(segment.channel) + " ".join(segment.text.split()))


def _json(transcript: Transcript) -> dict[str, Any]:
    segments = []
    for segment in transcript.segments:
        times = {"start": round(segment.start, 3), "end": round(segment.end, 3)}
        channel = {} if segment.channel is None else {"channel": segment.channel}
        segments.append(times | channel | {"text": segment.text, "words": to_json(segment.words)})
    file = {} if transcript.path is None else name_fields(transcript.path)
    row = {"text": transcript.text, "seconds": round(transcript.seconds, 3), "segments": segments}
    return file | row | ({} if transcript.error is None else {"error": transcript.error})


def _tsv(transcript: Transcript) -> str:
    rows = ["start\tend\ttext\n"]
    for segment in transcript.segments:
        if segment.text.strip():
            start, end = round(1000 * segment.start), round(1000 * segment.end)
            rows.append(f"{start}\t{end}\t{_line(segment)}\n")
    return "".join(rows)


def _channels(transcript: Transcript) -> dict[int | None, list[Word]]:
    """The words of each channel, in the order of their start."""
    found: dict[int | None, list[Word]] = {}
    for segment in sorted(transcript.segments, key=lambda segment: segment.channel or 0):
        found.setdefault(segment.channel, []).extend(segment.words)
    return {channel: sorted(w, key=lambda word: word.start) for channel, w in found.items()}


def _ctm(name: str, transcript: Transcript) -> str:
    return "".join(
        to_ctm(name, words, channel=channel or 1)
        for channel, words in _channels(transcript).items()
    )


def _textgrid(transcript: Transcript) -> str:
    speakers = {
        "" if channel is None else f"channel {channel} ": words
        for channel, words in _channels(transcript).items()
    }
    return to_textgrid(speakers or {"": []}, transcript.seconds)


def _trn(name: str, transcript: Transcript) -> str:
    name = name.replace("(", "[").replace(")", "]")
    lines = []
    for channel in dict.fromkeys(s.channel for s in transcript.segments) or [None]:
        texts = [s.text for s in transcript.segments if s.channel == channel]
        text = printable(" ".join(" ".join(texts).split())).removeprefix(";;")  # a comment
        own = name if channel is None else f"{name}-{channel}"
        lines.append(f"{text} ({own})\n".lstrip())
    return "".join(lines)


# --- subtitles ---


def to_srt(cues: Sequence[Cue], highlight: bool = False) -> str:
    """SubRip. The format has no escapes: players may take a word such as <i> for a tag."""
    blocks = []
    for number, (start, end, text) in enumerate(_shown(cues, highlight, str), start=1):
        blocks.append(f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n\n")
    return "".join(blocks)


def to_vtt(cues: Sequence[Cue], highlight: bool = False) -> str:
    """WebVTT (W3C)."""
    blocks = ["WEBVTT\n\n"]
    for start, end, text in _shown(cues, highlight, _escaped):
        blocks.append(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n\n")
    return "".join(blocks)


def _shown(
    cues: Sequence[Cue], highlight: bool, escape: Callable[[str], str]
) -> Iterator[tuple[int, int, str]]:
    """Start, end and marked-up text of everything that is shown."""
    for cue in cues:
        parts = cue.highlights() if highlight else [(cue.start, cue.end, -1)]
        for start, end, said in parts:
            lines, at = [], 0
            for pieces in cue.lines:
                lines.append("".join(_marked(pieces, said - at, escape)))
                at += len(pieces)
            voice = "" if cue.channel is None else _voice(cue.channel, escape)
            yield start, end, voice + "\n".join(lines)


def _marked(
    pieces: Sequence[SubtitleWord], said: int, escape: Callable[[str], str]
) -> Iterator[str]:
    """The pieces of a line, with the one at `said` underlined."""
    for at, piece in enumerate(pieces):
        text = escape(piece.text)
        yield (space(piece) if at else "") + (f"<u>{text}</u>" if at == said else text)


def _voice(channel: int, escape: Callable[[str], str]) -> str:
    return f"<v channel {channel}>" if escape is _escaped else label_of(channel)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(milliseconds: int, point: str) -> str:
    """Hours, minutes and seconds.

    >>> _clock(3_661_005, ",")
    '01:01:01,005'
    """
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{rest:03}"
