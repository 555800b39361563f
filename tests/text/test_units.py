"""Models of every kind of unit: trained on tones, decoded, aligned and checked."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from asr.dataset.manifest import read_manifest, write_manifest
from asr.dataset.speech_dataset import SpeechDataset
from asr.io.files import read_json
from asr.models.bundle import load_bundle
from asr.text.normalise import TextConfig
from asr.text.tokens import WORD_START, TokenConfig, Tokens, build_tokens
from asr.training.prepare import identity
from asr.training.recipe import Recipe
from tests.commands import Command
from tests.tones import RATE, TONE_SECONDS, WORDS, run_quietly, tone_recipe, write_corpus

pytestmark = pytest.mark.usefixtures("no_pictures")

PIECES = {
    "bpe": TokenConfig(kind="bpe", size=18),
    "unigram": TokenConfig(kind="unigram", size=13),
}


def recipe_for(base: Path, tokens: TokenConfig, **model: object) -> Recipe:
    manifests = write_corpus(base, {"train": 40, "dev": 10, "test": 10})
    recipe = tone_recipe(manifests, base / "run", epochs=15, learning_rate=0.02)
    changes = recipe.model.model_copy(update=model)
    return recipe.model_copy(update={"tokens": tokens, "model": changes})


def for_epochs(recipe: Recipe, epochs: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": epochs})})


@pytest.fixture(scope="module", params=PIECES)
def pieces(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a corpus, and in run/model of a model of pieces."""
    base = tmp_path_factory.mktemp(request.param)
    run_quietly(recipe_for(base, PIECES[request.param]))
    return base


def errors(base: Path) -> int:
    return int(read_json(base / "out" / "report.json")["wer"]["errors"])


def test_pieces_are_learnt_and_found_with_what_is_known_of_words(
    run: Command, pieces: Path
) -> None:
    model, test = pieces / "run" / "model", pieces / "test.jsonl"
    tokens = load_bundle(model).tokens
    assert tokens.cut == pieces.name.rstrip("0")
    assert any(len(unit.strip(WORD_START)) > 1 for unit in tokens.units[1:])
    evaluate = ["evaluate", model, test, "--out", pieces / "out"]
    assert run(*evaluate).status == 0
    assert errors(pieces) <= 3
    lm, train = pieces / "lm", pieces / "train.jsonl"
    assert run("lm", "estimate", train, "--model", model, "--out", lm, "--order", 2).status == 0
    (pieces / "words.txt").write_text("\n".join(WORDS))
    for options in (["--lm", lm], ["--lexicon", pieces / "words.txt"], ["--hot-word", "high=2"]):
        assert run(*evaluate, *options).status == 0
        assert errors(pieces) <= 3
    # A word that is in no lexicon is not written, however it is cut.
    (pieces / "words.txt").write_text("low\nhigh\nup\n")
    out = run("transcribe", pieces / "test", "--model", model, "--lexicon", pieces / "words.txt")
    assert {word for line in out.out.splitlines() for word in line.split("\t")[1].split()} == {
        "low",
        "high",
        "up",
    }


def test_words_of_pieces_are_aligned_and_corpora_checked(run: Command, pieces: Path) -> None:
    model, test = pieces / "run" / "model", pieces / "test.jsonl"
    ended = run("check", test, "--model", model)
    assert ended.out.endswith("no problems\n\n"), ended.out
    ended = run("align", model, test, "--format", "ctm")
    assert ended.status == 0
    rows = [line.split() for line in ended.out.splitlines()]
    assert {row[4] for row in rows} <= WORDS.keys()
    for before, after in pairwise(rows):
        if before[0] == after[0]:
            assert float(before[2]) + float(before[3]) <= float(after[2]) + 1e-3
            assert float(after[2]) - float(before[2]) > TONE_SECONDS


def test_a_language_model_of_the_recognisers_pieces(run: Command, pieces: Path) -> None:
    model, lstm = pieces / "run" / "model", pieces / "lstm"
    train = ["lm", "train", pieces / "train.jsonl", "--dev", pieces / "dev.jsonl", "--out", lstm]
    train += ["--set", "epochs=3", "--set", "model.hidden=16"]
    assert run(*train, "--model", model).status == 0
    assert Tokens.from_json(read_json(lstm / "tokens.json")) == load_bundle(model).tokens
    for settings in ([], ["--set", "rescore.every_step=true"]):
        options = ["--rescore", lstm, *settings, "--out", pieces / "out"]
        assert run("evaluate", model, pieces / "test.jsonl", *options).status == 0
        assert errors(pieces) <= 5
    own = [*train, "--units", pieces.name.rstrip("0")]
    assert "expected tokens.size of at most" in run(*own).error()
    assert run(*own, "--size", 13).status == 0
    assert len(read_json(lstm / "tokens.json")["units"]) == 13
    assert run("lm", "perplexity", lstm, pieces / "dev.jsonl", "--words").status == 0


def test_characters_choose_where_words_are_not_written_apart(run: Command, tmp_path: Path) -> None:
    recipe = for_epochs(recipe_for(tmp_path, TokenConfig()), 2)
    said = {"low": "低", "high": "高", "up": "上", "down": "下"}
    for part in ("train", "dev", "test"):
        manifest = tmp_path / f"{part}.jsonl"
        rows = [
            replace(u, text="".join(said[word] for word in u.text.split()))
            for u in read_manifest(manifest)
        ]
        write_manifest(manifest, rows)
    model, shown = run_quietly(recipe)
    characters = sum(len(u.text) for u in read_manifest(tmp_path / "dev.jsonl"))
    info = load_bundle(model).info
    assert (info["dev_words"], info["dev_units"]) == (characters, "characters")
    assert f"/{characters})" in shown
    assert "dev CER" in shown
    assert "dev WER" not in shown
    ended = run("evaluate", model, tmp_path / "test.jsonl", "--out", tmp_path / "out")
    assert ended.out.startswith("CER")
    assert "dev CER, %" in (tmp_path / "out" / "report.html").read_text()
    lm = tmp_path / "lm"
    estimate = ["lm", "estimate", tmp_path / "train.jsonl", "--model", model, "--characters"]
    assert run(*estimate, "--out", lm).status == 0
    assert (
        f"in {characters} characters of dev.jsonl"
        in run("tune", model, tmp_path / "dev.jsonl", "--lm", lm).out
    )


def test_a_spelling_layer_below_pieces_and_a_second_session(tmp_path: Path) -> None:
    recipe = recipe_for(
        tmp_path, PIECES["unigram"], strides=(1,), layers=2, hierarchical_ctc_layer=1
    )
    bundle = load_bundle(run_quietly(for_epochs(recipe, 1))[0])
    assert bundle.model.spelling is not None
    assert bundle.tokens.cut == "unigram"
    # The same pieces are learnt again.
    folder, shown = run_quietly(for_epochs(recipe, 2))
    assert "resumed at epoch 2" in shown
    assert load_bundle(folder).tokens == bundle.tokens


def test_what_other_units_alone_know_is_no_part_of_a_run(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, TokenConfig())
    units = build_tokens(["a"], TokenConfig())
    data = SpeechDataset(read_manifest(recipe.data.train), None, TextConfig(), RATE)

    def known(config: TokenConfig) -> set[str]:
        found = identity(recipe.model_copy(update={"tokens": config}), units, data, data)
        return {key for key in found if key.startswith("tokens.")}

    assert known(TokenConfig()) == {"tokens.kind", "tokens.word_count", "tokens.units"}
    assert "tokens.size" in known(PIECES["bpe"])
    assert "tokens.espeak" in known(TokenConfig(kind="phones", espeak="de"))
