"""Recurrent language models: probabilities that add up, training, storage, use in decoding.

Covers `asr/training/train_lm.py`, `asr/io/error_console.py`.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.config import parse
from asr.decoding.config import RescoreConfig
from asr.decoding.folder import load_decoder, save_decoder
from asr.decoding.rescoring import Scored, rescored, text_scores
from asr.errors import AsrError, CheckpointError, ConfigError, LanguageModelError, TrainingError
from asr.io.error_console import ErrorConsole
from asr.io.files import locked
from asr.lm.estimate import estimate
from asr.lm.neural import NeuralConfig, NeuralLm, NeuralModel, load_neural, save_neural
from asr.lm.ngram import measure_perplexity
from asr.lm.storage import save_ngram
from asr.padded import pad
from asr.text.tokens import TokenConfig, Tokens, build_tokens
from asr.training.interrupt import InterruptedTraining
from asr.training.train_lm import (
    LanguageTraining,
    _validate,
    train_language_model,
    word_nats,
)
from tests.commands import Command

TEXT = ["one two", "one two three", "two three", "three four one", "four"] * 6
WORDS = build_tokens(TEXT, TokenConfig(kind="words", word_count=1))
SMALL = NeuralConfig(hidden=16, dropout=0.0)


def untrained(tokens: Tokens = WORDS, **settings: object) -> NeuralLm:
    torch.manual_seed(0)
    config = SMALL.model_copy(update=settings)
    return NeuralLm(NeuralModel(config, len(tokens)).eval(), tokens)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> NeuralLm:
    out = tmp_path_factory.mktemp("lstm")
    config = LanguageTraining(model=SMALL, epochs=30, batch_units=32, learning_rate=0.02)
    return train_language_model(TEXT, TEXT[:5], WORDS, config, out / "lm")


@pytest.mark.parametrize("cell", ["layer_norm", "light_gru", "projected"])
def test_cells_that_normalise_their_input_or_project_are_refused(cell: str) -> None:
    with pytest.raises(ConfigError, match=f"nor has a projection, got {cell}"):
        parse(NeuralConfig, {"cell": cell}, "lm")


def test_every_next_unit_has_its_share() -> None:
    lm = untrained(layers=2)
    ids = pad([lm.encode("one two three"), lm.encode("four")])
    scores, _ = lm.model(ids)
    assert scores.values.exp().sum(dim=2).detach().numpy() == pytest.approx(
        np.ones((2, 5)), abs=1e-5
    )


def test_batches_and_steps_give_the_same() -> None:
    lm = untrained(layers=2)
    sentences = ["one two three four", "two", "three four"]
    alone = [lm.score([sentence])[0] for sentence in sentences]
    assert lm.score(sentences) == pytest.approx(alone, abs=1e-4)
    total, states = 0.0, None
    ids = lm.encode(sentences[0])
    for before, after in itertools.pairwise(ids):
        scores, states = lm.model(pad([before[None]]), states)
        total += scores.values[0, 0, after].item()
    assert total == pytest.approx(alone[0], abs=1e-4)


def test_words_add_up_to_the_sentence() -> None:
    tokens = build_tokens(["one two"], TokenConfig())
    lm = untrained(tokens)
    scores = lm.score_sentence(["two", "one"])
    assert [score.word for score in scores] == ["two", "one", "</s>"]
    assert math.fsum(score.log_prob for score in scores) == pytest.approx(lm.score(["two one"])[0])
    found = measure_perplexity(lm, [["two", "one"]])
    assert math.log(found.perplexity) == pytest.approx(word_nats(lm, ["two one"]))


def test_it_learns_what_follows(trained: NeuralLm) -> None:
    perplexity = math.exp(word_nats(trained, TEXT[:5]))
    assert trained.info["dev_perplexity"] == pytest.approx(perplexity, 1e-3)
    # Five sentences, of which each is foretold by its first word.
    assert word_nats(trained, TEXT) < math.log(2.3) < word_nats(untrained(), TEXT)
    likely, unlikely = trained.score(["one two three", "three two one"])
    assert likely > unlikely + 3


def test_a_training_that_diverges_is_told(tmp_path: Path) -> None:
    config = LanguageTraining(model=SMALL, epochs=2, learning_rate=1e6, warmup=0.0)
    with pytest.raises(TrainingError, match=r"expected a finite .* lower the learning rate"):
        train_language_model(TEXT, TEXT[:5], WORDS, config, tmp_path / "lm")
    assert not (tmp_path / "lm").exists()


def test_an_epoch_that_nobody_reads_of_is_saved(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    config = LanguageTraining(model=SMALL, epochs=2)
    with os.fdopen(writing, "w") as unread:
        console = ErrorConsole(file=unread)
        with pytest.raises(InterruptedTraining):
            train_language_model(TEXT, TEXT[:5], WORDS, config, tmp_path / "lm", console)
    assert load_neural(tmp_path / "lm").info["epoch"] == 1


def test_samples_follow_prompt_and_temperature(trained: NeuralLm) -> None:
    def samples(temperature: float, count: int, prompt: str = "") -> list[str]:
        random = torch.Generator().manual_seed(1)
        return [trained.sample(prompt, temperature, random) for _ in range(count)]

    assert samples(1.0, 5) == samples(1.0, 5)
    known = sum(text in TEXT for text in samples(0.5, 40)) / 40
    assert known > 0.9 > sum(text in TEXT for text in samples(5.0, 40)) / 40
    assert all(text.startswith("three four") for text in samples(1.0, 5, "three four"))
    assert len(trained.sample("one", 10.0, torch.Generator(), longest=3).split()) <= 3
    with pytest.raises(LanguageModelError, match="expected characters"):
        trained.sample("zebra", 1.0, torch.Generator())


def test_whole_on_disk(trained: NeuralLm, tmp_path: Path) -> None:
    save_neural(tmp_path / "lm", trained)
    loaded = load_neural(tmp_path / "lm")
    assert loaded.score(TEXT[:5]) == trained.score(TEXT[:5])
    assert loaded.info == trained.info
    weights = tmp_path / "lm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="copy it again"):
        load_neural(tmp_path / "lm")
    facts = json.loads((tmp_path / "lm" / "lstm.json").read_text())
    (tmp_path / "lm" / "lstm.json").write_text(json.dumps(facts | {"format": 7}))
    with pytest.raises(CheckpointError, match="of format 1"):
        load_neural(tmp_path / "lm")


def test_texts_are_ranked_anew(trained: NeuralLm, tmp_path: Path) -> None:
    found = [[Scored("three two one", -1.0), Scored("one two three", -2.0)], [Scored("", 0.0)]]
    scores = text_scores(trained, found)
    (best, _), (nothing,) = rescored(found, scores, RescoreConfig(weight=1.0, word_bonus=0.5))
    assert best.text == "one two three"
    assert best.score == pytest.approx(-2.0 + scores[best.text] + 1.5)
    assert nothing.score == pytest.approx(scores[""])
    unchanged = rescored(found, scores, RescoreConfig(weight=0.0, word_bonus=0.0))
    assert unchanged == found
    # A decoder with the model in its folder does the same.
    save_neural(tmp_path / "given", trained)
    with pytest.raises(LanguageModelError, match="give it as --rescore"):
        load_decoder(tmp_path, WORDS, lm=tmp_path / "given")
    decoder = load_decoder(tmp_path, WORDS, rescore=tmp_path / "given")
    save_decoder(tmp_path, decoder)
    again = load_decoder(tmp_path, WORDS)
    assert "for rescoring" in again.description
    torch.manual_seed(1)
    log_probs = pad([torch.randn(12, len(WORDS)).log_softmax(dim=1)])
    rows = again.n_best(log_probs, 8)[0]
    assert again.texts(log_probs) == [rows[0].text]
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)


def test_other_language_models_are_told(trained: NeuralLm, tmp_path: Path) -> None:
    for name in ("lm", "lm.arpa", "lm.arpa.gz"):
        save_ngram(tmp_path / name, estimate(TEXT, 2))
        with pytest.raises(LanguageModelError, match="holds n-grams: give it as --lm"):
            load_decoder(tmp_path / "model", WORDS, rescore=tmp_path / name)
    with pytest.raises(CheckpointError, match=r"none without lstm\.json: correct the path"):
        load_decoder(tmp_path / "model", WORDS, rescore=tmp_path / "none")
    # One that lacks characters would stop in the middle of the recordings.
    save_neural(tmp_path / "lstm", trained)
    more = build_tokens([*TEXT, "six zebras"], TokenConfig())
    with pytest.raises(LanguageModelError, match="one without 'abisxz': train it with"):
        load_decoder(tmp_path / "model", more, rescore=tmp_path / "lstm")
    fewer = build_tokens(["one two"], TokenConfig())
    load_decoder(tmp_path / "model", fewer, rescore=tmp_path / "lstm")


def test_at_every_step(trained: NeuralLm, tmp_path: Path) -> None:
    save_neural(tmp_path / "given", trained)
    settings = ["rescore.every_step=true", "rescore.weight=2", "rescore.word_bonus=0"]
    decoder = load_decoder(tmp_path, WORDS, rescore=tmp_path / "given", overrides=settings)
    torch.manual_seed(1)
    # Nothing is heard: what is written is what the language model expects.
    (row,) = decoder.n_best(pad([torch.zeros(8, len(WORDS)).log_softmax(dim=1)]), 1)
    assert row[0].text in TEXT
    save_ngram(tmp_path / "lm", estimate(TEXT, 2))
    with pytest.raises(ConfigError, match=r"expected a recurrent .* with rescore\.every_step"):
        load_decoder(tmp_path, WORDS, overrides=settings)
    with pytest.raises(ConfigError, match="leave them out"):
        load_decoder(
            tmp_path, WORDS, rescore=tmp_path / "given", overrides=settings, hot_words={"one": 1.0}
        )


def test_the_commands(run: Command, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXT))
    lm = tmp_path / "lstm"
    settings = ["--set", "epochs=3", "--set", "model.hidden=8"]
    arguments = [tmp_path / "text.txt", "--dev", tmp_path / "text.txt", "--out", lm, *settings]
    ended = run("lm", "train", *arguments, "--units", "words")
    assert ended.status == 0
    assert ended.err.count("dev perplexity") == 3
    assert all(ended.err.splitlines())
    assert len(run("lm", "sample", lm, "--count", 4).out.splitlines()) == 4
    lines = run("lm", "perplexity", lm, tmp_path / "text.txt", "--words").out.splitlines()
    assert len(lines) == sum(len(line.split()) + 1 for line in TEXT) + 1
    assert lines[-1].startswith("perplexity ")
    (tmp_path / "empty.txt").write_text("\n")
    arguments[0] = tmp_path / "empty.txt"
    assert "expected sentences" in run("lm", "train", *arguments).error()
    arguments[0] = tmp_path / "text.txt"
    assert "at epochs" in run("lm", "train", *arguments, "--set", "epochs=0").error()
    assert "lstm.json" in run("lm", "sample", tmp_path).error()


def test_a_second_training_of_a_model_is_refused(tmp_path: Path) -> None:
    config = LanguageTraining(model=SMALL, epochs=1)
    with (
        locked(tmp_path / "lm.training" / ".lock", "training"),
        pytest.raises(AsrError, match="no other training to run"),
    ):
        train_language_model(TEXT, TEXT[:5], WORDS, config, tmp_path / "lm")
    train_language_model(TEXT, TEXT[:5], WORDS, config, tmp_path / "lm")
    assert [path.name for path in tmp_path.iterdir()] == ["lm"]


def test_a_line_without_spaces_is_no_divergence() -> None:
    lm = untrained(build_tokens(["甲乙丙丁" * 99], TokenConfig()))
    values, text = _validate(lm, ["甲乙丙丁" * 299])
    assert math.isfinite(values["dev_nats"])
    assert (values["dev_perplexity"], text) == (None, "dev perplexity inf a word")
