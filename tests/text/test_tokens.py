from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asr.errors import AsrError, CheckpointError
from asr.text.tokens import BLANK, BLANK_ID, WORD_START, TokenConfig, Tokens, build_tokens

CHARACTERS = TokenConfig(kind="characters")
WORDS = TokenConfig(kind="words", word_count=2)
CONFIGS = [CHARACTERS, WORDS]
texts = st.lists(st.text(alphabet="abcé' \u3000中", max_size=12), max_size=6)


def test_characters_are_sorted_after_blank_and_word_start() -> None:
    tokens = build_tokens(["ba c", "ab"], CHARACTERS)
    assert tokens.units == (BLANK, WORD_START, "a", "b", "c")
    assert tokens.units[BLANK_ID] == BLANK
    assert len(tokens) == 5
    assert tokens.encode("ab c") == [1, 2, 3, 1, 4]


def test_frequent_words_are_units() -> None:
    tokens = build_tokens(["one two one", "two on"], WORDS)
    assert tokens.units[2:] == ("e", "n", "o", "t", "w", "▁one", "▁two")
    assert [tokens.units[i] for i in tokens.encode("two no")] == ["▁two", "▁", "n", "o"]
    assert tokens.decode(tokens.encode("two no one")) == "two no one"


@given(texts, st.sampled_from(CONFIGS))
def test_round_trip(corpus: list[str], config: TokenConfig) -> None:
    tokens = build_tokens(corpus, config)
    for text in corpus:
        ids = tokens.encode(text)
        assert BLANK_ID not in ids
        assert not tokens.missing(text)
        assert tokens.decode(ids) == " ".join(text.split())
        spelled = tokens.spell(ids)
        assert tokens.decode(spelled) == tokens.decode(ids)
        assert all(len(tokens.units[i]) == 1 for i in spelled)


@given(texts, st.text(alphabet="abcdé▁ <", max_size=10), st.sampled_from(CONFIGS))
@example(["a"], "a▁a", CHARACTERS)
@example(["a a"], "▁a", WORDS)
def test_what_can_be_written_comes_back_and_the_rest_is_missing(
    corpus: list[str], text: str, config: TokenConfig
) -> None:
    tokens = build_tokens(corpus, config)
    missing = tokens.missing(text)
    assert missing <= set(text)
    if missing:
        with pytest.raises(AsrError) as caught:
            tokens.encode(text)
        assert repr("".join(sorted(missing))) in str(caught.value)
        assert repr(text) in str(caught.value)
    else:
        assert tokens.decode(tokens.encode(text)) == " ".join(text.split())


def test_missing_names_characters_of_words_that_are_no_units() -> None:
    tokens = build_tokens(["ten ten", "net"], WORDS)
    assert tokens.missing("ten tax") == {"a", "x"}
    assert tokens.missing("ten net") == set()


def test_the_order_of_transcripts_does_not_matter() -> None:
    corpus = ["one two", "two three", "one"]
    for config in CONFIGS:
        assert build_tokens(corpus, config) == build_tokens(corpus[::-1], config)


def test_the_word_mark_is_refused_in_transcripts() -> None:
    with pytest.raises(AsrError, match=WORD_START):
        build_tokens(["a▁b"], CHARACTERS)


@given(texts, st.sampled_from(CONFIGS))
def test_json_round_trip(corpus: list[str], config: TokenConfig) -> None:
    tokens = build_tokens(corpus, config)
    assert Tokens.from_json(tokens.to_json()) == tokens


@pytest.mark.parametrize(
    "values",
    [None, {}, "ab", [], [1, 2], ["a", BLANK], [BLANK, None], [BLANK, "a", "a"], [BLANK, BLANK]],
)
def test_a_damaged_vocabulary_is_refused(values: Any) -> None:
    with pytest.raises(CheckpointError):
        Tokens.from_json(values)


def test_a_vocabulary_without_the_word_mark_is_an_error_not_a_crash() -> None:
    with pytest.raises(AsrError):
        Tokens.from_json([BLANK, "a"]).encode("a")
