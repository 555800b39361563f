from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.dataset.manifest import Utterance, write_manifest
from asr.errors import TranscriptError
from asr.evaluation.error_rate import score
from asr.evaluation.formats import Format, guess_format, read_pair, read_texts, write_texts
from asr.evaluation.report import RunFacts, build_report
from asr.evaluation.report_folder import write_report
from tests.texts import plain, spoken, written

TEXT_FORMATS: list[Format] = ["trn", "kaldi", "jsonl", "json", "csv", "tsv"]


def refusal(path: Path, **how: Any) -> str:
    """The one line that a file is refused with, without its folder."""
    with pytest.raises(TranscriptError) as caught:
        read_texts(path, **how)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(path))
    return message.removeprefix(f"{path.parent}/")


# --- worked examples ---

EXAMPLES = {
    "ref.trn": "turn on the light (ann-1)\n;; a comment\n\nit (er) stops (bob 2)\n(cy-3)\n",
    "text": "ann-1 turn  on the\tlight\n\n  bob-2\tit stops\r\ncy-3\n",
    "u.jsonl": '{"id": "a", "text": "one\\ntwo"}\n\n{"id": "b", "text": "", "noise": [1]}\n',
    "map.json": '{\n"a": "one two",\n"b": ""}',
    "list.json": '[{"id": "a", "text": "one"}, {"text": "two", "id": "b"}]',
    "t.csv": 'audio, text ,id\n\nx.wav,"one, ""two""\nthree",a\ny.wav,,b\n,four,c\n',
    "t.tsv": 'id\ttext\na\t"so" he said\nb\t"he said ""so"""\nc\tan open " quote\nd\t\n',
    "h.ctm": ";; words\nx 1 2.0 0.5 two 0.9\nx 1 0.5 .5 one NA\ny B 0 1 three\nx 1 2.0 0.1 too\n",
    "r.stm": (
        ";; segments\nx A ann 0 1.5 <o,f0,female> one <unk> two\nx A bob 1.5 3\n"
        "x A inter_segment_gap 3 4 <o,,unknown>\nx A none 4 9 IGNORE_TIME_SEGMENT_IN_SCORING\n"
        "y 2 ann 0.25 12 three\ny 2 ann 12 13 inter_segment_gap\n"
    ),
}
EXPECTED = {
    "ref.trn": {"ann-1": "turn on the light", "bob 2": "it (er) stops", "cy-3": ""},
    "text": {"ann-1": "turn on the light", "bob-2": "it stops", "cy-3": ""},
    "u.jsonl": {"a": "one\ntwo", "b": ""},
    "map.json": {"a": "one two", "b": ""},
    "list.json": {"a": "one", "b": "two"},
    "t.csv": {"a": 'one, "two"\nthree', "b": "", "c": "four"},
    "t.tsv": {"a": '"so" he said', "b": 'he said "so"', "c": 'an open " quote', "d": ""},
    "h.ctm": {"x": "one two too", "y-B": "three"},
    "r.stm": {"x-0.000-1.500": "one <unk> two", "x-1.500-3.000": "", "y-2-0.250-12.000": "three"},
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, EXAMPLES[name])
    assert list(read_texts(path).items()) == list(EXPECTED[name].items())
    with_mark = written(tmp_path / "marked", b"\xef\xbb\xbf" + EXAMPLES[name].encode())
    assert read_texts(with_mark, guess_format(path)) == EXPECTED[name]


def test_the_format_is_told_by_the_name() -> None:
    assert [
        guess_format(f"a/B.{name.upper()}") for name in get_args(Format) if name != "kaldi"
    ] == [name for name in get_args(Format) if name != "kaldi"]
    assert {guess_format("data/test/text"), guess_format("x.txt")} == {"kaldi"}
    for name in ("x.kaldi", "x.docx", "texts"):
        with pytest.raises(TranscriptError, match=r"expected a name that .* got '.*'; rename it"):
            guess_format(name)


