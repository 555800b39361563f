from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asr.config import parse
from asr.errors import ConfigError
from asr.text.normalise import TextConfig, normalise

CONFIGS = [TextConfig(case="keep"), TextConfig(case="lower"), TextConfig(case="upper")]


@pytest.mark.parametrize(
    ("config", "expected"),
    list(zip(CONFIGS, ["Été à Nice", "été à nice", "ÉTÉ À NICE"], strict=True)),
)
def test_case_spaces_and_composed_characters(config: TextConfig, expected: str) -> None:
    decomposed = unicodedata.normalize("NFD", "Été")
    assert len(decomposed) == 5
    assert normalise(f"\t{decomposed}\u00a0 à\nNice ", config) == expected


def test_other_spellings_of_the_same_character_agree() -> None:
    assert normalise("\u212b", TextConfig()) == normalise("A\u030a", TextConfig()) == "å"


@given(st.text(), st.sampled_from(CONFIGS))
@example("\u0390", TextConfig(case="upper"))  # its upper case is three code points
@example("\u01f0", TextConfig(case="upper"))
@example("\u0130\u0327", TextConfig(case="lower"))  # leaves two marks in the wrong order
@example("ΑΣ ß ŉ", TextConfig(case="upper"))
def test_the_result_is_canonical_and_stable(text: str, config: TextConfig) -> None:
    once = normalise(text, config)
    assert unicodedata.is_normalized("NFC", once)
    assert normalise(once, config) == once
    assert " ".join(once.split()) == once


@given(st.text(), st.sampled_from(CONFIGS))
def test_every_spelling_of_a_text_gives_the_same(text: str, config: TextConfig) -> None:
    expected = normalise(text, config)
    assert normalise(unicodedata.normalize("NFD", text), config) == expected
    assert normalise(f" {text}\n", config) == expected


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(ConfigError, match="case"):
        parse(TextConfig, {"case": "title"}, "r.yaml")


def test_punctuation_goes_if_nobody_should_write_it() -> None:
    config = TextConfig(punctuation="remove")
    assert normalise("“Don’t stop!” he said -- twice; 50%", config) == "don't stop he said twice 50"
    assert normalise("سلام، دنیا؟", config) == "سلام دنیا"
    assert normalise("東京、晴れ。", config) == "東京 晴れ"
    assert normalise("...", config) == ""
    assert normalise("stop!", TextConfig()) == "stop!"
