"""Decoders: what a model's folder holds, what one asks for, and what goes wrong.

Covers `asr/decoding/config.py`, `asr/decoding/folder.py`, `asr/decoding/rescoring.py`,
`asr/lm/words.py`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.folder import load_decoder, remove_decoder, save_decoder, with_hot_words
from asr.errors import CheckpointError, ConfigError, LanguageModelError
from asr.io.files import write_json
from asr.lm.estimate import estimate
from asr.lm.storage import save_ngram
from asr.lm.words import BOOST, parse_hot_words, read_hot_words, read_word_list
from asr.models.attention_decoder import Attended
from asr.padded import Padded
from asr.text.tokens import BLANK, WORD_START, Tokens

TOKENS = Tokens((BLANK, WORD_START, "a", "b"))
MODEL = estimate(["a b", "a b", "b a b"], 2)


def heard(*frames: dict[str, float]) -> Padded:
    """Frames in which units have so large a share, and the rest is spread."""
    values = torch.full((1, len(frames), len(TOKENS)), 1e-3)
    for row, frame in zip(values[0], frames, strict=True):
        for unit, share in frame.items():
            row[TOKENS.units.index(unit)] = share
    return Padded((values / values.sum(dim=2, keepdim=True)).log(), torch.tensor([len(frames)]))


# "a", and then a word that is a little more like "a" than like "b".
A_AND_A_OR_B = heard({"▁": 1}, {"a": 1}, {"▁": 1}, {"a": 0.52, "b": 0.48})


def test_without_a_file_decoding_is_greedy(tmp_path: Path) -> None:
    decoder = load_decoder(tmp_path, TOKENS)
    assert decoder.description == "greedy"
    assert decoder.texts(A_AND_A_OR_B) == ["a a"]


class _Listener:
    """In place of an attention decoder: a wrong last token costs ten nats."""

    def __init__(self, last: str) -> None:
        self.last = TOKENS.units.index(last)

    def score(self, frames: Padded, log_probs: Padded, tokens: Padded) -> torch.Tensor:
        ends = [int(row[-1]) if len(row) else 0 for row in tokens.unpad()]
        return torch.tensor([0.0 if end == self.last else -10.0 for end in ends])


def attended(scores: Padded, last: str) -> Attended:
    return Attended(scores.values, scores.lengths, scores, _Listener(last))  # type: ignore[arg-type]


def test_an_attention_decoder_ranks_the_texts_of_the_beam(tmp_path: Path) -> None:
    scores = attended(A_AND_A_OR_B, "b")
    plain, own = (
        load_decoder(tmp_path, TOKENS, overrides=[f"attention_weight={weight}"], kind="beam")
        for weight in (0, 0.5)
    )
    assert own.description == "beam 32, attention decoder for rescoring, weight 0.5"
    before, after = plain.n_best(scores, 32)[0], own.n_best(scores, 32)[0]
    assert (before[0].text, after[0].text) == ("a a", "a b")
    assert own.texts(scores) == ["a b"]
    assert own.n_best(scores, 1)[0] == after[:1]
    expected = [row.score - (0 if row.text.endswith("b") else 5) for row in before]
    assert [row.score for row in after] == pytest.approx(sorted(expected, reverse=True))
    # Its confidences are those of the new order, also if texts and beam come from one search.
    (sure,) = own.hypotheses(scores)
    assert sure == own.hypotheses(scores, *own.first_search(scores))[0]
    assert sure.text == "a b"
    assert sure.confidences[1] > plain.hypotheses(scores)[0].confidences[1]
    # Streams and exported models have none, greedy decoding asks none.
    assert own.texts([A_AND_A_OR_B.values[0].numpy()]) == ["a a"]
    greedy = load_decoder(tmp_path, TOKENS, "greedy", overrides=["attention_weight=0.5"])
    assert greedy.texts(scores) == ["a a"]


def test_an_attention_decoder_adds_to_language_models(tmp_path: Path) -> None:
    save_ngram(tmp_path / "given.arpa", MODEL)
    settings = ["attention_weight=1"]
    decoder = load_decoder(tmp_path, TOKENS, lm=tmp_path / "given.arpa", overrides=settings)
    assert decoder.texts(attended(A_AND_A_OR_B, "a")) == ["a a"]
    assert decoder.texts(attended(A_AND_A_OR_B, "b")) == ["a b"]


def test_a_model_without_an_attention_decoder_is_told(tmp_path: Path) -> None:
    decoder = load_decoder(tmp_path, TOKENS, overrides=["attention_weight=0.5"])
    with pytest.raises(ConfigError, match=r"got one without: set it to 0, or train with model\."):
        decoder.texts(A_AND_A_OR_B)


def test_a_language_model_asks_for_a_beam(tmp_path: Path) -> None:
    save_ngram(tmp_path / "given.arpa", MODEL)
    decoder = load_decoder(tmp_path, TOKENS, lm=tmp_path / "given.arpa")
    assert decoder.description == "beam 32, 2-gram of 5 words or characters, weight 0.5"
    assert decoder.texts(A_AND_A_OR_B) == ["a b"]
    greedy = load_decoder(tmp_path, TOKENS, "greedy")
    assert greedy.texts(A_AND_A_OR_B) == ["a a"]


def test_a_closed_model_of_weight_0_forbids_nothing(tmp_path: Path) -> None:
    save_ngram(tmp_path / "closed.arpa", estimate(["b b"], 2, closed=True))
    settings = ["language.weight=0", "language.unknown_score=0"]
    lm = tmp_path / "closed.arpa"
    decoder = load_decoder(tmp_path, TOKENS, lm=lm, overrides=settings)
    assert decoder.texts(A_AND_A_OR_B) == load_decoder(tmp_path, TOKENS).texts(A_AND_A_OR_B)


def test_a_lexicon_and_hot_words(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("b\nbb\n\n")
    decoder = load_decoder(tmp_path, TOKENS, lexicon=tmp_path / "words.txt")
    assert set(decoder.texts(A_AND_A_OR_B)[0].split()) <= {"b", "bb"}
    assert "lexicon of 2 words" in decoder.description
    decoder = load_decoder(tmp_path, TOKENS, hot_words={"b": 1.0})
    assert decoder.texts(A_AND_A_OR_B) == ["a b"]
    assert "1 hot words" in decoder.description


def test_words_are_spelled_as_the_model_writes(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("B\nb\nBB\n")
    decoder = load_decoder(
        tmp_path,
        TOKENS,
        lexicon=tmp_path / "words.txt",
        hot_words={"B": 2.0},
        overrides=["hot_words.BB=1"],
        normalise=str.lower,
    )
    assert decoder.lexicon == ("b", "bb")
    assert decoder.config.hot_words == {"b": 2.0, "bb": 1.0}
    with pytest.raises(LanguageModelError, match="got 'bc' with c"):
        load_decoder(tmp_path, TOKENS, hot_words={"BC": 1.0}, normalise=str.lower)


def test_what_is_saved_is_normalised_once(tmp_path: Path) -> None:
    """As by a model of phones, which cannot convert its own phones."""
    phones = {"bee": "b b", "ay": "a", "abe": "a b"}

    def pronounce(text: str) -> str:
        if missing := [word for word in text.split() if word not in phones]:
            raise LanguageModelError(f"expected words of the lexicon, got {', '.join(missing)}")
        return " ".join(phones[word] for word in text.split())

    (tmp_path / "decoder.json").write_text('{"kind": "beam", "hot_words": {"bee": 3}}')
    first = load_decoder(tmp_path, TOKENS, normalise=pronounce)
    save_decoder(tmp_path, first)
    again = load_decoder(tmp_path, TOKENS, normalise=pronounce)
    assert again.config.hot_words == first.config.hot_words == {"b b": 3.0}
    more = with_hot_words(again, {"abe": 2.0}, pronounce)
    assert more.config.hot_words == {"b b": 3.0, "a b": 2.0}
    (tmp_path / "decoder.json").write_text('{"hot_words": {"bee": 3}}')  # greedy, until words come
    greedy = load_decoder(tmp_path, TOKENS, normalise=pronounce)
    assert with_hot_words(greedy, {"abe": 2.0}, pronounce).config == more.config


def test_what_is_saved_is_the_folders_own(tmp_path: Path) -> None:
    config = DecoderConfig(kind="beam", hot_words={"ab": 2.0}, tuned="dev")
    config = config.model_copy(update={"beam": config.beam.model_copy(update={"size": 7})})
    save_decoder(tmp_path, Decoder(TOKENS, config, MODEL, ("a", "ab")))
    decoder = load_decoder(tmp_path, TOKENS)
    assert decoder.config == config.model_copy(update={"parts": ("lm", "lexicon.txt")})
    assert decoder.lexicon == ("a", "ab")
    assert decoder.ngram is not None
    assert decoder.ngram.vocabulary == MODEL.vocabulary
    changed = load_decoder(tmp_path, TOKENS, overrides=["beam.size=9", "language.weight=0.1"])
    assert (changed.config.beam.size, changed.config.language.weight) == (9, 0.1)
    assert changed.config.hot_words == {"ab": 2.0}
    more = load_decoder(tmp_path, TOKENS, hot_words={"a": 1.0})
    assert more.config.hot_words == {"ab": 2.0, "a": 1.0}
    assert load_decoder(tmp_path, TOKENS, "greedy").description == "greedy"


def test_what_is_saved_is_all_there_is(tmp_path: Path) -> None:
    beam = DecoderConfig(kind="beam")
    save_decoder(tmp_path, Decoder(TOKENS, beam, MODEL, ("a", "ab")))
    save_decoder(tmp_path, Decoder(TOKENS, beam, MODEL))
    assert {path.name for path in tmp_path.iterdir()} == {"decoder.json", "lm"}
    assert load_decoder(tmp_path, TOKENS).lexicon is None
    remove_decoder(tmp_path)
    assert not list(tmp_path.iterdir())
    remove_decoder(tmp_path)
    assert load_decoder(tmp_path, TOKENS).description == "greedy"


def test_hot_words_by_line(tmp_path: Path) -> None:
    lines = ["ab", "", "ba 2.5", "new  york 3", "route 66\t4", "route 66=5 ", "area 51", "my nan\r"]
    (tmp_path / "hot.txt").write_text("\n".join(lines[:5]))
    assert read_hot_words(tmp_path / "hot.txt") == {
        "ab": BOOST,
        "ba": 2.5,
        "new york": 3,
        "route 66": 4,
    }
    (tmp_path / "hot.txt").write_text("\n".join(lines[5:]))
    assert read_hot_words(tmp_path / "hot.txt") == {"route 66": 5, "area": 51, "my nan": BOOST}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ab=x", "expected a boost of at most 1000 nats for 'ab', got 'x'"),
        ("a b=", "nats for 'a b', got ''"),
        ("=3", "expected a word or phrase, got none in '=3'"),
        ("a b 1001", "nats for 'a b', got '1001'"),
        ("ok -1", "expected each hot word or phrase once, got 'ok' twice"),
    ],
)
def test_lines_that_are_no_hot_words(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "hot.txt").write_text(f"ok\n{line}\n")
    with pytest.raises(LanguageModelError, match=message) as error:
        read_hot_words(tmp_path / "hot.txt")
    assert str(error.value).startswith(f"{tmp_path / 'hot.txt'}:2: ")


def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\ufeffespoo\n", encoding="utf-8")
    assert read_hot_words(tmp_path / "words.txt") == {"espoo": BOOST}
    assert read_word_list(tmp_path / "words.txt") == ("espoo",)


def test_hot_words_with_a_mark() -> None:
    given = ["ab", "ba=2.5", "new york", "new  york city=-3", "area 51"]
    assert parse_hot_words(given, "--hot-word") == {
        "ab": BOOST,
        "ba": 2.5,
        "new york": BOOST,
        "new york city": -3,
        "area 51": BOOST,
    }
    for option in ("=3", "ab=", "ab=b", "", " ", "\u200b", "ab=1=2=", "ab=1e4"):
        with pytest.raises(LanguageModelError, match=r"^--hot-word: expected a "):
            parse_hot_words([option], "--hot-word")


def test_a_phrase_of_several_words(tmp_path: Path) -> None:
    write_json(tmp_path / "decoder.json", {"kind": "beam", "hot_words": {"b b": 1, "a b": 1}})
    decoder = load_decoder(tmp_path, TOKENS, hot_words={"A B": 2.0}, normalise=str.lower)
    assert decoder.config.hot_words == {"b b": 1, "a b": 2}
    assert decoder.texts(A_AND_A_OR_B) == ["a b"]
    assert decoder.hypotheses(A_AND_A_OR_B)[0].confidences[1] > 0.5


def test_phrases_that_are_none(tmp_path: Path) -> None:
    for phrase, message in [
        ("B c", "hot word 'B c': expected words of the model's characters, got 'b c' with c"),
        ("", "hot word '': expected words .* got '' with nothing in it"),
    ]:
        with pytest.raises(LanguageModelError, match=message):
            load_decoder(tmp_path, TOKENS, hot_words={phrase: 1.0}, normalise=str.lower)
    with pytest.raises(LanguageModelError, match=r"got 'A b' and 'a B', .* alike \('a b'\)"):
        load_decoder(tmp_path, TOKENS, hot_words={"A b": 1.0, "a B": 2}, normalise=str.lower)
    with pytest.raises(ConfigError, match=r"hot_words\.a b: input should be less than"):
        load_decoder(tmp_path, TOKENS, hot_words={"a b": 1e4})


def test_a_line_of_a_lexicon_is_one_word(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("ab\tAH B\n \nba \t0.5\tB AH\nab\tAE B\n")
    assert read_word_list(tmp_path / "words.txt") == ("ab", "ba")
    for line in ("new york", "hello HH AH L OW", "new york\tN Y"):
        (tmp_path / "words.txt").write_text(f"ab\n{line}\n")
        with pytest.raises(LanguageModelError, match=r"words\.txt:2: expected one word, got '"):
            read_word_list(tmp_path / "words.txt")


def test_settings_that_are_none(tmp_path: Path) -> None:
    for override, message in [("beam.sise=3", "did you mean 'size'"), ("beam.size=0", "beam.size")]:
        with pytest.raises(ConfigError, match=message):
            load_decoder(tmp_path, TOKENS, overrides=[override])
    for text in ("", "[]", '{"kind": "wide"}', "1"):
        (tmp_path / "decoder.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"decoder\.json: expected settings") as error:
            load_decoder(tmp_path, TOKENS)
        assert str(error.value).count("decoder.json") == 1
        assert "; tune the model again" in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match="expected a lexicon, got no such file: correct"):
        read_word_list(tmp_path / "none.txt")
    with pytest.raises(LanguageModelError, match="expected hot words, got a folder: correct"):
        read_hot_words(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"\xe4")
    with pytest.raises(LanguageModelError, match="got text that is not UTF-8: correct"):
        read_word_list(tmp_path / "latin.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(LanguageModelError, match="a word per line, got none"):
        read_word_list(tmp_path / "empty.txt")
    with pytest.raises(LanguageModelError, match="no such file"):
        load_decoder(tmp_path, TOKENS, lm=tmp_path / "none.arpa")
    (tmp_path / "decoder.json").write_text(json.dumps({"kind": "beam"}))
    (tmp_path / "lm").mkdir()
    with pytest.raises(LanguageModelError, match="expected a language model, got"):
        load_decoder(tmp_path, TOKENS)


def test_words_that_cannot_be_written_are_told_at_once() -> None:
    with pytest.raises(LanguageModelError, match="got 'abc' with c"):
        Decoder(TOKENS, DecoderConfig(kind="beam"), lexicon=("abc",))


def test_a_word_of_a_lexicon_that_cannot_be_written_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\n\n-\n")
    with pytest.raises(
        LanguageModelError, match=r"words\.txt:3: expected words of .* got '-' with"
    ):
        load_decoder(tmp_path, TOKENS, lexicon=tmp_path / "words.txt")


def test_a_greedy_decoder_is_not_given_what_it_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which uses none"):
        load_decoder(tmp_path, TOKENS, "greedy", hot_words={"a": 1.0})


@pytest.mark.parametrize("option", ["a=nan", "a=inf", "a=1e400", "a=1_0"])
def test_boosts_are_finite(option: str) -> None:
    with pytest.raises(LanguageModelError, match="a boost of at most 1000 nats for 'a'"):
        parse_hot_words([option], "--hot-word")


def test_a_language_model_in_another_case_is_told() -> None:
    with pytest.raises(LanguageModelError, match="estimate it with --model"):
        Decoder(TOKENS, DecoderConfig(kind="beam"), estimate(["A B", "B A"], 2))


def test_a_folder_that_was_not_copied_whole_is_told(tmp_path: Path) -> None:
    save_decoder(tmp_path, Decoder(TOKENS, DecoderConfig(kind="beam"), MODEL))
    shutil.move(tmp_path / "lm", tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="copy the model's folder whole"):
        load_decoder(tmp_path, TOKENS)
    load_decoder(tmp_path, TOKENS, lm=tmp_path / "elsewhere")
    load_decoder(tmp_path, TOKENS, "greedy")
