"""ARPA files: pruned models, damage named with its line, fields separated by ASCII spaces."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import LanguageModelError
from asr.lm.arpa import read_arpa, write_arpa
from asr.lm.estimate import estimate
from asr.lm.ngram import END_ID, START_NODE
from asr.lm.storage import load_ngram, save_ngram
from tests.lm.test_ngram import TEXT, entries

PRUNED = """
\\data\\
ngram 1=5
ngram 2=1
ngram 3=1

\\1-grams:
-99 <s> -0.5
-0.7 </s>
-0.5 a -0.1
-0.6\tb\t-0.2
-1.0 <UNK>

\\2-grams:
-0.2 a b -0.3

\\3-grams:
-0.1 b a b

\\end\\
"""
ODD_BLANKS = {
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "next line": "\u0085",
    "line separator": "\u2028",
    "vertical tab": "\x0b",
    "form feed": "\x0c",
    "file separator": "\x1c",
}


def test_contexts_that_a_pruned_model_lacks_change_no_score(tmp_path: Path) -> None:
    (tmp_path / "pruned.arpa").write_text(PRUNED)
    model = read_arpa(tmp_path / "pruned.arpa")
    assert model.counts == (5, 2, 1)
    assert entries(model)["b", "a"] == pytest.approx((-0.2 - 0.5, 0), abs=1e-5)
    b, a, c, again = model.score_sentence(["b", "a", "b", "zzz"])[:4]
    assert b.log10 == pytest.approx(-0.5 - 0.6)  # <s> b is unknown
    assert a.log10 == pytest.approx(-0.2 - 0.5)
    assert c.log10 == pytest.approx(-0.1)
    # After "b a b": backed off from "a b" and from "b".
    assert again.log10 == pytest.approx(-0.3 - 0.2 - 1.0)


def broken(change: tuple[str, str]) -> str:
    assert change[0] in PRUNED
    return PRUNED.replace(*change, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 0: expected an ARPA file with the line \\data\\, got none"),
        ("once upon a time", r"line 1: expected an ARPA file with the line \\data\\, got none"),
        (broken(("ngram 1=5\n", "")), r"line 3: expected ngram 1=, got ngram 2=1"),
        (broken(("ngram 2=1", "ngram 2=2")), "expected 2 n-grams of 2 words .* got 1"),
        (broken(("-0.5 a", "-0,5 a")), "line 10: expected scores that are numbers, got '-0,5 a"),
        (broken(("-0.5 a", "0.5 a")), "line 10: expected a log10 probability of at most 0"),
        (broken(("-0.5 a", "nan a")), "line 10: expected a log10 probability of at most 0"),
        (
            broken(("-0.5 a -0.1", "-0.5 a inf")),
            "line 10: expected a log10 probability of at most 0",
        ),
        (broken(("-0.2 a b", "-0.2 a x")), "line 15: expected words of the 1-grams, got x"),
        (broken(("-0.2 a b -0.3", "-0.2 a")), "line 15: expected a score, 2 words"),
        (broken(("-0.7 </s>", "-0.5 a")), "line 10: expected every n-gram once"),
        (broken(("\\3-grams:", "\\4-grams:")), r"line 17: expected \\3-grams:"),
        (broken(("\\end\\\n", "")), "got the end of the file: it was cut short"),
        (broken(("\\end\\", "\\ende\\")), r"line 20: expected \\end\\, got"),
    ],
)
def test_a_broken_arpa_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.arpa"
    path.write_text(text)
    with pytest.raises(LanguageModelError, match=message) as raised:
        read_arpa(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_cut_and_garbled_files(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa.gz"
    write_arpa(path, estimate(TEXT, 2))
    whole = path.read_bytes()
    with pytest.raises(LanguageModelError, match="no such file"):
        read_arpa(tmp_path / "none.arpa")
    garbled = whole[:200] + bytes(b ^ 0x55 for b in whole[200:220]) + whole[220:]
    for damaged in (whole[: len(whole) // 2], garbled, b"\xff\xfe\x00binary\n"):
        path.write_bytes(damaged)
        with pytest.raises(LanguageModelError):
            read_arpa(path)


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_arpa_file_is_an_error_or_a_model(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = PRUNED.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        lines[place] = data.draw(st.sampled_from(["", "\\", "a b", "-1 a", lines[place] * 2, "0"]))
    path = tmp_path_factory.getbasetemp() / "damaged.arpa"
    path.write_text("\n".join(lines))
    try:
        model = read_arpa(path)
    except LanguageModelError:
        return
    assert model.score(START_NODE, END_ID)[0] <= 0


@pytest.mark.parametrize("blank", ODD_BLANKS.values(), ids=ODD_BLANKS)
def test_arpa_fields_are_parted_by_ascii_blanks_only(blank: str, tmp_path: Path) -> None:
    lines = [
        "\\data\\",
        "ngram 1=5",
        "ngram 2=1",
        "",
        "\\1-grams:",
        "-1.0\t<unk>",
        "-99\t<s>\t-0.3",
    ]
    lines += ["-0.8\t</s>", f"-0.7\tnew{blank}york\t-0.2", f"-0.9 \twait{blank}  -0.2", ""]
    lines += ["\\2-grams:", f"-0.3\tnew{blank}york wait{blank}", "", "\\end\\", ""]
    path = tmp_path / "lm.arpa"
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    model = read_arpa(path)
    assert {f"new{blank}york", f"wait{blank}"} <= set(model.vocabulary)
    save_ngram(tmp_path / "folder", model)
    again = load_ngram(tmp_path / "folder")
    assert again.vocabulary == model.vocabulary
    save_ngram(tmp_path / "again.arpa", again)
    assert read_arpa(tmp_path / "again.arpa").vocabulary == model.vocabulary
    scores = again.score_sentence([f"new{blank}york", f"wait{blank}"])
    assert [score.length for score in scores] == [1, 2, 1]
