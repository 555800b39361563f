"""Words and segments with times: cut to one another, read and written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import TranscriptError
from asr.evaluation.formats import read_pair
from asr.evaluation.timed_formats import (
    CtmWord,
    StmSegment,
    cut_texts,
    read_ctm,
    read_stm,
    write_ctm,
    write_stm,
)
from tests.texts import plain, spoken

# --- words cut to segments ---

SEGMENTS = [
    StmSegment("x", "A", "ann", 1, 2, "one"),
    StmSegment("x", "A", "bob", 2, 4, "two"),
    StmSegment("x", "A", "none", 4, 6, "ignore_time_segment_in_scoring"),
    StmSegment("x", "A", "inter_segment_gap", 6, 8, ""),
    StmSegment("x", "A", "ann", 8, 9, "three"),
    StmSegment("y", "2", "ann", 0, 5, "four"),
]


@pytest.mark.parametrize(
    ("start", "duration", "id_"),
    [
        (1.9, 0.1, "x-1.000-2.000"),
        (1.0, 1.9, "x-1.000-2.000"),  # reaches far into the next
        (1.9, 0.4, "x-2.000-4.000"),
        (3.5, 0.9, "x-2.000-4.000"),  # its middle is before what is ignored
        (0.0, 0.2, "x-1.000-2.000"),  # before all
        (6.1, 0.0, "x-8.000-9.000"),  # in the gap: 2.1 and 1.9 seconds away
        (99.0, 0.5, "x-8.000-9.000"),  # after all
    ],
)
def test_a_word_belongs_where_its_middle_is(start: float, duration: float, id_: str) -> None:
    first = CtmWord("x", "1", 1.5, 0.0, "first")
    texts = cut_texts([CtmWord("x", "1", start, duration, "w"), first], SEGMENTS)
    assert "w" in texts[id_].split()
    assert set(texts) == {segment.id for segment in SEGMENTS[:5] if segment.scored}
    assert sum(len(text.split()) for text in texts.values()) == 2


def test_words_in_ignored_segments_and_unknown_files() -> None:
    words = [
        CtmWord("y", "2", 1, 1, "heard"),
        CtmWord("x", "1", 4.5, 1, "ignored"),
        CtmWord("z", "1", 1, 1, "elsewhere"),
        CtmWord("y", "2", 0, 1, "early"),
    ]
    assert cut_texts(words, SEGMENTS) == {
        "y-2-0.000-5.000": "early heard",
        "x-1.000-2.000": "",
        "x-2.000-4.000": "",
        "x-8.000-9.000": "",
        "z": "elsewhere",
    }
    assert set(cut_texts(words[:1], SEGMENTS)) == {"y-2-0.000-5.000"}  # x was not recognised


def test_what_is_ignored_lies_within_and_yields_to_what_is_scored() -> None:
    ignored = StmSegment("x", "1", "none", 0, 9, "ignore_time_segment_in_scoring")
    scored = StmSegment("x", "1", "ann", 2, 4, "one")
    words = [CtmWord("x", "1", 1.0, 0.5, "noise")]
    assert cut_texts(words, [ignored, scored]) == {"x-2.000-4.000": ""}
    words.append(CtmWord("x", "1", 2.5, 0.5, "one"))
    assert cut_texts(words, [ignored, scored]) == {"x-2.000-4.000": "one"}


def test_a_pair_of_stm_and_ctm(tmp_path: Path) -> None:
    reference, hypothesis = tmp_path / "r.stm", tmp_path / "h.ctm"
    write_stm(reference, SEGMENTS)
    write_ctm(hypothesis, [CtmWord("x", "1", 1.25, 0.5, "won"), CtmWord("x", "1", 2, 1, "two")])
    expected, got = read_pair(reference, hypothesis)
    assert list(expected.values()) == ["one", "two", "three", "four"]
    assert got == {"x-1.000-2.000": "won", "x-2.000-4.000": "two", "x-8.000-9.000": ""}
    assert read_pair(hypothesis, reference)[0] == {"x": "won two"}
    for word in (CtmWord("z", "1", 1.25, 0.5, "won"), CtmWord("x", "1", 50, 1, "won")):
        write_ctm(hypothesis, [word])
        with pytest.raises(TranscriptError) as caught:
            read_pair(reference, hypothesis)
        assert str(caught.value) == (
            f"{hypothesis}: expected words within the segments of 'x', 'y-2', got 1 words of"
            f" '{word.file}', none of them within; give both the same names and times"
        )


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 40), st.floats(0, 3)), min_size=1, max_size=20),
    st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True).map(sorted),
)
def test_no_word_is_lost_in_cutting(times: list[tuple[float, float]], borders: list[int]) -> None:
    segments = [
        StmSegment("x", "1", "ann", start, end, "said")
        for start, end in zip(borders[::2], borders[1::2], strict=False)
    ]
    words = [CtmWord("x", "1", start, length, str(n)) for n, (start, length) in enumerate(times)]
    words.append(CtmWord("x", "1", borders[0], 0.0, "sure"))
    texts = cut_texts(words, segments)
    assert sorted(" ".join(texts.values()).split()) == sorted(word.word for word in words)
    for segment in segments:
        middles = {w.word: w.middle for w in words}
        for other in texts[segment.id].split():
            if not segment.start <= middles[other] <= segment.end:
                assert not any(s.start <= middles[other] <= s.end for s in segments)


# --- reading and writing ---

times = st.floats(0, 1e5) | st.sampled_from([1e-7, 0.1 + 0.2, 12.5])
ctm_word = st.builds(
    CtmWord,
    file=plain,
    channel=st.sampled_from(["1", "B"]),
    start=times,
    duration=times,
    word=plain,
    confidence=st.none() | st.floats(0, 1),
)
segment = st.builds(
    lambda length, **fields: StmSegment(end=fields["start"] + length, **fields),
    length=times,
    file=plain,
    channel=st.sampled_from(["1", "B"]),
    speaker=plain | st.just("inter_segment_gap"),
    start=times,
    text=spoken | st.just("ignore_time_segment_in_scoring"),
)


@settings(max_examples=40)
@given(st.lists(ctm_word, min_size=1, max_size=5, unique_by=lambda word: word.source))
def test_words_with_times_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, words: list[CtmWord]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.ctm"
    write_ctm(path, words)
    assert read_ctm(path) == words


@settings(max_examples=40)
@given(st.lists(segment, min_size=1, max_size=5, unique_by=lambda segment: segment.id))
def test_segments_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory, segments: list[StmSegment]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.stm"
    write_stm(path, segments)
    assert read_stm(path) == segments


WORD = CtmWord("x", "1", 0.5, 0.25, "yes", 0.9)
SEGMENT = StmSegment("x", "1", "ann", 0.5, 1.0, "yes")


def test_times_are_written_as_people_write_them(tmp_path: Path) -> None:
    write_ctm(tmp_path / "x.ctm", [WORD, replace(WORD, start=1 / 3, confidence=None)])
    assert (tmp_path / "x.ctm").read_text() == (
        "x 1 0.500 0.250 yes 0.900\nx 1 0.3333333333333333 0.250 yes\n"
    )
    write_stm(tmp_path / "x.stm", [SEGMENT, replace(SEGMENT, start=1e-7, text="<a> \t b")])
    assert (tmp_path / "x.stm").read_text() == (
        "x 1 ann 0.500 1.000 yes\nx 1 ann 0.0000001 1.000 <NA> <a> b\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "a b"}, "expected file, channel, start, duration, word and perhaps"),
        ({"word": "a b", "confidence": None}, "expected a confidence of 0 or more, got 'b'"),
        ({"word": "a 1", "confidence": None}, "expected names and a word without spaces, got 'x"),
        ({"word": ""}, "expected names and a word without spaces, got"),
        ({"file": ";;x"}, "expected names and a word without spaces, got ';;x"),
        ({"word": "\ud800"}, "expected names and a word without spaces, got"),
        ({"start": -1.0}, "expected a start of 0 or more, got '-1.000'"),
        ({"duration": float("inf")}, "expected a duration of 0 or more, got 'inf'"),
        ({"word": "<alt>"}, "expected one word, got alternatives"),
        ({"channel": "A"}, "expected one file and channel for the id 'x', got another than in"),
    ],
)
def test_words_that_ctm_cannot_hold(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ctm"
    with pytest.raises(TranscriptError) as caught:
        write_ctm(path, [WORD, replace(WORD, **change)])
    assert str(caught.value).startswith(f"{path}:2: {message}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speaker": "ann b"}, "expected a start of 0 or more, got 'b'"),
        ({"speaker": ""}, "expected an end of 0 or more, got 'yes'"),
        ({"file": ";;x"}, "expected names without spaces, got ';;x"),
        ({"text": "a\nb"}, "expected a text of one line, got 'a\\nb'; join its lines"),
        ({"text": "{ a / b }"}, "expected one text, got the alternatives '{ a / b }'"),
        ({"text": "\ud800"}, "expected whole characters, got 'x 1 ann"),
        ({"end": 0.25}, "expected an end after the start 0.5, got 0.25"),
        ({"text": "no"}, "expected a new id, got 'x-0.500-1.000' again after line 1"),
    ],
)
def test_segments_that_stm_cannot_hold(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.stm"
    with pytest.raises(TranscriptError) as caught:
        write_stm(path, [SEGMENT, replace(SEGMENT, **change)])
    assert str(caught.value).startswith(f"{path}:2: {message}")
    assert not list(tmp_path.iterdir())