def test_a_role_finds_its_text(tmp_path: Path) -> None:
    both = '{"id": "a", "reference": "r", "hypothesis": "h", "text": "t"}'
    table = "id,reference,hypothesis,text\na,r,h,t\n"
    for name, content in (("b.jsonl", both), ("b.json", f"[{both}]"), ("b.csv", table)):
        path = written(tmp_path / name, content)
        assert read_texts(path, role="reference") == {"a": "r"}
        assert read_texts(path, role="hypothesis") == read_texts(path) == {"a": "h"}
        assert read_texts(path, key="text") == {"a": "t"}
        assert read_pair(path, path) == ({"a": "r"}, {"a": "h"})
        assert read_pair(path, path, reference_key="text")[0] == {"a": "t"}
        assert "the column" in (said := refusal(path, key="x")) or "expected the key 'x'" in said


def test_our_own_manifests_and_hypotheses(tmp_path: Path) -> None:
    manifest = tmp_path / "test.jsonl"
    write_manifest(manifest, [Utterance("a", tmp_path / "a.wav", "one two", 1.5, "ann")])
    assert read_texts(manifest, role="reference") == {"a": "one two"}
    facts = RunFacts("m", str(manifest), "0", "2026-11-21")
    report = build_report(score({"a": "one two"}, {"a": "one too"}), {}, facts)
    write_report(report, tmp_path / "out")
    path = tmp_path / "out" / "hypotheses.jsonl"
    assert read_pair(manifest, path) == ({"a": "one two"}, {"a": "one too"})


# --- what is refused ---

