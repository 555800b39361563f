"""Every format is read back by an independent parser, with the same text and times."""

from __future__ import annotations

import html
import io
import itertools
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

import asr
from asr.errors import ConfigError
from asr.inference.formats import FORMATS, Format, FormatConfig, to_srt, to_text, to_vtt
from asr.inference.subtitle_text import text_of
from asr.inference.subtitles import Cue, label_of, subtitles
from asr.inference.time_formats import TokenTime, Word
from asr.inference.transcript import Segment, Transcript
from asr.io.printable import printable
from tests.inference.test_subtitles import speech, spoken

HELLO = (
    Word("good", 0.5, 0.75, 0.9, (TokenTime("▁good", 0.5, 0.75),)),
    Word("day", 0.75, 1.0, 0.5),
)
CALL = Transcript(
    Path("call.wav"),
    (
        Segment(0.5, 1.0, "good day", HELLO, 1),
        Segment(1.2, 1.6, "yes", (Word("yes", 1.2, 1.6, 0.75),), 2),
        Segment(3.0, 3.4, "bye", (Word("bye", 3.0, 3.4, 0.75),), 1),
    ),
    4.0,
)
TALK = Transcript(
    Path("talk.wav"),
    (Segment(0.5, 1.0, "good day", HELLO), Segment(2.0, 2.5, ""), Segment(3.0, 4.0, "bye")),
    4.0,
)


def plain(cue: Cue, name: str = "") -> str:
    return name + "\n".join(text_of(line) for line in cue.lines)


