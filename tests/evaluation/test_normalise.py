from __future__ import annotations

import unicodedata
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asr.errors import ConfigError
from asr.evaluation import normalise
from asr.evaluation.normalise import Profile, Rules, load_profile, split_characters
from asr.io.files import digest

NONE, ENGLISH = load_profile("none"), load_profile("english")


def profile(**rules: Any) -> Profile:
    return Profile("test", Rules.model_validate(rules))


def test_none_collapses_whitespace_alone() -> None:
    assert NONE.apply(" It’s  5\tO'Clock,\u00a0\n okay? ") == "It’s 5 O'Clock, okay?"
    assert NONE.apply(" \n") == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. Brown won't pay, uh, twenty-five dollars!", "mister brown will not pay $25"),
        ("The colour of my neighbour's [cough] door", "the color of my neighbor is door"),
        ("Um, hmm. (laughs)", ""),
        ("", ""),
    ],
)
def test_english_is_whispers(text: str, expected: str) -> None:
    assert ENGLISH.apply(text) == expected


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        ({"unicode": "NFC"}, "e\u0301 ﬁ", "é ﬁ"),
        ({"unicode": "NFKC"}, "ﬁ ＡＢ　ｶﾞ", "fi AB ガ"),
        ({"lowercase": True}, "ÉTÉ À Nice", "été à nice"),
        ({"remove_punctuation": True}, "Well-known: “5 € (each)”…", "Well known 5 each"),
        ({"remove_punctuation": True}, "don’t 'stop' dogs' o＇clock", "don't stop dogs o'clock"),
        ({"remove_punctuation": True}, "東京、大阪。「はい」", "東京 大阪 はい"),
        ({"remove": [r"\[.*?\]", "uh"]}, "[noise] so uh [a b] yes", "so yes"),
        ({"replace": [["ok", "so"], [r"(\w+)ise\b", r"\1ize"]]}, "ok realise", "so realize"),
        # In the order of the rules: case, then what is removed, then replaced, then punctuation.
        ({"lowercase": True, "remove": ["abc"]}, "ABC d", "d"),
        ({"remove": ["b"], "replace": [["ac", "x"]]}, "abc", "x"),
        ({"remove": ["<.*?>"], "remove_punctuation": True}, "<unk> so", "so"),
        ({"base": "english", "replace": [["color", "colour"]]}, "Colour!", "colour"),
        ({"remove": [".*"]}, "everything", ""),
    ],
)
def test_rules(rules: dict[str, Any], text: str, expected: str) -> None:
    assert profile(**rules).apply(text) == expected


choices = st.fixed_dictionaries(
    {
        "base": st.sampled_from(["none", "english"]),
        "unicode": st.sampled_from(["NFC", "NFKC", "none"]),
        "lowercase": st.booleans(),
        "remove_punctuation": st.booleans(),
    }
)
texts = st.text(max_size=12) | st.text("aB'’.-, $5é\u0301", max_size=12)


@settings(max_examples=80)
@given(choices, texts)
@example({"unicode": "NFC", "lowercase": True}, "\u0130\u0327")
@example({"unicode": "NFC", "remove_punctuation": True}, "a-\u0301")
def test_results_have_single_spaces_and_one_form(rules: dict[str, Any], text: str) -> None:
    used = profile(**rules)
    found = used.apply(text)
    assert found == " ".join(found.split())
    if used.rules.unicode != "none":
        assert unicodedata.is_normalized(used.rules.unicode, found)
    assert used.apply(f" {text}\n") == found


@settings(max_examples=80)
@given(texts)
def test_without_punctuation_none_is_left_but_apostrophes_in_words(text: str) -> None:
    found = profile(remove_punctuation=True).apply(text)
    for word in found.split():
        assert not word.startswith("'")
        assert not word.endswith("'")
        assert not any(unicodedata.category(c)[0] in "PS" for c in word.replace("'", ""))


# --- files ---


def saved(path: Path, rules: Any) -> Path:
    path.write_text(yaml.safe_dump(rules), encoding="utf-8")
    return path


