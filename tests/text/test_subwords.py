"""Pieces of words: cut as sentencepiece cuts, and every text comes back, in any script."""

from __future__ import annotations

import contextlib
import io
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from asr.errors import AsrError, CheckpointError
from asr.text.normalise import TextConfig, normalise
from asr.text.subwords import likeliest, merge
from asr.text.tokens import BLANK, BLANK_ID, WORD_START, TokenConfig, Tokens, build_tokens

KINDS: tuple[Literal["bpe", "unigram"], ...] = ("bpe", "unigram")
SCRIPTS = {
    "german": [
        "die straße führt über den fluß",
        "die straßenbahn fährt über die brücke",
        "übermorgen führen wir die bahn über die straße",
    ],
    "persian": [
        "می\u200cخواهم به خانه بروم",
        "نمی\u200cخواهم به خانه\u200cی او بروم",
        "کتاب\u200cهای او در خانه است",
    ],
    "mandarin": ["我想打开客厅的灯", "请打开客厅的灯", "我想关上卧室的门", "请关上客厅的门"],
    "thai": ["เปิดไฟในห้องนั่งเล่น", "ปิดไฟในห้องนอน", "เปิดประตูห้องนอน"],
    "hindi": ["मुझे घर जाना है", "मुझे हिन्दी में लिखना है", "घर में कौन है"],
    # Marks that have no composed form, which normalisation leaves apart.
    "marks": ["q\u0303a q\u0303o", "a\u0331\u0301q\u0303 o\u0331", "q\u0303a q\u0303a o\u0331"],
    "odd": ["a\u2585b a\u2585b", "<blank> <blank> <unk> <unk>", "a\0b a\0b", "0 10 100 a1b2"],
}


def written(script: str) -> list[str]:
    return [normalise(text, TextConfig()) for text in SCRIPTS[script]]


def in_pieces(texts: list[str], kind: Literal["bpe", "unigram"], more: int = 8) -> Tokens:
    """Units of the characters and up to so many more."""
    least = 2 + len({c for text in texts for c in text if c != " "})
    for size in range(least + more, least, -1):
        with contextlib.suppress(AsrError):
            return build_tokens(texts, TokenConfig(kind=kind, size=size))
    return build_tokens(texts, TokenConfig(kind=kind, size=least))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_comes_back(script: str, kind: Literal["bpe", "unigram"]) -> None:
    texts = written(script)
    tokens = in_pieces(texts, kind)
    for text in texts:
        ids = tokens.encode(text)
        assert BLANK_ID not in ids
        assert tokens.decode(ids) == text
        assert tokens.decode(tokens.spell(ids)) == text
        # Every word is cut by itself, and its first unit alone has the mark.
        assert ids == [i for word in text.split() for i in tokens.encode(word)]
        starts = [tokens.units[i].startswith(WORD_START) for i in ids]
        assert sum(starts) == len(text.split())
    assert Tokens.from_json(tokens.to_json()) == tokens


@settings(max_examples=50)
@given(
    st.lists(st.text(alphabet="abcé' \u3000中\u200c\u0301म\u093f", max_size=12), max_size=6),
    st.text(alphabet="abcdé▁ <\u200c\u0301中", max_size=10),
    st.sampled_from(KINDS),
)
def test_what_can_be_written_comes_back_and_the_rest_is_missing(
    corpus: list[str], text: str, kind: Literal["bpe", "unigram"]
) -> None:
    corpus = [normalise(row, TextConfig()) for row in [*corpus, "a"]]
    tokens = in_pieces(corpus, kind, 4)
    assert tokens == in_pieces(corpus[::-1], kind, 4)
    for row in corpus:
        assert tokens.decode(tokens.encode(row)) == row
    missing = tokens.missing(text)
    assert missing <= set(text)
    if missing:
        with pytest.raises(AsrError, match="expected characters of the vocabulary"):
            tokens.encode(text)
    else:
        assert tokens.decode(tokens.encode(text)) == " ".join(text.split())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", ["german", "persian", "mandarin"])
def test_cuts_are_those_of_sentencepiece(script: str, kind: Literal["bpe", "unigram"]) -> None:
    texts = written(script)
    tokens = in_pieces(texts, kind, 12)
    file = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(texts)),
        model_writer=file,
        model_type=kind,
        vocab_size=len(tokens),
        normalization_rule_name="identity",
        character_coverage=1.0,
        split_by_unicode_script=False,
        split_by_number=False,
        bos_id=-1,
        eos_id=-1,
        minloglevel=3,
    )
    peer = SentencePieceProcessor(model_proto=file.getvalue())
    characters = "".join(sorted({c for text in texts for c in text}))
    for text in [*texts, characters, characters[::-1], texts[0] + texts[1]]:
        own = [tokens.units[i] for i in tokens.encode(text)]
        assert own == peer.encode(text, out_type=str)


def test_a_merge_and_the_likeliest_cut() -> None:
    assert merge("aaa", {"a": 0, "aa": 1}) == [1, 0]  # the leftmost of equals
    ids = {"a": 0, "b": 1, "ab": 2, "aba": 3}
    assert likeliest("aba", ids, {"a": -1.0, "b": -1.0, "ab": -1.2, "aba": -3.0}) == [2, 0]
    assert likeliest("", ids, {"a": -1.0}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_size_that_cannot_be_is_refused_with_one_that_can(
    kind: Literal["bpe", "unigram"],
) -> None:
    texts = written("german")
    with pytest.raises(AsrError, match=r"tokens.size of at most (\d+)") as caught:
        build_tokens(texts, TokenConfig(kind=kind))
    largest = int(str(caught.value).split("at most ")[1].split(",")[0])
    assert len(build_tokens(texts, TokenConfig(kind=kind, size=largest))) == largest
    with pytest.raises(AsrError, match=r"tokens.size of (\d+) or more") as caught:
        build_tokens(texts, TokenConfig(kind=kind, size=3))
    least = int(str(caught.value).split("size of ")[1].split(" ")[0])
    assert len(build_tokens(texts, TokenConfig(kind=kind, size=least))) == least
    with pytest.raises(AsrError, match="expected transcripts"):
        build_tokens([" "], TokenConfig(kind=kind))


START = [BLANK, WORD_START, "a", "b"]


@pytest.mark.parametrize(
    "values",
    [
        {"units": [*START, "ab"], "cut": "other"},
        {"cut": "bpe"},
        {"units": [*START, "ac"], "cut": "bpe"},
        {"units": [*START, "a▁b"], "cut": "bpe"},
        {"units": [*START, ""], "cut": "bpe"},
        {"units": [*START, "ab"], "cut": "bpe", "scores": [0.0] * 5},
        {"units": [*START, "ab"], "cut": "unigram"},
        {"units": [*START, "ab"], "cut": "unigram", "scores": [0.0, 0.0, 0.0, 0.0, float("nan")]},
        {"units": [*START, "ab"], "cut": "unigram", "scores": [0.0] * 4},
        {"units": [*START, "ab"], "cut": "bpe", "more": 1},
    ],
)
def test_damaged_pieces_are_refused(values: object) -> None:
    with pytest.raises(CheckpointError):
        Tokens.from_json(values)
