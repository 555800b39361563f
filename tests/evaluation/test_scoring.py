"""`asr score` on the texts of other systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr.dataset.manifest import Utterance, write_manifest
from asr.errors import TranscriptError
from asr.evaluation.normalise import load_profile
from asr.evaluation.scoring import Scoring, guess_units, score_files
from asr.io.files import read_json
from tests.commands import Command


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    reference, hypothesis = tmp_path / "ref.trn", tmp_path / "text"
    reference.write_text("turn it off (a)\nstop now (b)\n(c)\n")
    hypothesis.write_text("a turn off\nb stop how\nc uh\n")
    return reference, hypothesis


def test_any_format_against_any(texts: tuple[Path, Path]) -> None:
    report = score_files(*texts, Scoring())
    words = report.scores.words
    assert (words.substitutions, words.deletions, words.insertions) == (1, 1, 1)
    assert words.reference_length == 5
    assert (report.facts.parameters, report.facts.decoder) == (None, "")


def test_the_report_is_written_and_names_what_has_no_partner(
    run: Command, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    reference, hypothesis = texts
    ended = run("score", reference, hypothesis, "--out", tmp_path / "out")
    assert ended.status == 0
    assert ended.out.startswith("WER 60.00 % (3/5: 1 S, 1 D, 1 I)")
    assert (tmp_path / "out" / "report.html").is_file()
    assert not (tmp_path / "out" / "reliability.png").exists()
    hypothesis.write_text("a turn it off\nx no\ny no\n")
    ended = run("score", reference, hypothesis)
    assert ended.status == 1
    assert "error: 2 references without hypothesis, counted as deleted: b, c\n" in ended.err
    assert "error: 2 hypotheses without reference, not counted: x, y\n" in ended.err


def test_texts_of_different_sets_are_no_error_rate(texts: tuple[Path, Path]) -> None:
    reference, hypothesis = texts
    hypothesis.write_text("x turn it off\n")
    with pytest.raises(TranscriptError, match="share, got none, such as 'a' and 'x'"):
        score_files(reference, hypothesis, Scoring())


def test_a_name_that_tells_no_format_needs_an_option(
    run: Command, texts: tuple[Path, Path], tmp_path: Path
) -> None:
    odd = texts[1].rename(tmp_path / "output.log")
    assert "expected a name that" in run("score", texts[0], odd).error()
    assert run("score", texts[0], odd, "--hypothesis-format", "kaldi").status == 0


def test_both_sides_pass_the_normaliser(tmp_path: Path) -> None:
    reference, hypothesis = tmp_path / "ref.trn", tmp_path / "hyp.trn"
    reference.write_text("We're ten colours. (a)\n")
    hypothesis.write_text("we are 10 colors (a)\n")
    assert score_files(reference, hypothesis, Scoring()).scores.words.errors == 4
    report = score_files(reference, hypothesis, Scoring(load_profile("english")))
    assert report.scores.words.errors == 0
    assert report.facts.normalisation.startswith("english (whisper-normalizer ")


def test_errors_of_case_are_named(run: Command, texts: tuple[Path, Path]) -> None:
    reference, hypothesis = texts
    hypothesis.write_text("a TURN IT OFF\nb STOP NOW\nc\n")
    ended = run("score", reference, hypothesis)
    assert "5 of the errors are only of case" in ended.err


def test_characters_count_for_texts_without_blanks(run: Command, tmp_path: Path) -> None:
    (tmp_path / "ref.csv").write_text("id,text\na,今天天气很好\n", encoding="utf-8")
    (tmp_path / "hyp.csv").write_text("id,text\na,今天 天汽好\n", encoding="utf-8")
    out = tmp_path / "out"
    ended = run(
        "score", tmp_path / "ref.csv", tmp_path / "hyp.csv", "--units", "characters", "--out", out
    )
    assert ended.out.startswith("CER 33.33 % (2/6: 1 S, 1 D, 0 I)")
    assert read_json(out / "report.json")["units"] == "characters"
    assert "今天天气很好" not in (out / "hypotheses.jsonl").read_text(encoding="utf-8")


def test_a_manifest_brings_speakers_and_training_words(run: Command, tmp_path: Path) -> None:
    manifest, train = tmp_path / "test.jsonl", tmp_path / "train.jsonl"
    rows = [
        Utterance("a", tmp_path / "a.wav", "stop", 1.0, "eve", extra={"room": "hall"}),
        Utterance("b", tmp_path / "b.wav", "go on", 2.0, "ann", extra={"room": "car"}),
    ]
    write_manifest(manifest, rows)
    write_manifest(train, [Utterance("t", tmp_path / "t.wav", "go go stop", 1.0, "bob")])
    (tmp_path / "hyp.trn").write_text("stop (a)\ngo in (b)\n")
    out = tmp_path / "out"
    assert run("score", manifest, tmp_path / "hyp.trn", "--train", train, "--out", out).status == 0
    figures = read_json(out / "report.json")
    assert {"speaker", "room"} <= figures["breakdowns"].keys()
    rates = {row["label"]: row["wrong"] for row in figures["by_training_frequency"]}
    assert rates == {"never": 1, "1 to 9 times": 0}
    assert '"a":"../a.wav"' in (out / "report.html").read_text()


def test_an_empty_reference_counts_insertions_alone(tmp_path: Path) -> None:
    (tmp_path / "ref.trn").write_text("(a)\n(b)\n")
    (tmp_path / "hyp.trn").write_text("uh (a)\n(b)\n")
    scores = score_files(tmp_path / "ref.trn", tmp_path / "hyp.trn", Scoring()).scores
    assert (scores.words.insertions, scores.words.reference_length) == (1, 0)
    assert scores.words.rate == float("inf")


@pytest.mark.parametrize(
    ("texts", "units"),
    [
        (["turn it off", "stop"], "words"),
        (["yes", "no"], "words"),  # one word each: no spaces, and yet words
        (["打开客厅的灯", "关上 iPhone"], "characters"),
        (["打开 客厅 的 灯", "请 关上 卧室 的 门"], "words"),
        (["電気をつけて", "ドアを閉めて"], "characters"),
        (["เปิดไฟในห้องนั่งเล่น", "ปิดไฟในห้องนอน เปิดประตู"], "characters"),
        (["불을 켜 줘", "문을 닫아"], "words"),
        (["می\u200cخواهم به خانه بروم"], "words"),
        (["die straße führt"], "words"),
        (["", " "], "words"),
        ([], "words"),
    ],
)
def test_units_are_guessed_from_the_references(texts: list[str], units: str) -> None:
    assert guess_units(texts) == units


def test_characters_come_first_where_words_are_not_written_apart(
    run: Command, tmp_path: Path
) -> None:
    (tmp_path / "ref.csv").write_text("id,text\na,打开客厅的灯\nb,请关门\n", encoding="utf-8")
    (tmp_path / "hyp.csv").write_text("id,text\na,打开客厅 的门\nb,请关门\n", encoding="utf-8")
    texts = ["score", tmp_path / "ref.csv", tmp_path / "hyp.csv"]
    assert run(*texts).out.startswith("CER 11.11 % (1/9: 1 S, 0 D, 0 I)")
    assert run(*texts, "--units", "words").out.startswith("WER 100.00 % (2/2: ")
