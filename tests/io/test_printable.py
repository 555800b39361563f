"""Names and texts from outside on one printable line.

Covers `asr/io/terminal.py`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from rich.console import Console

from asr.evaluation.error_rate import score
from asr.evaluation.leaderboard import gather, to_tables
from asr.evaluation.report import RunFacts, build_report
from asr.evaluation.report_folder import write_report
from asr.evaluation.report_text import to_text
from asr.io.printable import (
    name_fields,
    printable,
    printable_json,
    printable_lines,
    printable_name,
)
from asr.io.terminal import show, tell

NAMES = [
    b"plain.wav",
    b"new\nline.wav",
    b"tab\there.wav",
    b"carriage\rreturn.wav",
    b"bad-\xff.wav",
    b"caf\xe9.wav",
    b"esc\x1b[31m.wav",
    b"back\\slash\\n.wav",
    "next\u0085line.wav".encode(),
    "para\u2029graph \u202eright\ufeff.wav".encode(),
    "tag\U000e0041.wav".encode(),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_line_of_utf_8_and_can_be_told_from_others(name: bytes) -> None:
    shown = printable_name(os.fsdecode(name))
    assert shown.encode("utf-8").isascii() or "é" in shown
    assert shown.splitlines() == [shown]
    assert shown.isprintable()
    # The escapes are those of Python, so the exact bytes come back.
    back = shown.encode("latin-1", "backslashreplace").decode("unicode_escape")
    assert os.fsencode(back) == name or back.encode("latin-1", "surrogatepass") == name


def test_escaped_and_literal_names_differ() -> None:
    assert printable_name("a\nb") != printable_name("a\\nb")


def test_letters_of_any_script_and_joiners_stay() -> None:
    for text in ("für", "名前 と", "می\u200cخواهم", "क्\u200dष", "no\u00a0break", "🙂"):
        assert printable(text) == text


@pytest.mark.parametrize("name", NAMES)
def test_json_of_a_name_is_utf_8_and_exact(name: bytes) -> None:
    fields = name_fields(f"/data/{os.fsdecode(name)}")
    fields = json.loads(json.dumps(fields, ensure_ascii=False).encode("utf-8"))
    path = b"/data/" + name
    if "file_uri" in fields:
        assert unquote_to_bytes(fields["file_uri"].removeprefix("file://")) == path
    else:
        assert fields["file"].encode() == path


HOSTILE = [
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[31mred",
    "\x9b31m",
    "\x9d0;title\x9c",
    "\u202ereversed",
    "\u2066isolated\u2069",
    "\x00\x08\x7f",
    "line\u2028line",
    "[bold] [/nope]",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_lines_and_json_steer_no_terminal(text: str) -> None:
    value = {"text": text, "n": [1.5, None]}
    row = printable_json(value)
    assert row.isprintable()
    assert json.loads(row) == value
    shown = printable_lines(f"a\n{text}\tb")
    assert "".join(shown.split("\n")).replace("\t", "").isprintable()
    assert printable_lines(shown) == shown


def test_joiners_and_other_scripts_stay() -> None:
    text = "می\u200cخواهم क्\u200dष 東京 שלום 👍"
    assert printable(text) == printable_lines(text) == text
    assert json.loads(printable_json(text)) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_reports_steer_no_terminal(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = RunFacts(
        model=text, manifest=text, manifest_sha256="x", date="2026-01-01", decoder=text
    )
    scores = score({f"a{text}": f"x {text}"}, {f"a{text}": f"y {text}"})
    report = build_report(scores, {}, facts, "words")
    write_report(report, tmp_path / "r")
    boards, _ = gather([tmp_path])
    console = Console(highlight=False, markup=False, force_terminal=True, color_system=None)
    for table in to_tables(boards):
        console.print(table)
    show(to_text(report))
    tell(f"error: {text}")
    ended = capsys.readouterr()
    written = (tmp_path / "r" / "report.txt").read_text(encoding="utf-8")
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    for place, content in {"out": ended.out, "err": ended.err, "txt": written}.items():
        assert text not in content or text.isprintable(), place
        assert "".join(content.split("\n")).isprintable(), place
    assert text not in page or text.isprintable()


def test_commands_print_through_one_function() -> None:
    files = list((Path(__file__).parents[2] / "asr" / "cli").glob("*.py"))
    assert len(files) > 10
    for path in files:
        assert not re.search(
            r"(?<![\w.])print\(|errors\.print", path.read_text(encoding="utf-8")
        ), path
