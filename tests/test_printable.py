"""Names and texts from outside on one printable line."""

from __future__ import annotations

import json
import os
from urllib.parse import unquote_to_bytes

import pytest

from asr.printable import name_fields, printable, printable_name

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
