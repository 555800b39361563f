"""The commands for language models."""

from __future__ import annotations

import json
import re
from pathlib import Path

from asr.dataset.manifest import read_manifest
from tests.commands import Command


def test_a_language_model_from_transcripts(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    lm = tmp_path / "lm.arpa.gz"
    ended = run("lm", "estimate", manifests["train"], "--model", model, "--order", 2, "--out", lm)
    assert ended.status == 0
    assert "n-grams by words" in ended.err
    ended = run("lm", "perplexity", lm, manifests["test"], "--words")
    *rows, summary = ended.out.splitlines()
    assert re.match(r"perplexity \d+\.\d\d, of known words", summary)
    sentences = [utterance.text.split() for utterance in read_manifest(manifests["test"])]
    words = [word for sentence in sentences for word in (*sentence, "</s>")]
    assert [json.loads(row)["word"] for row in rows] == words


def test_a_language_model_of_characters(run: Command, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("ab ba\nab\n")
    lm = tmp_path / "lm"
    assert not run("lm", "estimate", tmp_path / "text.txt", "--characters", "--out", lm).status
    rows = run("lm", "perplexity", lm, tmp_path / "text.txt", "--words").out.splitlines()
    assert [json.loads(row)["word"] for row in rows[:-1]] == [*"▁ab▁ba", "</s>", *"▁ab", "</s>"]


def test_a_word_without_probability(run: Command, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b c\na c\n")
    (tmp_path / "new.txt").write_text("a zzz\n")
    lm = tmp_path / "lm"
    estimated = "lm", "estimate", tmp_path / "text.txt", "--order", "2", "--closed", "--out", lm
    assert run(*estimated).status == 0
    rows = run("lm", "perplexity", lm, tmp_path / "new.txt", "--words").out.splitlines()
    assert json.loads(rows[1])["log10"] is None


def test_prompts_and_words_in_capitals(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    lstm = tmp_path / "lstm"
    texts = [manifests["train"], "--dev", manifests["dev"], "--model", model, "--out", lstm]
    small = ["--set", "epochs=1", "--set", "model.hidden=4"]
    assert run("lm", "train", *texts, *small).status == 0
    sampled = run("lm", "sample", lstm, "--prompt", "LOW  High", "--count", 1)
    assert sampled.out.startswith("low high")
    assert "got 'z' in 'low z'" in run("lm", "sample", lstm, "--prompt", "LOW Z").error()
    (tmp_path / "words.txt").write_text("LOW\nHigh\n")
    audio = read_manifest(manifests["test"])[0].audio
    words = ["--lexicon", tmp_path / "words.txt", "--hot-word", "HIGH=2"]
    heard = run("transcribe", audio, "--model", model, *words)
    assert set(heard.out.split()) <= {"low", "high"}
    assert heard.status == 0
    assert (
        "got 'zoo' with z"
        in run("transcribe", audio, "--model", model, *words[:2], "--hot-word", "Zoo").error()
    )


def test_dev_decides_and_teaches_nothing(
    run: Command, tones: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    manifests, model = tones
    train = ["lm", "train", manifests["train"], "--out", tmp_path / "lstm", "--set", "epochs=1"]
    train += ["--set", "model.hidden=4"]
    for options in ([], ["--model", model]):
        refused = run(*train, "--dev", manifests["test"], *options)
        assert "which its name marks as a test set" in refused.error()
    (tmp_path / "dev.txt").write_text("low zoo\n")
    assert "got 'z' in 'low zoo'" in run(*train, "--dev", tmp_path / "dev.txt").error()
    (tmp_path / "dev.txt").write_text("plow now\n")  # letters of low, high, up and down
    assert run(*train, "--dev", tmp_path / "dev.txt", "--units", "words").status == 0
    units = json.loads((tmp_path / "lstm" / "tokens.json").read_text())
    assert {"▁low", "p", "n"} < set(units)
    assert "▁plow" not in units


def test_nothing_else_is_replaced(run: Command, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b\nb a\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recording.wav").write_bytes(b"voice")
    text = tmp_path / "text.txt"
    for command in (["estimate", "--order", 2], ["train", "--dev", text]):
        for out in (tmp_path / "mine", text):
            ended = run("lm", command[0], text, *command[1:], "--out", out)
            assert "expected a new folder or an earlier one" in ended.error()
    assert (tmp_path / "mine" / "recording.wav").read_bytes() == b"voice"
    assert text.read_text() == "a b\nb a\n"
    again = ["lm", "estimate", text, "--order", 2, "--out", tmp_path / "lm"]
    assert [run(*again).status, run(*again).status] == [0, 0]


def test_language_models_that_cannot_be(run: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "text.txt").write_text("a b\n")
    estimate = ["lm", "estimate", tmp_path / "text.txt", "--out", tmp_path / "lm"]
    assert "an empty text" in run("lm", "estimate", tmp_path / "empty.txt", *estimate[3:]).error()
    assert "at most 4" in run(*estimate, "--order", 5).error()
    assert not (tmp_path / "lm").exists()
    assert "expected a language model, got" in run("lm", "perplexity", tmp_path, "x.txt").error()
    run(*estimate, "--order", 2)
    missing = run("lm", "perplexity", tmp_path / "lm", tmp_path / "none.txt")
    assert "none.txt: expected text, got no such file: correct" in missing.error()
    assert "empty text" in run("lm", "perplexity", tmp_path / "lm", tmp_path / "empty.txt").error()
