"""Covers `asr/evaluation/report_text.py`, `asr/evaluation/utterance.py`."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.cells import cell_len

from asr.evaluation.breakdown import Group
from asr.evaluation.error_rate import ErrorCounts, Scores, score
from asr.evaluation.report import EvaluationReport, RunFacts, build_report, to_json
from asr.evaluation.report_folder import write_report
from asr.evaluation.report_text import to_text
from asr.evaluation.utterance import Details
from asr.inference.time_formats import Word
from asr.io.files import read_json

FACTS = RunFacts(
    model="exp/an4",
    parameters=9_300_000,
    manifest="data/test.jsonl",
    manifest_sha256="ab" * 32,
    decoder="greedy",
    audio_seconds=120.0,
    processing_seconds=6.0,
    peak_memory_mib=512.0,
    date="2025-01-31T12:00:00+00:00",
    machine="2 CPU cores",
)
REFERENCES = {
    "u1": "one two three",
    "u2": "four five",
    "u3": "東京 は 晴れ",
    "u4": "",
    "u5": "six",
}
HYPOTHESES = {
    "u1": "one too three four",
    "u2": "four five",
    "u3": "東京 が",
    "u4": "uh",
    "x9": "nothing",
}
SPEAKERS = {"u1": "eve", "u2": "eve", "u3": "伊藤", "u4": "mia", "u5": "mia"}


def built(scores: Scores, speakers: dict[str, str], facts: RunFacts) -> EvaluationReport:
    """The report of a recogniser that is equally sure of every word."""
    details = {
        u.id: Details(
            speaker=speakers[u.id],
            words=tuple(Word(word, 0.0, 0.1, 0.75) for word in u.hypothesis.split()),
        )
        for u in scores.utterances
    }
    return build_report(scores, details, facts)


@pytest.fixture
def report() -> EvaluationReport:
    return built(score(REFERENCES, HYPOTHESES), SPEAKERS, FACTS)


def speaker_groups(report: EvaluationReport) -> tuple[Group, ...]:
    return next(b.groups for b in report.breakdowns if b.title == "speaker")


def lines_after(text: str, start: str, count: int) -> list[str]:
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(start))
    return lines[at + 1 : at + 1 + count]


def test_text_opens_with_the_error_rate() -> None:
    # 46 errors in 773 words: utterances of one word each, so that the counts are plain.
    references = {f"{i:03}": "yes" if i < 773 else "" for i in range(781)}
    wrong = {f"{i:03}": "no" for i in [*range(30), *range(773, 781)]}
    gone = {f"{i:03}": "" for i in range(30, 38)}
    scores = score(references, references | wrong | gone)
    report = built(scores, dict.fromkeys(references, "s"), FACTS)
    first, second, third = to_text(report).splitlines()[:3]
    assert first.startswith("WER 5.95 % (46/773: 30 S, 8 D, 8 I), 95 % interval ")
    low, high = first.split("interval ")[1].split(" to ")
    assert 3.5 < float(low) < 5.0 < 7.0 < float(high) < 8.5
    assert second.startswith("CER ")
    assert third.startswith("SER 5.89 % (46/781 utterances), 95 % interval ")


def test_speakers_add_up_to_the_total(report: EvaluationReport) -> None:
    speakers = speaker_groups(report)
    assert [(group.label, group.utterances) for group in speakers] == [
        ("eve", 2),
        ("mia", 2),
        ("伊藤", 1),
    ]
    assert sum((group.words for group in speakers), ErrorCounts()) == report.scores.words
    characters = sum((group.characters for group in speakers), ErrorCounts())
    assert characters == report.scores.characters
    # mia: one word inserted into silence, one word missing.
    assert speakers[1].words == ErrorCounts(0, 1, 1, 1)


def test_worst_come_first_and_the_faultless_not_at_all(report: EvaluationReport) -> None:
    # u1 and u3 tie in words, u4 and u5 as well: the characters decide (6 to 4, 3 to 2).
    assert [(u.id, u.words.errors) for u in report.worst] == [
        ("u1", 2),
        ("u3", 2),
        ("u5", 1),
        ("u4", 1),
    ]


def test_intervals_hold_the_rates(report: EvaluationReport) -> None:
    scores = report.scores
    for counts, interval in (
        (scores.words, report.wer_interval),
        (scores.characters, report.cer_interval),
        (scores.sentences, report.ser_interval),
    ):
        assert interval is not None
        assert interval[0] < counts.rate < interval[1]


def test_texts_alone_make_a_report() -> None:
    facts = RunFacts("hyp.trn", "ref.trn", "ab" * 32, "2025-01-31")
    report = build_report(score({"u1": "one", "u2": "two"}, {"u1": "one", "u2": "too"}), {}, facts)
    assert (report.speaker_interval, report.calibration.words) == (None, 0)
    text = to_text(report)
    assert "real time" not in text
    assert "Confidence" not in text
    assert to_json(report)["run"]["real_time_factor"] is None


def test_speakers_drawn_anew_give_a_wider_interval() -> None:
    # Every second speaker is misheard all the time: which speakers one asks decides.
    references = {f"{s}-{i}": "yes" for s in range(8) for i in range(20)}
    hypotheses = {name: "no" if int(name[0]) % 2 else "yes" for name in references}
    report = built(score(references, hypotheses), {n: n[0] for n in references}, FACTS)
    assert report.speaker_interval is not None
    low, high = report.speaker_interval
    assert report.wer_interval is not None
    assert low < report.wer_interval[0] < 0.5 < report.wer_interval[1] < high
    assert "Interval over speakers: 95 % interval" in to_text(report)
    assert to_json(report)["wer"]["interval_by_speaker"] == [low, high]


def test_characters_as_units_have_one_rate(tmp_path: Path) -> None:
    scores = score({"u": "東 京 は"}, {"u": "東 京 が"})
    report = build_report(scores, {}, FACTS, units="characters")
    assert to_text(report).startswith("CER 33.33 % (1/3: 1 S, 0 D, 0 I), no interval ")
    assert "WER" not in to_text(report)
    value = to_json(report)
    assert value["cer"]["errors"] == 1
    assert "wer" not in value


def test_json_survives_a_round_trip_and_keeps_its_keys(report: EvaluationReport) -> None:
    value = to_json(report)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["version"] == 2
    assert list(value) == [
        "version",
        "confidence",
        "units",
        "wer",
        "cer",
        "ser",
        "calibration",
        "run",
        "breakdowns",
        "by_training_frequency",
        "confusions",
        "worst",
        "unreadable",
        "columns_left_out",
        "missing",
        "unexpected",
    ]
    counts = ["rate", "errors", "substitutions", "deletions", "insertions", "reference_length"]
    assert list(value["wer"]) == list(value["cer"]) == [*counts, "interval"]
    assert list(value["ser"]) == ["rate", "errors", "utterances", "interval"]
    (speaker, *_) = value["breakdowns"]["speaker"]
    assert list(speaker) == ["label", "utterances", "words", "characters"]
    assert list(value["worst"][0]) == [
        "id",
        "reference",
        "hypothesis",
        "words",
        "characters",
        "alignment",
    ]
    assert list(value["run"]) == [
        "model",
        "manifest",
        "manifest_sha256",
        "date",
        "parameters",
        "decoder",
        "normalisation",
        "audio_seconds",
        "processing_seconds",
        "peak_memory_mib",
        "machine",
        "weights_sha256",
        "real_time_factor",
    ]


def test_json_holds_the_figures(report: EvaluationReport) -> None:
    value = to_json(report)
    assert value["wer"]["errors"] == 6
    assert value["wer"]["reference_length"] == 9
    assert value["wer"]["rate"] == pytest.approx(6 / 9)
    assert report.wer_interval is not None
    assert value["wer"]["interval"] == list(report.wer_interval)
    assert (value["ser"]["errors"], value["ser"]["utterances"]) == (4, 5)
    assert value["run"]["real_time_factor"] == pytest.approx(0.05)
    assert value["missing"] == ["u5"]
    assert value["unexpected"] == ["x9"]
    by_id = {row["id"]: row for row in value["worst"]}
    assert by_id["u5"]["alignment"] == [["D", "six", None]]
    assert by_id["u4"]["alignment"] == [["I", None, "uh"]]


def test_infinite_rates_become_null() -> None:
    scores = score(dict.fromkeys("abcde", ""), {"a": "uh", "b": ""})
    report = built(scores, dict.fromkeys("abcde", "s"), replace(FACTS, audio_seconds=0.0))
    assert report.scores.words.rate == math.inf
    value = to_json(report)
    assert value["wer"]["rate"] is None
    assert value["wer"]["interval"] == [None, None]
    assert value["run"]["real_time_factor"] is None
    json.dumps(value, allow_nan=False)
    assert to_text(report).startswith("WER n/a (1/0: 0 S, 0 D, 1 I), no interval ")


def test_json_lists_only_the_worst() -> None:
    references = {f"u{i:02}": "a " * i for i in range(1, 31)}
    report = built(score(references, {}), dict.fromkeys(references, "s"), FACTS)
    assert [row["id"] for row in to_json(report)["worst"]] == [f"u{i}" for i in range(30, 20, -1)]
    assert len(report.worst) == 30
    text = to_text(report)
    assert "u21: 100.00 %" in text
    assert "u20: 100.00 %" not in text
    assert "all words deleted: u01, u02, u03, u04, u05, u06, u07, u08, u09, u10 and 20 more" in text


def test_text_shows_facts_speakers_and_pairing(report: EvaluationReport) -> None:
    text = to_text(report)
    assert "exp/an4 (9,300,000 parameters)" in text
    assert f"data/test.jsonl (sha256 {'ab' * 32})" in text
    assert "factor 0.050" in text
    assert "no hypothesis, all words deleted: u5\n" in text
    assert "no reference, not scored: x9\n" in text
    # Those with most errors first.
    row = " ".join(lines_after(text, "speaker ", 3)[0].split())
    # Of two utterances there is no interval.
    assert row == "eve 2 5 1 0 1 40.00 27.27"
    header = next(line for line in text.splitlines() if line.startswith("speaker "))
    rows = lines_after(text, "speaker ", 3)
    assert {cell_len(row) for row in rows} == {cell_len(header)}


def test_text_without_errors_is_short() -> None:
    report = built(score({"a": "yes"}, {"a": "yes"}), {"a": "s"}, FACTS)
    text = to_text(report)
    assert text.startswith("WER 0.00 % (0/1: 0 S, 0 D, 0 I), no interval (it takes 5 or more")
    assert "most word errors" not in text
    assert "no hypothesis" not in text
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_number_of_worst_utterances_in_the_text(report: EvaluationReport) -> None:
    assert to_text(report, worst=1).count("  REF ") == 1
    assert to_text(report).count("  REF ") == 4
    assert "REF" not in to_text(report, worst=0)


def test_aligned_rows_in_the_text() -> None:
    scores = score({"u": "one two three"}, {"u": "one too three four"})
    text = to_text(built(scores, {"u": "s"}, FACTS))
    assert lines_after(text, "u: 66.67 % (2/3: 1 S, 0 D, 1 I)", 3) == [
        "  REF one two three ****",
        "  HYP one too three four",
        "          S         I",
    ]


def test_markup_and_signs_appear_as_they_are() -> None:
    reference = "[bold]x[/bold] <b> & 50% {name} \\n ünï"
    scores = score({"[red]id": reference, "b": "x"}, {"[red]id": "", "b": "x"})
    text = to_text(built(scores, {"[red]id": "<s>", "b": "c"}, FACTS))
    assert f"  REF {reference}\n" in text
    assert "\n[red]id: 100.00 %" in text
    assert "\n<s> " in text


def test_no_control_character_reaches_the_text() -> None:
    identity = "bad\n\x1b[2Jid\u2028"
    scores = score({identity: "a\x07b"}, {identity: "\x1b[31mred", "un\rpaired": ""})
    facts = replace(FACTS, machine="a\nb")
    text = to_text(built(scores, {identity: "s\x00"}, facts))
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "bad\\n\\x1b[2Jid\\u2028: 100.00 %" in text


def test_files_of_a_report(report: EvaluationReport, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    write_report(report, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "hypotheses.jsonl",
        "reliability.png",
        "report.html",
        "report.json",
        "report.txt",
    ]
    assert read_json(folder / "report.json") == to_json(report)
    assert (folder / "report.txt").read_text(encoding="utf-8") == to_text(report)


def read_pairs(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_confidence_beside_the_truth(report: EvaluationReport, tmp_path: Path) -> None:
    # 5 of the 9 recognised words are right.
    line = "Confidence: on average 75.0 %, while 55.6 % of 9 recognised words are correct; "
    assert line + "expected calibration error 19.4 %" in to_text(report).splitlines()
    values = to_json(report)["calibration"]
    assert values["error"] == pytest.approx(0.75 - 5 / 9, abs=1e-6)
    assert [row["words"] for row in values["bins"]] == [9]
    write_report(report, tmp_path)
    assert [len(pair["words"]) for pair in read_pairs(tmp_path / "hypotheses.jsonl")] == [
        len(pair["hypothesis"].split()) for pair in read_pairs(tmp_path / "hypotheses.jsonl")
    ]
    with Image.open(tmp_path / "reliability.png") as picture:
        assert min(picture.size) > 500


def test_the_figures_can_be_computed_again(report: EvaluationReport, tmp_path: Path) -> None:
    write_report(report, tmp_path)
    pairs = read_pairs(tmp_path / "hypotheses.jsonl")
    assert [list(pair)[:5] for pair in pairs] == [
        ["id", "reference", "hypothesis", "words", "speaker"]
    ] * 5
    again = score(
        {pair["id"]: pair["reference"] for pair in pairs},
        {pair["id"]: pair["hypothesis"] for pair in pairs},
    )
    assert again.utterances == report.scores.utterances
    assert "東京" in (tmp_path / "hypotheses.jsonl").read_text(encoding="utf-8")


def test_writing_again_replaces_the_report_and_nothing_else(
    report: EvaluationReport, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    write_report(report, tmp_path)
    second = built(score({"a": "yes"}, {"a": "yes"}), {"a": "s"}, FACTS)
    write_report(second, tmp_path)
    assert read_json(tmp_path / "report.json") == to_json(second)
    assert len(read_pairs(tmp_path / "hypotheses.jsonl")) == 1
    assert (tmp_path / "model.safetensors").read_bytes() == b"weights"
    assert len(list(tmp_path.iterdir())) == 6
