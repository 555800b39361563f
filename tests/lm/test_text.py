"""Sentences for language models, from text files and manifests."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from asr.errors import LanguageModelError
from asr.lm.arpa import read_arpa, write_arpa
from asr.lm.estimate import estimate
from asr.lm.text import read_sentences
from tests.lm.test_ngram import TEXT


def test_text_comes_from_lines_and_manifests(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One two\n")
    with gzip.open(tmp_path / "b.txt.gz", "wt") as file:
        file.write("THREE\n")
    row = '{"id": "x", "audio": "x.wav", "text": "Four", "duration": 1.0, "speaker": "s"}\n'
    (tmp_path / "c.jsonl").write_text(row)
    paths = [tmp_path / name for name in ("a.txt", "b.txt.gz", "c.jsonl")]
    assert [s.strip() for s in read_sentences(paths, str.lower)] == ["one two", "three", "four"]
    for damaged in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(LanguageModelError, match="expected text, got"):
            list(read_sentences([damaged], str))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(LanguageModelError, match=r"a\.txt"):
        list(read_sentences(paths, str))


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path: Path) -> None:
    text = "\ufeffone two\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    paths = [tmp_path / "a.txt", tmp_path / "a.txt.gz"]
    assert [s.strip() for s in read_sentences(paths, str)] == ["one two"] * 2
    write_arpa(tmp_path / "lm.arpa", estimate(TEXT, 2))
    whole = (tmp_path / "lm.arpa").read_bytes().lstrip()
    (tmp_path / "lm.arpa").write_bytes("\ufeff".encode() + whole)
    assert read_arpa(tmp_path / "lm.arpa").counts == estimate(TEXT, 2).counts


def test_a_damaged_compressed_text_is_named(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"line {i}\n" for i in range(2000)).encode())
    garbled = whole[:200] + bytes(b ^ 0x55 for b in whole[200:220]) + whole[220:]
    for damaged in (whole[: len(whole) // 2], garbled, b"no gzip"):
        (tmp_path / "a.txt.gz").write_bytes(damaged)
        with pytest.raises(LanguageModelError, match=r"a\.txt\.gz: expected text, got"):
            list(read_sentences([tmp_path / "a.txt.gz"], str))