def test_a_file_of_rules(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "lowercase: true\nunicode: none\nremove: ['\\[.*?\\]']\nreplace: [[ok, okay]]\n"
    )
    mine = load_profile(str(path))
    assert mine == load_profile(path)
    assert mine.apply("OK [noise]  Go") == "okay go"
    assert mine.description == (
        f"mine.yaml (sha256 {digest(path)[:12]},"
        ' {"lowercase":true,"remove":["\\\\[.*?\\\\]"],"replace":[["ok","okay"]]})'
    )


def test_descriptions_tell_what_is_needed_to_do_it_again(tmp_path: Path) -> None:
    package = f"whisper-normalizer {version('whisper-normalizer')}"
    assert NONE.description == "none (whitespace collapsed)"
    assert ENGLISH.description == f"english ({package})"
    path = saved(tmp_path / "e.yaml", {"base": "english", "remove": ["a\nb"]})
    rules = '{"base":"english","remove":["a\\nb"]}'
    assert load_profile(path).description == (
        f"e.yaml (sha256 {digest(path)[:12]}, {rules}, {package})"
    )


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"remve": ["a"]}, "unknown key 'remve': did you mean 'remove'?"),
        ({"base": "french"}, "at base: input should be 'none' or 'english', got 'french'"),
        ({"unicode": "NFD"}, "at unicode: input should be 'nfc', 'nfkc' or 'none', got 'NFD'"),
        ({"lowercase": "perhaps"}, "at lowercase: input should be a valid boolean"),
        ({"remove": "abc"}, "at remove: input should be a valid tuple, got 'abc'"),
        ({"remove": ["a", "("]}, "at remove.1: expected a regular expression (missing )"),
        ({"remove": ["\\p{L}"]}, "at remove.0: expected a regular expression (bad escape"),
        ({"remove": [5]}, "at remove.0: input should be a valid string, got 5"),
        ({"replace": [["[", "x"]]}, "at replace.0: expected a regular expression (unterminated ch"),
        ({"replace": [["a", "\\1"]]}, "at replace.0: expected a regular expression (invalid group"),
        ({"replace": [["a", "\\g<n>"]]}, "at replace.0: expected a regular expression ("),
        ({"replace": [["a"]]}, "at replace.0.1: field required"),
        ({"replace": [["a", "b", "c"]]}, "at replace.0: tuple should have at most 2 items"),
    ],
)
def test_a_wrong_rule_is_named_with_its_file(
    rules: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "r.yaml", rules)
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("rules", [{"remove": ["(a|aa)+$"]}, {"replace": [["(a|aa)+$", "b"]]}])
def test_a_pattern_without_end_is_named_with_its_file(
    rules: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalise, "LIMIT_S", 0.05)
    mine = load_profile(saved(tmp_path / "r.yaml", rules))
    with pytest.raises(ConfigError) as caught:
        mine.apply("a" * 60 + "!")
    assert str(caught.value).startswith(
        "r.yaml: expected a regular expression that ends within 0.05 s, got '(a|aa)+$'"
    )
    assert "\n" not in str(caught.value)
    assert mine.apply("b" * 60) == "b" * 60


def test_neither_a_name_nor_a_file(tmp_path: Path) -> None:
    for name in ("englisch", str(tmp_path), "a\0b"):
        with pytest.raises(ConfigError, match="expected none, english or a YAML file of rules, g"):
            load_profile(name)
    path = tmp_path / "bad.yaml"
    path.write_text("remove: [\n")
    with pytest.raises(ConfigError, match=r"expected YAML, got .*bad\.yaml line 2"):
        load_profile(path)


# --- characters ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我们 去\u3000OK", "我 们 去 O K"),
        ("か\u3099ガっ", "か\u3099 ガ っ"),
        ("e\u0301t", "e\u0301 t"),
        ("한국\u1112\u1161\u11ab", "한 국 \u1112\u1161\u11ab"),
        ("葛\U000e0100", "葛\U000e0100"),  # which of its shapes
        ("  \n", ""),
    ],
)
def test_characters_as_words(text: str, expected: str) -> None:
    assert split_characters(text) == expected


@settings(max_examples=80)
@given(st.text(max_size=20) | st.text("aか\u3099\u0301 \u3000한\r\n", max_size=20))
@example("a \u0301b")
def test_splitting_loses_nothing_but_blanks(text: str) -> None:
    found = split_characters(text)
    assert "".join(found.split()) == "".join(text.split())
    assert split_characters(found) == found
    assert " ".join(found.split()) == found