@settings(max_examples=40)
@given(speech(20), speech(20))
def test_subtitles_are_read_back(first: tuple[Word, ...], second: tuple[Word, ...]) -> None:
    for transcript in (spoken(first), spoken(first, second)):
        cues = subtitles(transcript)
        read = list(srt.parse(to_srt(cues)))
        assert [row.index for row in read] == list(range(1, len(cues) + 1))
        assert [row.content for row in read] == [plain(c, label_of(c.channel)) for c in cues]
        times = [[timedelta(milliseconds=time) for time in (c.start, c.end)] for c in cues]
        assert [[row.start, row.end] for row in read] == times
        seen = webvtt.from_string(to_vtt(cues), strict=True).captions
        assert [html.unescape(row.text) for row in seen] == [plain(c) for c in cues]
        voices = [label_of(cue.channel).removesuffix(": ") or None for cue in cues]
        assert [row.voice for row in seen] == voices
        starts = [[row.start_in_seconds, row.end_in_seconds] for row in seen]
        assert starts == [[c.start // 1000, c.end // 1000] for c in cues]
        stamps = re.findall(r"^(\d\d+):(\d\d):(\d\d)\.(\d{3}) --> ", to_vtt(cues), re.MULTILINE)
        numbers = [tuple(map(int, stamp)) for stamp in stamps]
        assert [((h * 60 + m) * 60 + s) * 1000 + ms for h, m, s, ms in numbers] == [
            cue.start for cue in cues
        ]


@settings(max_examples=40)
@given(speech(20))
def test_highlighted_subtitles_are_read_back(words: tuple[Word, ...]) -> None:
    cues = subtitles(spoken(words))
    read = list(srt.parse(to_srt(cues, highlight=True)))
    parts = [(cue, part) for cue in cues for part in cue.highlights()]
    assert len(read) == len(parts)
    for row, (cue, (start, end, said)) in zip(read, parts, strict=True):
        assert row.start == timedelta(milliseconds=start)
        assert row.end == timedelta(milliseconds=end)
        assert re.sub("</?u>", "", row.content) == plain(cue)
        assert f"<u>{cue.pieces[said].text}</u>" in row.content
    seen = webvtt.from_string(to_vtt(cues, highlight=True), strict=True).captions
    assert [html.unescape(row.text) for row in seen] == [plain(cue) for cue, _ in parts]


def test_webvtt_files_are_strictly_valid() -> None:
    text = to_text(CALL, "vtt", "call")
    first, second, third = webvtt.from_buffer(io.StringIO(text), strict=True).captions
    assert (first.text, first.voice) == ("good day", "channel 1")
    assert (first.start, first.end) == ("00:00:00.500", "00:00:01.333")
    assert (second.start, second.text) == ("00:00:01.416", "yes")
    assert third.raw_text == "<v channel 1>bye"
    assert to_text(Transcript(None), "vtt", "x") == "WEBVTT\n\n"


def test_marks_of_the_format_are_escaped() -> None:
    words = tuple(Word(text, at, at + 0.5) for at, text in enumerate(["a-->b", "<i>", "&amp;"]))
    (cue,) = subtitles(spoken(words))
    assert "a--&gt;b &lt;i&gt; &amp;amp;" in to_vtt([cue])
    assert "a-->b <i> &amp;" in to_srt([cue])


def test_text_and_json() -> None:
    assert to_text(TALK, "txt", "talk") == "good day\nbye\n"
    assert to_text(CALL, "txt", "call") == "channel 1: good day\nchannel 2: yes\nchannel 1: bye\n"
    (line,) = to_text(CALL, "json", "call").splitlines()
    row = json.loads(line)
    assert list(row) == ["file", "text", "seconds", "segments"]
    assert [s["channel"] for s in row["segments"]] == [1, 2, 1]
    assert row["segments"][0]["words"][1] == {
        "word": "day", "start": 0.75, "end": 1.0, "confidence": 0.5, "units": []
    }  # fmt: skip
    assert "channel" not in json.loads(to_text(TALK, "json", "talk"))["segments"][0]
    stopped = Transcript(None, TALK.segments, 4.0, "it stopped")
    assert json.loads(to_text(stopped, "json", ""))["error"] == "it stopped"


def test_tsv_is_that_of_whisper() -> None:
    assert (
        to_text(TALK, "tsv", "talk") == "start\tend\ttext\n500\t1000\tgood day\n3000\t4000\tbye\n"
    )


def test_formats_of_nist() -> None:
    assert to_text(CALL, "ctm", "call").splitlines() == [
        "call 1 0.500 0.250 good 0.9000",
        "call 1 0.750 0.250 day 0.5000",
        "call 1 3.000 0.400 bye 0.7500",
        "call 2 1.200 0.400 yes 0.7500",
    ]
    assert to_text(TALK, "trn", "a(1)") == "good day bye (a[1])\n"
    assert to_text(CALL, "trn", "call") == "good day bye (call-1)\nyes (call-2)\n"
    assert to_text(Transcript(None), "trn", "call") == "(call)\n"


def intervals(grid: str) -> dict[str, list[tuple[float, float, str]]]:
    """The tiers of a TextGrid, checked to be without gaps."""
    tiers = {}
    total = float(re.findall(r"^xmax = (\S+)", grid, re.MULTILINE)[0])
    for tier in re.split(r"    item \[\d+\]:\n", grid)[1:]:
        (name,) = re.findall(r'name = "(.*)"', tier)
        found = re.findall(r'xmin = (\S+)\n +xmax = (\S+)\n +text = "(.*)"', tier)
        rows = [(float(a), float(b), label) for a, b, label in found]
        assert int(re.findall(r"size = (\d+)", tier)[0]) == len(rows)
        assert (rows[0][0], rows[-1][1]) == (0.0, total)
        assert all(a < b for a, b, _ in rows)
        assert all(x[1] == y[0] for x, y in itertools.pairwise(rows))
        tiers[name] = rows
    return tiers


def test_textgrid_has_the_tiers_of_each_channel() -> None:
    tiers = intervals(to_text(CALL, "textgrid", "call"))
    assert list(tiers) == [
        "channel 1 words", "channel 1 units", "channel 2 words", "channel 2 units"
    ]  # fmt: skip
    assert tiers["channel 2 words"] == [(0, 1.2, ""), (1.2, 1.6, "yes"), (1.6, 4, "")]
    assert list(intervals(to_text(Transcript(None, (), 1.0), "textgrid", ""))) == ["words", "units"]


@settings(max_examples=40)
@given(speech(20))
def test_textgrids_are_whole(words: tuple[Word, ...]) -> None:
    transcript = Transcript(None, (Segment(0.0, 1.0, "x", words),), 1.0)
    tiers = intervals(to_text(transcript, "textgrid", "x"))
    labels = [label.replace('""', '"') for _, _, label in tiers["words"] if label]
    assert labels == [printable(word.text) for word in words]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_ends_with_a_line_feed(format: Format) -> None:
    text = to_text(CALL, format, "x", FormatConfig(highlight=True))
    assert text.endswith("\n")
    assert "bye" in text


@given(st.text(max_size=30))
def test_no_text_breaks_a_line(text: str) -> None:
    words = (Word(text, 0.0, 1.0),)
    transcript = Transcript(None, (Segment(0.0, 1.0, text, words),), 1.0)
    assert len(to_text(transcript, "txt", "x").splitlines()) == bool(text.strip())
    assert len(to_text(transcript, "tsv", "x").splitlines()) == 1 + bool(text.strip())
    assert len(to_text(transcript, "json", "x").splitlines()) == 1
    assert len(to_text(transcript, "trn", "x").splitlines()) == 1


def test_every_format_from_python() -> None:
    words = (Word("yes", 0.2, 0.5, 0.9), Word("no", 0.6, 0.9, 0.8))
    transcript = Transcript(Path("a/talk.wav"), (Segment(0.0, 1.0, "yes no", words),), 1.0)
    for format in FORMATS:
        assert asr.format_transcript(transcript, format) == to_text(transcript, format, "talk")
    with pytest.raises(ConfigError, match=r"one of txt, .*, got 'docx'"):
        asr.format_transcript(transcript, "docx")
