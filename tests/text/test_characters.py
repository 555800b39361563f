"""Canonical Unicode, characters that are not seen, and the case of Turkish letters."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from asr.config import parse
from asr.errors import ConfigError
from asr.evaluation.error_rate import score
from asr.evaluation.normalise import Profile, Rules
from asr.evaluation.scoring import Scoring, errors_of_case, score_files
from asr.lm.text import plain, read_sentences
from asr.lm.words import parse_hot_words, read_word_list
from asr.text.characters import canonical, lower, unseen, upper
from asr.text.edit_distance import align_words
from asr.text.normalise import TextConfig, normalise
from asr.text.tokens import TokenConfig, build_tokens

KEPT = {
    "Persian": "می\u200cخواهم",
    "Persian after a letter that joins to the right only": "کار\u200cها",
    "Persian after a vowel sign": "مِ\u200cن",
    "Devanagari": "क्\u200dष",
    "Bengali, joiner before the virama": "র\u200d্য",
    "Bengali, no joining": "ক্\u200cষ",
    "Sinhala": "ශ්\u200dරී",
    "Malayalam, at the end of a word": "ന്\u200d",
    "Mongolian selector": "ᠠ\u180b",
}
DROPPED = {
    "zero-width space": ("ca\u200bfé", "café"),
    "byte order mark": ("\ufeffab", "ab"),
    "soft hyphen": ("co\u00adop", "coop"),
    "marks of direction": ("\u200eab\u200f\u061c", "ab"),
    "embedding": ("\u202aa\u202eb\u202c", "ab"),
    "isolate": ("a\u2066b\u2069", "ab"),
    "word joiner and invisible operators": ("a\u2060b\u2061c\u2064", "abc"),
    "variation selectors": ("a\ufe0fb\U000e0100", "ab"),
    "tags": ("a\U000e0001\U000e0041b", "ab"),
    "grapheme joiner": ("a\u034fb", "ab"),
    "Hangul filler": ("한\u3164글", "한글"),
    "control characters": ("a\x00b\x08c\x1b\x7f\x9f", "abc"),
    "joiner between Latin letters": ("a\u200cb\u200dc", "abc"),
    "joiner at the end of a word": ("ه\u200c م\u200d", "ه م"),
    "joiner at the beginning of a word": ("\u200cم", "م"),
    "joiner of emoji": ("👩\u200d👧", "👩👧"),
    "joiner twice": ("م\u200c\u200cن", "م\u200cن"),
    "joiner beside a zero-width space": ("م\u200c\u200bن", "م\u200cن"),
    "Mongolian separator elsewhere": ("a\u180eb", "ab"),
    "between a letter and its accent": ("e\u200b\u0301", "é"),
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
def test_joiners_stay_where_they_change_how_a_word_is_written(text: str) -> None:
    assert canonical(text) == unicodedata.normalize("NFC", text)
    assert not unseen(text)
    assert normalise(text, TextConfig()) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(("text", "expected"), DROPPED.values(), ids=DROPPED)
def test_what_is_not_seen_is_dropped_everywhere(text: str, expected: str, tmp_path: Path) -> None:
    assert canonical(text) == expected
    assert sum(unseen(text).values()) > 0
    assert not unseen(canonical(text))
    assert normalise(text, TextConfig()) == expected
    assert normalise(text, TextConfig(punctuation="remove")) == normalise(
        expected, TextConfig(punctuation="remove")
    )
    assert plain(f"{text}\n") == expected
    assert build_tokens([normalise(text, TextConfig())], TokenConfig()) == build_tokens(
        [expected], TokenConfig()
    )
    assert score({"u": expected}, {"u": text}).words.errors == 0
    assert score({"u": text}, {"u": expected}).characters.errors == 0
    assert Profile("p", Rules(lowercase=True)).apply(text) == expected
    (tmp_path / "text.txt").write_text(f"{text}\n", encoding="utf-8")
    assert list(read_sentences([tmp_path / "text.txt"], plain)) == [expected]
    if " " not in expected:
        (tmp_path / "words.txt").write_text(f"\ufeff{text}\tsaid so\n", encoding="utf-8")
        assert read_word_list(tmp_path / "words.txt") == (expected,)
        assert parse_hot_words([text], "line ") == {expected: 6.0}


def test_white_space_of_any_kind_is_no_character_to_drop() -> None:
    text = "a\tb\nc\x85d\u2028e\x1cf\u3000g\u00a0h"
    assert canonical(text) == text
    assert normalise(text, TextConfig()) == "a b c d e f g h"


def test_canonically_equivalent_texts_are_one_text(tmp_path: Path) -> None:
    composed, decomposed = (
        "für Ångström 한국어 क़लम",
        "fu\u0308r A\u030angstro\u0308m 한국어 क\u093cलम",
    )
    decomposed = unicodedata.normalize("NFD", decomposed)
    assert composed != decomposed
    scores = score({"u": composed}, {"u": decomposed})
    assert (scores.words.errors, scores.characters.errors) == (0, 0)
    wrong = align_words([composed], [decomposed.replace("fu", "mu")])[0]
    assert wrong[0] == ("S", "für", "mür")  # as a table of confusions shows it
    assert [column.operation for column in wrong] == ["S", "C", "C", "C"]
    for profile in (Profile("none", Rules()), Profile("x", Rules(replace=(("für", "for"),)))):
        assert profile.apply(composed) == profile.apply(decomposed)


@pytest.mark.parametrize("format", ["trn", "kaldi", "json", "jsonl", "csv", "tsv", "stm-ctm"])
def test_canonically_equivalent_files_have_no_errors(format: str, tmp_path: Path) -> None:
    def written(name: str, word: str, id_: str) -> Path:
        contents = {
            "trn": f"{word} noir ({id_})\n",
            "kaldi": f"{id_} {word} noir\n",
            "json": f'{{"{id_}": "{word} noir"}}\n',
            "jsonl": f'{{"id": "{id_}", "text": "{word} noir"}}\n',
            "csv": f'id,text\n{id_},"{word} noir"\n',
            "tsv": f"id\ttext\n{id_}\t{word} noir\n",
            "stm": f"{id_} 1 ann 0 2 <o> {word} noir\n",
            "ctm": f"{id_} 1 0.1 0.2 {word}\n{id_} 1 0.5 0.2 noir\n",
        }
        suffix = "txt" if name == "kaldi" else name
        path = tmp_path / f"{id_.isascii()}-{len(word)}.{suffix}"
        path.write_text(contents[name], encoding="utf-8")
        return path

    kinds = ("stm", "ctm") if format == "stm-ctm" else (format, format)
    reference = written(kinds[0], "café", "für-1")
    hypothesis = written(kinds[1], "cafe\u0301", "fu\u0308r-1")
    assert reference != hypothesis
    report = score_files(reference, hypothesis, Scoring())
    assert not report.scores.missing
    assert not report.scores.unexpected
    assert (report.scores.words.errors, report.scores.words.reference_length) == (0, 2)


@pytest.mark.parametrize("language", ["tr", "az", "tr-TR", "az-Latn-AZ", "TR"])
def test_turkish_letters_have_their_own_case(language: str) -> None:
    text = TextConfig(language=language)
    assert normalise("DİYARBAKIR İSTANBUL IŞIK", text) == "diyarbakır istanbul ışık"
    assert normalise("I\u0307ZMI\u0307R", text) == "izmir"  # decomposed
    assert normalise("i\u0307zmir", text) == "izmir"  # as other programs lower İ
    assert normalise("diyarbakır", text.model_copy(update={"case": "upper"})) == "DİYARBAKIR"
    assert normalise("IŞIK", text.model_copy(update={"case": "keep"})) == "IŞIK"
    assert upper(lower("İIIİ", language), language) == "İIIİ"


def test_other_languages_keep_the_case_of_unicode() -> None:
    for language in ("", "en", "de-CH", "lt", "el"):
        assert lower("ISTANBUL STRAẞE ΟΔΟΣ", language) == "istanbul straße οδος"
    assert "i\u0307" in lower("İ")


@pytest.mark.parametrize("value", ["turkish", "tr_TR", "tr-", 5, True])
def test_a_language_that_is_no_tag_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"text: at language: expected a language tag"):
        parse(TextConfig, {"language": value}, "text")


def test_the_tag_of_norwegian_is_no_truth_value() -> None:
    assert parse(TextConfig, {"language": False}, "text").language == "no"


def test_scoring_without_case_knows_turkish() -> None:
    profile = Profile("tr", Rules(lowercase=True, language="tr"))
    assert profile.apply("IŞIK") == profile.apply("ışık")
    scores = score({"u": "IŞIK"}, {"u": "ışık"})
    assert (errors_of_case(scores, "tr"), errors_of_case(scores)) == (1, 0)
