"""Models of phones: transcripts become phones, and all that follows knows nothing of words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asr.config import parse
from asr.dataset.manifest import read_manifest, write_manifest
from asr.errors import AsrError, ConfigError, ManifestError
from asr.io.files import read_json
from asr.models.bundle import load_bundle
from asr.text.normalise import TextConfig, as_units, normalise
from asr.text.phones import Phones, read_lexicon, to_phones
from asr.text.tokens import BLANK, WORD_START, TokenConfig, build_tokens
from asr.training.recipe import Recipe, read_recipe
from tests.commands import Command
from tests.tones import run_quietly, tone_recipe, write_corpus

pytestmark = pytest.mark.usefixtures("no_pictures")

# Every tone of the corpus is a phone.
LEXICON = "low\tA B\nhigh  D E\nhigh X X\n\n;;; a comment\nup B2 E2\nDown  E3 B3\nmore A A\n"


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    return path


def test_a_lexicon_is_spelled_as_transcripts_are(lexicon: Path) -> None:
    tokens = TokenConfig(kind="phones", lexicon=lexicon)
    text = as_units(TextConfig(case="upper"), tokens, ["low High"])
    assert normalise("Low  down HIGH", text) == "A B E3 B3 D E"
    with pytest.raises(AsrError, match="expected words of the lexicon, got NO, SO"):
        normalise("no low so", text)
    units = build_tokens([normalise("low high", text)], tokens)
    assert units.units == (BLANK, WORD_START, "▁A", "▁B", "▁D", "▁E")
    ids = units.encode("A E")
    assert units.decode(ids) == "A E"
    assert units.spell(ids) == ids
    assert units.missing("A B2") == {"B", "2"}
    assert as_units(TextConfig(), TokenConfig(), ["low"]) == TextConfig()


def test_missing_words_are_named(lexicon: Path) -> None:
    only = TokenConfig(kind="phones", lexicon=lexicon)
    words = [f"w{i:02}" for i in range(12)]
    with pytest.raises(AsrError) as caught:
        as_units(TextConfig(), only, ["low", " ".join(words)])
    assert "got 12 without: w00, w01" in str(caught.value)
    assert "w09 and 2 more: add them to it, or set tokens.espeak" in str(caught.value)


def test_espeak_says_what_the_lexicon_lacks(lexicon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = TokenConfig(kind="phones", lexicon=lexicon, espeak="en-us")
    text = as_units(TextConfig(), both, ["low hello"])
    assert normalise("low hello", text) == "A B h ə l oʊ"
    assert normalise("yes low", text) == "j ɛ s A B"  # not in training: said when it comes
    alone = as_units(TextConfig(), TokenConfig(kind="phones", espeak="de"), ["ja"])
    assert normalise("Ja", alone) == "j ɑː"
    with pytest.raises(AsrError, match=r"espeak-ng, got 1 without: \.\.\.: remove them"):
        as_units(TextConfig(), TokenConfig(kind="phones", espeak="en-us"), ["no ..."])
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert normalise("low hello", text) == "A B h ə l oʊ"  # kept from training
    with pytest.raises(AsrError, match=r"pip install 'lstm-asr\[demo\]'"):
        normalise("unheard", text)


def test_comments_of_the_cmu_dictionary_are_no_phones(tmp_path: Path) -> None:
    path = tmp_path / "cmudict.dict"
    path.write_text(";;; # CMUdict\naalborg AO1 L B # place, danish\n  # more\nread(2) R EH1 D\n")
    assert read_lexicon(path, str.lower) == {"aalborg": "AO1 L B", "read": "R EH1 D"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("low A\nhigh\n", r"lexicon.txt:2: .*got 'high' alone"), (b"\xff", "expected a lexicon")],
)
def test_a_bad_lexicon(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ManifestError, match=message):
        read_lexicon(path, str.lower)
    with pytest.raises(ManifestError, match="expected a lexicon"):
        read_lexicon(tmp_path / "none.txt", str.lower)


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    base = {"data": {"train": "a", "dev": "b"}, "out": "c"}
    for changes, message in (
        ({"tokens": {"kind": "phones"}}, "got neither"),
        ({"tokens": {"espeak": "de"}}, "got kind characters"),
        ({"text": {"phones": {"words": {}}}}, "got text.phones"),
        (
            {"tokens": {"kind": "phones", "espeak": "de"}, "model": {"hierarchical_ctc_layer": 1}},
            "not spe",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(Recipe, base | changes, "recipe")
    path = tmp_path / "recipe.yaml"
    path.write_text("data: {train: a, dev: b}\nout: c\ntokens: {kind: phones, lexicon: l.txt}\n")
    assert read_recipe(path).tokens.lexicon == tmp_path / "l.txt"


def test_unknown_words_have_no_phones() -> None:
    with pytest.raises(AsrError, match="got b"):
        to_phones("a b", Phones(words={"a": "x", "b": ""}))


def test_a_model_of_phones(run: Command, tmp_path: Path, lexicon: Path) -> None:
    manifests = write_corpus(tmp_path, {"train": 40, "dev": 10, "test": 10})
    recipe = tone_recipe(
        manifests, tmp_path / "run", epochs=12, learning_rate=0.03, batch_seconds=2.5
    )
    recipe = recipe.model_copy(update={"tokens": TokenConfig(kind="phones", lexicon=lexicon)})
    model, _ = run_quietly(recipe)
    lexicon.unlink()  # the folder keeps what it needs
    bundle = load_bundle(model)
    assert bundle.normalise("low up") == "A B B2 E2"
    words = sum(len(u.text.split()) for u in read_manifest(manifests["test"]))
    assert run("evaluate", model, manifests["test"], "--out", tmp_path / "out").status == 0
    phones = read_json(tmp_path / "out" / "report.json")["wer"]
    assert phones["reference_length"] == 2 * words
    assert phones["errors"] <= 6
    lm, lstm = tmp_path / "lm", tmp_path / "lstm"
    estimate = ["--model", model, "--out", lm]
    assert run("lm", "estimate", manifests["train"], *estimate).status == 0
    train = ["lm", "train", manifests["train"], "--dev", manifests["dev"], "--model", model]
    train += ["--out", lstm, "--set", "epochs=1", "--set", "model.hidden=8"]
    assert run(*train).status == 0
    assert run("lm", "sample", lstm, "--prompt", "low", "--count", "1").out.startswith("A B")
    options = ["--lm", lm, "--rescore", lstm]
    assert run("transcribe", tmp_path / "test", "--model", model, *options).status == 0
    ended = run("align", model, manifests["test"], "--format", "ctm")
    assert len(ended.out.splitlines()) == 2 * words
    odd = [u.__class__(u.id, u.audio, "no", u.duration) for u in read_manifest(manifests["test"])]
    write_manifest(tmp_path / "odd.jsonl", odd[:1])
    odd_words = "test00: expected words of the lexicon, got no"
    assert odd_words in run("align", model, tmp_path / "odd.jsonl").error()
    assert odd_words in run("evaluate", model, tmp_path / "odd.jsonl").error()
    assert odd_words in run("lm", "estimate", tmp_path / "odd.jsonl", *estimate).error()
    ended = run("check", tmp_path / "odd.jsonl", "--model", model)
    assert "words without phones: 1" in ended.out
    assert run("check", manifests["test"], "--model", model).status == 0


def test_a_word_with_an_apostrophe_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "cmudict.txt"
    path.write_text(
        "'CAUSE  K AH0 Z\n'GAIN  G EH1 N\nCAUSE  K AA1 Z\nCAUSE(2)  K AO1 Z\nGAIN  G EY1 N\n"
        "'TIS  T IH1 Z\n"
    )
    found = read_lexicon(path, lambda word: normalise(word, TextConfig(punctuation="remove")))
    assert found == {"cause": "K AA1 Z", "gain": "G EY1 N", "tis": "T IH1 Z"}
