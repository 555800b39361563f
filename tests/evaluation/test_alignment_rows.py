"""Reference above hypothesis in a terminal, whatever script they are written in."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from asr.evaluation.error_rate import score
from asr.evaluation.report_text import alignment_rows
from asr.text.edit_distance import AlignedWord

# The last but one joins the letter before it: two code points in one cell.
words = st.text(st.sampled_from("abcは京é\u0301한"), min_size=1, max_size=9).filter(
    lambda word: word[0] != "\u0301"
)


def test_wide_characters_line_up() -> None:
    (utterance,) = score({"u": "東京 は 晴れ です"}, {"u": "東京 が です"}).utterances
    ((reference, hypothesis, marks),) = alignment_rows(utterance.alignment)
    assert reference == "東京 は 晴れ です"
    assert hypothesis == "東京 が **** です"
    assert marks == "     S  D        "


def starts(row: str) -> list[int]:
    """The cells where the words of a row begin."""
    return [cell_len(row[: match.start()]) for match in re.finditer(r"\S+", row)]


@given(st.lists(words, max_size=12), st.lists(words, max_size=12), st.integers(1, 60))
def test_rows_line_up_and_lose_no_word(left: list[str], right: list[str], width: int) -> None:
    (utterance,) = score({"u": " ".join(left)}, {"u": " ".join(right)}).utterances
    blocks = alignment_rows(utterance.alignment, width)
    columns = iter(utterance.alignment)
    for reference, hypothesis, marks in blocks:
        assert cell_len(reference) == cell_len(hypothesis) == cell_len(marks)
        assert cell_len(reference) <= width or len(reference.split()) == 1
        assert starts(reference) == starts(hypothesis)
        shown = zip(starts(reference), reference.split(), hypothesis.split(), strict=True)
        wrong = []
        for (at, above, below), column in zip(list(shown), columns, strict=False):
            assert above == column.reference or (column.reference is None and set(above) == {"*"})
            assert below == column.hypothesis or (column.hypothesis is None and set(below) == {"*"})
            wrong += [(at, column.operation)] if column.operation != "C" else []
        assert list(zip(starts(marks), marks.split(), strict=True)) == wrong
    assert next(columns, None) is None


def test_a_word_that_is_an_asterisk_keeps_its_mark() -> None:
    columns = [AlignedWord("C", "*", "*"), AlignedWord("I", None, "*")]
    assert alignment_rows(columns) == [("* *", "* *", "  I")]
    assert alignment_rows([]) == []