BAD = [
    ("x.trn", "one (a)\ntwo b\n", "2: expected words and then (id), got 'two b'; add the id"),
    ("x.trn", "one (a) two\n", "1: expected words and then (id)"),
    ("x.trn", "one ( )\n", "1: expected words and then (id)"),
    (
        "x.trn",
        "the { light / lamp / @ } (a)\n",
        "1: expected one text, got the alternatives '{ light / lamp / @ }'; choose one of them",
    ),
    ("x.trn", ";; nothing\n", "1: expected at least one utterance, got none"),
    ("x.trn", "1 (a)\n\n2 (a)\n", "3: expected a new id, got 'a' again after line 1; rename or"),
    ("x.txt", "a 1\nb\na 1\n", "3: expected a new id, got 'a' again after line 1"),
    ("x.jsonl", '{"id": "a", "text": "x"}\n' * 2, "2: expected a new id, got 'a' again after line"),
    ("x.jsonl", '{"id": "a", "text": "x"}\n{"id"\n', "2: expected JSON, got '{\"id\"' (Expecting"),
    ("x.jsonl", "[1]", "1: expected an object with 'id' and 'hypothesis' or 'text', got [1]"),
    ("x.jsonl", '{"id": "a", "pred": "x"}', "1: expected the key 'hypothesis' or 'text', got ['id"),
    ("x.jsonl", '{"text": "x"}', "1: expected the key 'id', got ['text']; add it"),
    ("x.jsonl", '{"id": 1, "text": "x"}', "1: expected 'id' to be text, got 1; put it in quotes"),
    ("x.jsonl", '{"id": "a", "text": null}', "1: expected 'text' to be text, got None"),
    ("x.jsonl", '{"id": " ", "text": ""}', "1: expected 'id' to be non-empty text, got ' '"),
    ("x.jsonl", '{"id": "a", "text": "\\ud800"}', "1: expected whole characters, got half of one"),
    ("x.jsonl", '{"id": "a", "id": "b"}', "1: expected each key once, got 'id' again; rename"),
    ("x.jsonl", "[" * 100_000, "1: expected JSON, got too large numbers or too deep nesting"),
    (
        "x.jsonl",
        '{"id": "a", "hypothesis": "x", "text": "y"}\n{"id": "b", "text": "y"}',
        "2: expected the key 'hypothesis', got ['id', 'text']; name the key",
    ),
    ("x.json", '{"a":\n oops}', "2: expected JSON, got 'oops}' (Expecting value); correct it"),
    ("x.json", '{"a": "x", "a": "y"}', " expected each key once, got 'a' again"),
    ("x.json", '{"a": 1}', " utterance 'a': expected 'text' to be text, got 1"),
    ("x.json", '"a"', " expected an object or a list, got 'a'; write id: text"),
    ("x.json", "[]", " expected at least one utterance, got none"),
    ("x.json", "{}", " expected at least one utterance, got none"),
    ("x.json", '{"id": "a", "text": "x"}', " expected id: text for each utterance or a list of"),
    ("x.json", '[{"id": "a", "text": "x"}, 2]', " object 2: expected an object with 'id' and 't"),
    (
        "x.json",
        json.dumps([{"id": "a", "text": "x"}] * 2),
        " object 2: expected a new id, got 'a' again after object 1",
    ),
    (
        "x.csv",
        "utterance;sentence\na;b\n",
        "1: expected the columns 'id' and 'hypothesis' or 'text', got 'utterance;sentence'; rename",
    ),
    ("x.tsv", "id\tsentence\na\tb\n", "1: expected the columns 'id' and 'hypothesis' or 'text'"),
    ("x.csv", 'id,text\na,"x\ny"\nb,one, two\n', "4: expected 2 fields as in the header, got 3"),
    ("x.csv", 'id,text\na,x\nb,"y\n', "3: expected CSV, got an invalid row ("),
    ("x.csv", "id,text,text\na,x,y\n", "1: expected one column 'text', got 2; rename or remove"),
    ("x.tsv", "id\ttext\tid\na\tx\tb\n", "1: expected one column 'id', got 2; rename or remove"),
    ("x.csv", "id,text\n,x\n", "2: expected 'id' to be non-empty text, got ''"),
    ("x.csv", 'id,text\na,"x\ny"\na,z\n', "4: expected a new id, got 'a' again after line 2"),
    ("x.csv", "id,text\n", "1: expected at least one utterance, got none"),
    ("x.tsv", "id\ttext\na\tb\tc\n", "2: expected 2 fields as in the header, got 3 in ['a', 'b', "),
    ("x.ctm", "x 1 0 1 one\nx 1 1 one\n", "2: expected file, channel, start, duration, word and p"),
    ("x.ctm", "x 1 0 1 one 0.9 lex ann\n", "1: expected file, channel, start, duration, word and"),
    ("x.ctm", "x 1 0 1 a\nx 1 * * <ALT_BEGIN>\n", "2: expected one word, got alternatives in 'x 1"),
    ("x.ctm", "x 1 -1 1 one\n", "1: expected a start of 0 or more, got '-1'; correct it"),
    ("x.ctm", "x 1 0 nan one\n", "1: expected a duration of 0 or more, got 'nan'"),
    ("x.ctm", "x 1 0 1_0 one\n", "1: expected a duration of 0 or more, got '1_0'"),
    ("x.ctm", "x 1 0 1 one sure\n", "1: expected a confidence of 0 or more, got 'sure'"),
    ("x.ctm", "x 1 0 1 one\nx A 1 1 two\n", "2: expected one file and channel for the id 'x', got"),
    ("x.ctm", ";; nothing\n", "1: expected at least one word, got comments alone"),
    ("x.stm", "x 1 ann 0\n", "1: expected file, channel, speaker, start, end, perhaps a <label>"),
    (
        "x.stm",
        "x 1 ann 0 end one\n",
        "1: expected an end of 0 or more, got 'end'",
    ),
    ("x.stm", "x 1 ann 2 1 one\n", "1: expected an end after the start 2, got 1; correct it"),
    (
        "x.stm",
        "x 1 ann 0 1 { a / b } c\n",
        "1: expected one text, got the alternatives '{ a / b }'",
    ),
    (
        "x.stm",
        "x 1 ann 0 1 a\nx 1 bob 0 1.0 b\n",
        "2: expected a new id, got 'x-0.000-1.000' again",
    ),
    ("x.stm", ";; nothing\n", "1: expected at least one segment, got comments alone"),
    (
        "x.stm",
        "x 1 ann 0 1 ignore_time_segment_in_scoring\n",
        "1: expected at least one segment to score, got gaps and ignored ones alone",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_a_wrong_file_is_refused_in_one_line(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    assert refusal(written(tmp_path / name, content)).startswith(f"{name}:{message}")


@pytest.mark.parametrize("format", get_args(Format))
def test_files_that_hold_no_text_at_all(format: Format, tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert "expected a file of texts, got no such file" in refusal(path, format=format)
    assert "expected a file of texts, got a folder" in refusal(tmp_path, format=format)
    for content in (b"", b"\xef\xbb\xbf", b" \n\n"):
        said = refusal(written(path, content), format=format)
        assert said.startswith("x:1: expected at least one utterance, got an empty file")
    for content, line in ((b"caf\xe9 (a)", 1), ("a\nb".encode("utf-16"), 1), (b"a\n\nb\xff", 3)):
        said = refusal(written(path, content), format=format)
        assert said.startswith(f"x:{line}: expected UTF-8 text, got byte 0x")
        assert said.endswith("save the file as UTF-8")


# --- writing ---

whole = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize("format", TEXT_FORMATS)
@settings(max_examples=30)
@given(texts=st.dictionaries(plain, spoken, min_size=1, max_size=4))
def test_usual_texts_are_read_as_written(
    format: Format, texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"usual.{format}"
    write_texts(path, texts, format)
    assert list(read_texts(path, format).items()) == list(texts.items())


@pytest.mark.parametrize("format", TEXT_FORMATS)
@settings(max_examples=40)
@given(texts=st.dictionaries(whole, whole, max_size=3))
@example(texts={"\ufeffa": "b", "c": '"'})
@example(texts={"a": "one\r\ntwo", "b": "three\n", "c": "\rfour"})
@example(texts={"a": "{ b / c }"})
@example(texts={";;a": ";;b"})
def test_any_texts_are_read_as_written_or_refused(
    format: Format, texts: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any.{format}"
    try:
        write_texts(path, texts, format)
    except TranscriptError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert message.isprintable()
        assert message.startswith(f"{path}: ")
        return
    if format in ("trn", "kaldi"):
        texts = {id_: " ".join(text.split()) for id_, text in texts.items()}
    assert list(read_texts(path, format).items()) == list(texts.items())


REFUSED: list[tuple[Format, str, str, str]] = [
    ("kaldi", "a b", "x", "utterance 'a b': expected an id without spaces for kaldi, got some"),
    ("trn", "a(b)", "x", "utterance 'a(b)': expected an id without parentheses for trn, got some"),
    ("trn", "a", ";; x", "utterance 'a': expected a text for trn, got a comment, ';; x (a)'; l"),
    ("trn", "a", "{ x / y }", "utterance 'a': expected one text, got the alternatives '{ x / y }'"),
    ("trn", "a", "x\ny", "utterance 'a': expected a text of one line, got 'x\\ny'; join its lines"),
    ("kaldi", "a", "x\ry", "utterance 'a': expected a text of one line, got 'x\\ry'"),
    ("tsv", "a", "x\ty", "utterance 'a': expected neither tabs nor several lines for tsv, got 'x"),
    ("csv", "a ", "x", "utterance 'a ': expected an id without spaces around it, got some"),
    ("json", " ", "x", "utterance ' ': expected 'id' to be non-empty text, got ' '"),
    ("jsonl", "a", "\ud800", "utterance 'a': expected whole characters, got half of one in '\\ud8"),
    ("ctm", "a", "x", "expected a format of texts, got ctm, which has times; choose trn"),
    ("stm", "a", "x", "expected a format of texts, got stm, which has times; choose trn"),
]


@pytest.mark.parametrize(("format", "id_", "text", "message"), REFUSED)
def test_nothing_is_written_that_reading_would_change(
    format: Format, id_: str, text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x"
    with pytest.raises(TranscriptError) as caught:
        write_texts(path, {"fine": "text", id_: text}, format)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert not list(tmp_path.iterdir())


def test_no_texts_no_place_and_an_object_that_seems_an_utterance(tmp_path: Path) -> None:
    for format in TEXT_FORMATS:
        with pytest.raises(TranscriptError, match="expected at least one utterance to write, got"):
            write_texts(tmp_path / "x", {}, format)
    with pytest.raises(TranscriptError, match="expected a writable path, got 'File exists'"):
        write_texts(written(tmp_path / "file", "") / "x", {"a": "b"}, "trn")
    with pytest.raises(TranscriptError, match="expected other ids for json, got 'id' beside"):
        write_texts(tmp_path / "x", {"id": "a", "text": "b"}, "json")


@settings(max_examples=100)
@given(
    st.sampled_from(sorted(EXAMPLES)), st.integers(0, 200), st.integers(0, 4), st.binary(max_size=6)
)
def test_any_damage_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, cut: int, put: bytes
) -> None:
    content = EXAMPLES[name].encode()
    path = tmp_path_factory.getbasetemp() / name
    written(path, content[:at] + put + content[at + cut :])
    try:
        texts = read_texts(path)
    except TranscriptError as error:
        message = str(error)
    else:
        assert texts
        assert all(isinstance(text, str) for text in texts.values())
        return
    assert message.isprintable()
    assert message.startswith(f"{path}:")
