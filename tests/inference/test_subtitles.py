"""The rules of subtitles hold for any words and times.

Covers `asr/inference/subtitle_text.py`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import ConfigError
from asr.inference.subtitle_text import columns, pieces_of, text_of
from asr.inference.subtitles import (
    CLOSED,
    LATE,
    LINGER,
    Cue,
    SubtitleConfig,
    label_of,
    subtitles,
)
from asr.inference.time_formats import TokenTime, Word
from asr.inference.transcript import Segment, Transcript

ODD = [
    "-->",
    "<",
    "&",
    "<i>",
    "1",
    "00:00:01,000",
    "e\u0301",
    "京都に行きます",
    "ไปโรงเรียน",
    "x" * 60,
]
texts = (
    st.text("abcdefgh", min_size=1, max_size=9)
    | st.sampled_from(["I", "so", "well,", "it.", "you?", *ODD])
    | st.text(min_size=1, max_size=5).filter(lambda text: bool(text.strip()))
)
# Equal times, words without length, pauses of every length, and words that overlap a little.
steps = st.sampled_from([-0.05, 0.0, 0.0, 0.03, 0.1, 0.3, 0.7, 0.999, 1.0, 1.7, 4.0])
lengths = st.sampled_from([0.0, 0.0004, 0.03, 0.2, 0.4, 0.9, 2.0, 8.0])
configs = st.just(SubtitleConfig()) | st.builds(
    SubtitleConfig,
    width=st.integers(12, 60),
    lines=st.integers(1, 3),
    shortest=st.sampled_from([0.001, 0.5, 1.5]),
    longest=st.sampled_from([1.5, 4.0, 10.0]),
    reading_speed=st.sampled_from([5.0, 15.0, 30.0]),
    gap=st.sampled_from([0.0, 0.04, 0.2]),
    pause=st.sampled_from([0.3, 1.0, 2.0]),
)


@st.composite
def speech(draw: st.DrawFn, most: int = 40) -> tuple[Word, ...]:
    """The words of one speaker, in the order of their start."""
    words: list[Word] = []
    at = draw(st.sampled_from([0.0, 0.2, 3599.9, 400_000.0]))
    for text, step, length in draw(st.lists(st.tuples(texts, steps, lengths), max_size=most)):
        start = max(at + step, words[-1].start if words else 0.0)
        at = start + length
        words.append(Word(text, start, at))
    return tuple(words)


def spoken(*channels: tuple[Word, ...]) -> Transcript:
    """A transcript with a segment for each channel."""
    segments = tuple(
        Segment(0.0, 1.0, " ".join(w.text for w in words), words, at if len(channels) > 1 else None)
        for at, words in enumerate(channels, start=1)
        if words
    )
    return Transcript(None, segments, 1.0)


def shown(cue: Cue) -> list[str]:
    return [text_of(line) for line in cue.lines]


def check(transcript: Transcript, config: SubtitleConfig) -> list[Cue]:
    """The rules that hold for any number of speakers."""
    cues = subtitles(transcript, config)
    shortest, longest = round(1000 * config.shortest), round(1000 * config.longest)
    gap = round(1000 * config.gap)
    for channel in {segment.channel for segment in transcript.segments}:  # no word is lost
        said = [piece for cue in cues if cue.channel == channel for piece in cue.pieces]
        assert said == pieces_of(s for s in transcript.segments if s.channel == channel)
    for before, after in itertools.pairwise(cues):  # sorted, apart
        assert after.start >= before.end + gap
        assert after.pieces[0].start >= before.pieces[0].start
    for at, cue in enumerate(cues):
        assert shortest <= cue.end - cue.start <= longest
        assert 1 <= len(cue.lines) <= config.lines
        label = columns(label_of(cue.channel))
        for number, line in enumerate(cue.lines):
            width = columns(text_of(line)) + (0 if number else label)
            assert width <= config.width or len(line) == 1
            assert "\n" not in text_of(line)
            assert text_of(line).strip()
        for word, next_word in itertools.pairwise(cue.pieces):  # no long silence within
            assert next_word.start - word.end < round(1000 * config.pause)
        first, last = cue.pieces[0].start, cue.pieces[-1].end
        assert last - first <= longest or len(cue.pieces) == 1
        parts = list(cue.highlights())  # they cover the cue, one word after the other
        assert (parts[0][0], parts[-1][1]) == (cue.start, cue.end)
        assert all(start < end for start, end, _ in parts)
        assert all(a[1] == b[0] and a[2] < b[2] for a, b in itertools.pairwise(parts))
        # It neither begins early nor lingers.
        assert cue.start >= first
        assert cue.end <= max(cue.start + shortest, last + LINGER)
        # It begins late only if the one before it needs the time.
        if cue.start > first:
            before = cues[at - 1]
            assert cue.start == before.end + gap
            if before.channel == cue.channel:
                assert before.end - before.start == shortest
            elif before.end - before.start > shortest:
                assert cue.start <= first + LATE
    return cues


@given(speech(), configs)
def test_rules_of_one_speaker(words: tuple[Word, ...], config: SubtitleConfig) -> None:
    cues = check(spoken(words), config)
    longest, gap = round(1000 * config.longest), round(1000 * config.gap)
    for cue, after in itertools.zip_longest(cues, cues[1:]):
        # It can be read, unless the next one comes, or it would linger or last too long.
        read = math.ceil(1000 * columns(text_of(cue.pieces)) / config.reading_speed)
        last = cue.pieces[-1].end
        limits = [last + LINGER, cue.start + longest]
        if after is not None:
            limits.append(after.pieces[0].start - gap)
        assert cue.end - cue.start >= read or cue.end >= min(limits)
        # It stays to its last word's end, but for the gap; a gap too short to see is closed.
        assert cue.end >= min(last, *limits[1:])
        if after is not None and cue.end < min(limits[:2]):
            assert after.start - cue.end == gap or after.start - cue.end >= CLOSED
        # Without anything to read after the last word, silence has no cue.
        if cue.start + max(read, round(1000 * config.shortest)) <= last:
            assert cue.end < last + CLOSED


@given(speech(15), speech(15), configs)
def test_rules_of_two_speakers(
    first: tuple[Word, ...], second: tuple[Word, ...], config: SubtitleConfig
) -> None:
    check(spoken(first, second), config)


@given(st.lists(st.integers(1, 10), min_size=2, max_size=60))
def test_no_word_is_alone_in_steady_speech(lengths: list[int]) -> None:
    words = tuple(Word("a" * n, 0.3 * i, 0.3 * i + 0.25) for i, n in enumerate(lengths))
    cues = check(spoken(words), SubtitleConfig())
    assert all(len(cue.pieces) > 1 for cue in cues)
    # Nor in a line of its own, unless it is the longest that fits.
    for cue in cues:
        if len(cue.lines) == 2 and len(cue.pieces) > 3:
            assert all(len(line) > 1 for line in cue.lines)


def said(text: str, pauses: dict[str, float] | None = None) -> tuple[Word, ...]:
    """Words of 60 ms a letter, 50 ms apart; after some there is a longer pause."""
    words, at = [], 0.0
    for word in text.split():
        words.append(Word(word, at, at + 0.06 * len(word)))
        at += 0.06 * len(word) + (pauses or {}).get(word, 0.05)
    return tuple(words)


def texts_of(words: tuple[Word, ...], config: SubtitleConfig | None = None) -> list[list[str]]:
    return [shown(cue) for cue in subtitles(spoken(words), config)]


def test_breaks_are_at_pauses_and_punctuation() -> None:
    text = "we met in the old town near the river and then walked home through the dark forest"
    assert texts_of(said(text, {"river": 0.6})) == [
        ["we met in the old town near the river"],
        ["and then walked home", "through the dark forest"],
    ]
    assert texts_of(said("when the rain had ended at last, we all went out again")) == [
        ["when the rain had ended at last,", "we all went out again"]
    ]
    # Without either, the lines are of similar length.
    assert texts_of(said("alpha gamma delta theta kappa sigma omega lambda")) == [
        ["alpha gamma delta theta", "kappa sigma omega lambda"]
    ]
    # Short words stay with what follows.
    assert texts_of(said("nobody had expected it and the whole house of cards")) == [
        ["nobody had expected", "it and the whole house of cards"]
    ]


def test_a_word_is_torn_from_its_sentence_only_where_it_ends() -> None:
    text = "nobody had expected that the whole house would ever stand open for a long time, at_last"
    assert texts_of(said(text, {"time,": 0.4}))[-1] != ["at_last"]
    assert texts_of(said(text.replace(",", "."), {"time.": 0.4}))[-1] == ["at_last"]


def test_wide_characters_count_twice() -> None:
    assert [columns(text) for text in ("京都", "ｅ", "e\u0301", "né", "ab")] == [4, 2, 1, 2, 2]


def test_silence_is_left_without_a_cue() -> None:
    first, second = subtitles(spoken(said("good morning everybody welcome", {"everybody": 4.0})))
    last = first.pieces[-1].end
    assert last <= first.end < last + LINGER
    assert second.start == second.pieces[0].start
    assert second.end - second.start == 833


def test_a_gap_that_is_too_short_to_see_is_closed() -> None:
    words = said("this sentence is quite long. and this one follows it soon", {"long.": 0.45})
    first, second = subtitles(spoken(words), SubtitleConfig(lines=1))
    assert second.start - first.end == 83


def test_chinese_is_broken_between_characters_at_their_times() -> None:
    text = "今天天气很好，我们一起去公园走走看看花草树木好不好呢朋友们快点来吧时间不多了大家准备好"
    units = tuple(TokenTime(c, 0.2 * i, 0.2 * i + 0.2) for i, c in enumerate(text))
    cues = check(spoken((Word(text, 0.0, units[-1].end, units=units),)), SubtitleConfig())
    assert "".join(line for cue in cues for line in shown(cue)) == text
    assert len(cues) > 1
    assert all(abs(piece.start / 200 - text.index(piece.text)) < 0.01
               for piece in cues[1].pieces if text.count(piece.text) == 1)  # fmt: skip
    assert not any(line.startswith("，") for cue in cues for line in shown(cue))


def test_a_segment_without_words_is_spread_over_its_time() -> None:
    (cue,) = subtitles(Transcript(None, (Segment(1.0, 3.0, "ab cd", ()),), 3.0))
    assert [(p.text, p.start, p.end) for p in cue.pieces] == [
        ("ab", 1000, 1800),
        ("cd", 2200, 3000),
    ]
    assert subtitles(Transcript(None, (Segment(0.0, 3.0, "", ()),), 3.0)) == []
    assert subtitles(Transcript(None)) == []


def test_two_speakers_take_turns() -> None:
    question = said("did you ever see the river")
    answer = tuple(
        replace(word, start=word.start + 1.4, end=word.end + 1.4) for word in said("never before")
    )
    cues = subtitles(spoken(question, answer))
    assert [(cue.channel, shown(cue)) for cue in cues] == [
        (1, ["did you ever see the river"]),
        (2, ["never before"]),
    ]
    assert cues[1].start == max(1400, cues[0].end + 83)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("width", 0), ("lines", 0), ("shortest", 0), ("shortest", 8), ("longest", math.inf),
     ("reading_speed", 0), ("gap", -1), ("pause", math.nan)],
)  # fmt: skip
def test_impossible_settings_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=r"expected .*, got"):
        replace(SubtitleConfig(), **{setting: value})  # type: ignore[arg-type]
