"""Reports read back, compared, gathered, and their texts written.

Covers `asr/evaluation/leaderboard.py`, `asr/evaluation/report_texts.py`, `asr/cli/reports.py`,
`asr/evaluation/summary.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from asr.errors import ReportError
from asr.evaluation.compare import (
    compare_reports,
    holm,
    short_names,
    to_text,
    verdict,
    write_comparison,
)
from asr.evaluation.error_rate import score
from asr.evaluation.leaderboard import gather, ranks, write_board
from asr.evaluation.report import RunFacts, build_report, to_json
from asr.evaluation.report_folder import check_writable, read_report, write_report
from asr.evaluation.report_texts import write_report_texts
from asr.evaluation.utterance import Details
from asr.inference.time_formats import Word
from asr.io.files import read_json, write_json
from tests.commands import Command

pytestmark = pytest.mark.usefixtures("no_pictures")

REFERENCES = {f"u{i:02}": f"one two three w{i}" for i in range(40)}
Writer = Callable[..., Path]


def heard(wrong: int) -> dict[str, str]:
    """The last word of the first `wrong` utterances is misheard."""
    return {
        name: text.rsplit(" ", 1)[0] + (" x" if i < wrong else f" w{i}")
        for i, (name, text) in enumerate(REFERENCES.items())
    }


@pytest.fixture
def saved(tmp_path: Path) -> Writer:
    def save(
        name: str,
        hypotheses: dict[str, str],
        references: dict[str, str] = REFERENCES,
        **facts: object,
    ) -> Path:
        known = {
            "model": name,
            "manifest": "test.jsonl",
            "manifest_sha256": "cd" * 32,
            "date": "2025-02-03T10:00:00+00:00",
            "parameters": 1_000_000,
            "audio_seconds": 100.0,
            "processing_seconds": 2.0,
        }
        details = {
            u: Details(
                speaker=u[-1],
                seconds=2.0,
                audio=tmp_path / "wav" / f"{u}.wav",
                words=tuple(
                    Word(word, 0.25 * k, 0.25 * k + 0.2, 0.9) for k, word in enumerate(text.split())
                ),
                columns={"room": u[1]},
            )
            for u, text in hypotheses.items()
        }
        report = build_report(
            score(references, hypotheses),
            details,
            RunFacts(**{**known, **facts}),  # type: ignore[arg-type]
        )
        write_report(report, tmp_path / name / "test")
        return tmp_path / name / "test"

    return save


def test_a_report_comes_back_as_it_was(saved: Writer, tmp_path: Path) -> None:
    folder = saved("a", heard(7))
    report = read_report(folder)
    assert report.scores.words.errors == 7
    assert report.facts.parameters == 1_000_000
    known = report.details["u03"]
    assert known.audio == tmp_path / "wav" / "u03.wav"
    assert (known.speaker, known.seconds, known.columns) == ("3", 2.0, {"room": "0"})
    assert known.words[1] == Word(known.words[1].text, 0.25, 0.45, 0.9)
    assert " ".join(word.text for word in known.words) == heard(7)["u03"]
    # The manifest's own columns become a breakdown.
    assert [row["label"] for row in read_json(folder / "report.json")["breakdowns"]["room"]] == [
        "0",
        "1",
        "2",
        "3",
    ]


def test_the_picture_of_an_earlier_report_is_removed(saved: Writer, tmp_path: Path) -> None:
    folder = saved("one", heard(1))
    (folder / "reliability.png").write_bytes(b"of another system")
    report = read_report(folder)
    unsure = {name: replace(known, words=()) for name, known in report.details.items()}
    write_report(build_report(report.scores, unsure, report.facts), folder)
    assert not (folder / "reliability.png").exists()


def test_what_is_not_readable_is_written_printably(saved: Writer) -> None:
    report = read_report(saved("one", heard(1)))
    unreadable = {"u00": "caf\udce9/a.wav: no such file"}
    made = build_report(report.scores, report.details, report.facts, unreadable=unreadable)
    json.dumps(to_json(made), ensure_ascii=False).encode()


def test_what_cannot_be_read_is_told_in_one_line(saved: Writer, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"report\.json, got .*no/such: name the --out"):
        read_report(tmp_path / "no" / "such")
    folder = saved("a", heard(7))
    lines = (folder / "hypotheses.jsonl").read_text().splitlines()
    # As many errors, but not all of the text: a file that was cut.
    (folder / "hypotheses.jsonl").write_text("\n".join(lines[:30]))
    with pytest.raises(ReportError, match=r"report\.json, 7 of 160, got 7 of 120 from hypotheses"):
        read_report(folder)
    (folder / "hypotheses.jsonl").write_text("\n".join([lines[0], lines[0]]))
    with pytest.raises(ReportError, match=r"hypotheses\.jsonl:2: expected a new id, got u00"):
        read_report(folder)
    (folder / "hypotheses.jsonl").write_text('{"id": "a"}')
    with pytest.raises(ReportError, match=r"hypotheses\.jsonl:1: reference: field required"):
        read_report(folder)
    (folder / "hypotheses.jsonl").write_text("")
    with pytest.raises(ReportError, match="at least one utterance"):
        read_report(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"version": 99}', "expected version 1 to 2, got 99"),
        ('{"accuracy": 0.9}', "expected a report of asr evaluate, got another file"),
        ('{"version": 2, "wer": null, "cer": [1]}', "cer: input should be a valid dictionary"),
        ("[" * 100_000, "expected JSON, got something else"),
        ("{", "expected JSON, got something else"),
    ],
)
def test_damaged_figures_are_told(
    saved: Writer, content: str, message: str, tmp_path: Path
) -> None:
    folder = saved("a", heard(7))
    (folder / "report.json").write_text(content)
    with pytest.raises(ReportError, match=message):
        read_report(folder)
    # They do not keep the others from the leaderboard.
    saved("good", heard(3))
    boards, (skipped,) = gather([tmp_path])
    assert [entry.name for entry in boards[0].entries] == ["test"]
    assert re.search(message, skipped)


def test_a_folder_that_cannot_be_written_is_told_before_all_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ReportError, match="expected a folder to write the report into"):
            check_writable(place)
    assert (tmp_path / "file").read_text() == "mine"
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_better_system_is_told_from_chance(saved: Writer, tmp_path: Path) -> None:
    result = compare_reports([saved("base", heard(20)), saved("better", heard(5))])
    (pair,) = result.pairs
    assert (pair.first, pair.second) == ("base", "better")
    assert pair.bootstrap.difference == pytest.approx(-15 / 160)
    assert pair.bootstrap.interval is not None
    assert pair.bootstrap.interval[1] < 0
    assert pair.matched.segments == 20
    text = to_text(result)
    assert "better against base: -9.38 points" in text
    assert "better is better\n" in text
    assert len(result.contrasts) == 15
    assert all(contrast.spread == 1 for contrast in result.contrasts)
    write_comparison(result, tmp_path / "out")
    value = read_json(tmp_path / "out" / "comparison.json")
    assert value["pairs"][0]["matched_pairs"]["segments"] == 20
    assert [row["errors"] for row in value["utterances"][:2]] == [[1, 0], [1, 0]]
    assert (tmp_path / "out" / "comparison.txt").read_text() == text
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert re.search(r"<del class=\"S\">\s*w19</del>", page)


def test_evidence_never_counts_against_the_better_system(saved: Writer) -> None:
    # 300 commands of one word; one system errs in so many of them, the other in none.
    words = {f"u{i:03}": ("yes", "no", "stop", "go")[i % 4] for i in range(300)}
    perfect = saved("perfect", words, words)
    for errors in (4, 49, 50):
        wrong = dict.fromkeys(list(words)[:errors], "wrong")
        bad = saved(f"bad{errors}", words | wrong, words)
        (pair,) = compare_reports([bad, perfect]).pairs
        assert (verdict(pair) == "perfect is better") == (errors > 5)
        assert ("too little data" in verdict(pair)) == (errors < 5)


def test_one_utterance_has_no_interval_and_no_p_value(saved: Writer, tmp_path: Path) -> None:
    said = {"u1": "a b c d"}
    result = compare_reports([saved("x", {"u1": "a b c x"}, said), saved("y", said, said)])
    text = to_text(result)
    assert "95 % interval n/a" in text
    assert "-25.00 points (n/a), paired bootstrap p n/a, matched pairs (MAPSSWE) p n/a" in text
    assert "too little data" in text
    write_comparison(result, tmp_path / "out")
    pair = read_json(tmp_path / "out" / "comparison.json")["pairs"][0]
    assert pair["paired_bootstrap"]["interval"] is pair["paired_bootstrap"]["p_value"] is None


def test_small_differences_are_no_verdict(saved: Writer) -> None:
    result = compare_reports([saved("a", heard(6)), saved("b", heard(7)), saved("c", heard(6))])
    assert len(result.pairs) == 3
    assert to_text(result).count("no significant difference") == 3
    assert "p-values are Holm-adjusted for 3 pairs." in to_text(result)


def test_only_like_is_compared_with_like(saved: Writer) -> None:
    base = saved("base", heard(5))
    fewer = {name: text for name, text in REFERENCES.items() if name != "u07"}
    other = saved("fewer", {n: t for n, t in heard(5).items() if n in fewer}, fewer)
    with pytest.raises(ReportError, match=r"1 only in .*base/test \(u07\)"):
        compare_reports([base, other])
    changed = REFERENCES | {"u03": "one two three four"}
    with pytest.raises(ReportError, match=r"others in 1 utterances.*u03.*'one two three four'"):
        compare_reports([base, saved("changed", heard(5), changed)])
    with pytest.raises(ReportError, match=r"same normalisation, got 'none .*' and 'english'"):
        compare_reports([base, saved("english", heard(5), normalisation="english")])
    with pytest.raises(ReportError, match="at least two"):
        compare_reports([base])


def test_rates_without_end_break_nothing(saved: Writer, tmp_path: Path) -> None:
    references = {"a1": "", "b1": "", "c1": "one"}
    heard = {"a1": "uh", "b1": "", "c1": "one"}
    folders = [saved(name, heard, references) for name in ("x", "y")]
    silent = saved("z", {"a1": "uh"}, {"a1": ""}, manifest="silence.jsonl")
    write_comparison(compare_reports(folders), tmp_path / "out")
    systems = read_json(tmp_path / "out" / "comparison.json")["systems"]
    assert systems[0]["words"]["interval"] == [None, None]
    boards, _ = gather([*folders, silent])
    write_board(boards, tmp_path / "board.html")
    assert "n/a" in (tmp_path / "board.html").read_text()


def test_equal_systems_share_their_rank_and_a_folder_counts_once(
    saved: Writer, tmp_path: Path
) -> None:
    folders = [saved("a", heard(3)), saved("b", heard(3)), saved("c", heard(5))]
    (board,), _ = gather([*folders, tmp_path / "a" / ".." / "b"])
    assert ranks(board) == [1, 1, 3]


def test_other_spellings_of_the_references_are_another_board(saved: Writer) -> None:
    upper = {name: text.upper() for name, text in REFERENCES.items()}
    boards, _ = gather([saved("a", heard(3)), saved("b", heard(3), upper)])
    assert len(boards) == 2


def test_reports_of_before_compare_with_those_of_now(saved: Writer) -> None:
    old, new = saved("old", heard(3)), saved("new", heard(5))
    figures = read_json(old / "report.json")
    del figures["run"]["normalisation"], figures["units"]
    write_json(old / "report.json", figures | {"version": 1})
    assert compare_reports([old, new]).pairs[0].bootstrap.difference == pytest.approx(2 / 160)


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names([Path("x/a/test"), Path("x/a/dev")]) == ["test", "dev"]
    assert short_names([Path("x/a"), Path("x/a/b")]) == ["a", "b"]
    assert short_names([Path("x/a/r/1"), Path("x/b/s/1")]) == ["a/r", "b/s"]


def test_holm_never_shrinks_a_p_value() -> None:
    values = [0.2, 0.001, 0.04, 0.9]
    adjusted = holm(values)
    assert all(p >= before for before, p in zip(values, adjusted, strict=True) if p is not None)
    assert adjusted == pytest.approx([0.4, 0.004, 0.12, 0.9])


def test_leaderboard_ranks_within_a_test_set(saved: Writer, tmp_path: Path) -> None:
    saved("slow", heard(9))
    saved("fast", heard(3), processing_seconds=1.0)
    other = {name: f"{text} more" for name, text in REFERENCES.items()}
    saved("elsewhere", other, other, manifest="other.jsonl")
    boards, skipped = gather([tmp_path])
    assert skipped == []
    ranked = {board.manifest: [entry.name for entry in board.entries] for board in boards}
    assert ranked == {"test.jsonl": ["fast", "slow"], "other.jsonl": ["elsewhere"]}
    write_board(boards, tmp_path / "board.html")
    page = (tmp_path / "board.html").read_text()
    assert page.count('<svg class="chart"') == 4
    assert "0.0100" in page
    with pytest.raises(ReportError, match=r"expected a report in .*wav or below, got none"):
        gather([tmp_path / "wav"])
    _, skipped = gather([tmp_path / "slow", tmp_path / "absent"])
    assert len(skipped) == 1
    assert f"in {tmp_path / 'absent'} or below, got none" in skipped[0]


@pytest.mark.parametrize("format", ["trn", "kaldi", "csv", "jsonl"])
def test_texts_go_out_and_come_back(saved: Writer, tmp_path: Path, format: str) -> None:
    from asr.evaluation.formats import read_pair

    report = read_report(saved("a", heard(7)))
    reference, hypothesis = write_report_texts(report, tmp_path / "out", format)  # type: ignore[arg-type]
    assert read_pair(reference, hypothesis) == (REFERENCES, heard(7))


def test_times_go_out_and_come_back(saved: Writer, tmp_path: Path) -> None:
    from asr.evaluation.scoring import Scoring, score_files

    report = read_report(saved("a", heard(7)))
    reference, hypothesis = write_report_texts(report, tmp_path / "out", "ctm")
    assert (reference.name, hypothesis.name) == ("reference.stm", "hypothesis.ctm")
    assert hypothesis.read_text().splitlines()[1].split()[:5] == [
        "u00",
        "1",
        "0.250",
        "0.200",
        "two",
    ]
    again = score_files(reference, hypothesis, Scoring())
    assert again.scores.words == report.scores.words
    assert {row.speaker for row in again.details.values()} == set("0123456789")
    rows = [json.loads(line) for line in (report.folder / "hypotheses.jsonl").open()]
    rows[4]["words"] = []
    (report.folder / "hypotheses.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ReportError, match="expected the times of all words, got none for u04"):
        write_report_texts(read_report(report.folder), tmp_path / "out", "stm")


def test_texts_of_one_report_by_the_command(saved: Writer, tmp_path: Path, run: Command) -> None:
    report, out = saved("a", heard(7)), tmp_path / "out"
    ended = run("report", report, "--texts", "kaldi", "--out", out)
    assert ended.status == 0
    assert ended.out.splitlines() == [str(out / "reference.txt"), str(out / "hypothesis.txt")]
    assert (
        "expected one report and a folder with --texts, got no --out"
        in run("report", report, "--texts", "trn").error()
    )
    both = run("report", report, report, "--texts", "trn", "--out", tmp_path / "more")
    assert "got 2: asr report REPORT --texts trn --out DIR" in both.error()
    assert not (tmp_path / "more").exists()


def test_where_nothing_was_heard_no_times_go_out(saved: Writer, tmp_path: Path) -> None:
    report = read_report(saved("a", dict.fromkeys(REFERENCES, "")))
    with pytest.raises(ReportError, match="expected words for ctm, got none recognised"):
        write_report_texts(report, tmp_path / "out", "ctm")
    assert not (tmp_path / "out").exists()
