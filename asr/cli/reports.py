"""`asr score`, `asr compare` and `asr report`: error rates of any system."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.errors import ReportError
from asr.io.terminal import show, tell

if TYPE_CHECKING:
    from asr.evaluation.formats import Format
    from asr.evaluation.report import EvaluationReport
    from asr.evaluation.scoring import Scoring

app = typer.Typer()


class Units(StrEnum):
    auto = "auto"
    words = "words"
    characters = "characters"


class TextsFormat(StrEnum):
    trn = "trn"
    kaldi = "kaldi"
    jsonl = "jsonl"
    json = "json"
    csv = "csv"
    tsv = "tsv"
    ctm = "ctm"
    stm = "stm"


Normalise = Annotated[
    str, typer.Option(help="Normalisation: none, english, or a YAML file of rules.")
]
UnitsOption = Annotated[
    Units, typer.Option(help="Scored units; auto: words if spaces separate them.")
]


def _name(format: TextsFormat | None) -> Format | None:
    return None if format is None else format.value


def scoring(normalise: str, units: Units) -> Scoring:
    """The scoring selected by the options."""
    from asr.evaluation.normalise import load_profile
    from asr.evaluation.scoring import Scoring

    profile = load_profile(normalise)
    if units is Units.auto:
        return Scoring(profile)
    return Scoring(profile, "characters" if units is Units.characters else "words")


@app.command(epilog="Example: asr score ref.trn hyp.trn --normalise english --out exp/score")
def score(
    reference: Annotated[Path, typer.Argument(help="Correct texts: a file, or a manifest.")],
    hypothesis: Annotated[Path, typer.Argument(help="Texts of a system.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the report files.")] = None,
    normalise: Normalise = "none",
    units: UnitsOption = Units.auto,
    train: Annotated[
        Path | None,
        typer.Option(help="Training manifest: list errors by frequency of the word."),
    ] = None,
    reference_format: Annotated[
        TextsFormat | None, typer.Option(help="Default: by the file name.")
    ] = None,
    hypothesis_format: Annotated[
        TextsFormat | None, typer.Option(help="Default: by the file name.")
    ] = None,
) -> None:
    """Error rates of any system's texts: trn, Kaldi text, json, jsonl, csv, tsv, ctm, stm."""
    from asr.evaluation.report_folder import write_report
    from asr.evaluation.report_text import to_text
    from asr.evaluation.scoring import score_files

    formats = _name(reference_format), _name(hypothesis_format)
    how = scoring(normalise, units)
    report = score_files(reference, hypothesis, how, formats, train)
    if out is not None:
        write_report(report, out)
    try:
        show(to_text(report))
    finally:  # also if the reader closes the output early
        if out is not None:
            tell(f"report: {out / 'report.html'}")
        _tell_problems(report, how)
    if report.scores.missing or report.scores.unexpected:
        sys.exit(1)


def _tell_problems(report: EvaluationReport, how: Scoring) -> None:
    from asr.evaluation.scoring import errors_of_case

    scores = report.scores
    if case := errors_of_case(scores, how.profile.rules.language):
        tell(
            f"{case} of the errors are only of case: to ignore case, use --normalise with a file "
            "with lowercase: true"
        )
    for ids, what in (
        (scores.missing, "references without hypothesis, counted as deleted"),
        (scores.unexpected, "hypotheses without reference, not counted"),
    ):
        if ids:
            tell(f"error: {len(ids)} {what}: {', '.join(ids)}")


@app.command(epilog="Example: asr compare exp/lstm/test exp/gru/test --out exp/comparison")
def compare(
    reports: Annotated[
        list[Path], typer.Argument(help="Report folders; the first is the baseline.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for comparison.html, .txt and .json.")
    ] = None,
) -> None:
    """Test the significance of differences between systems on one test set, and list them."""
    from asr.evaluation.compare import compare_reports, to_text, write_comparison

    result = compare_reports(reports)
    if out is not None:
        write_comparison(result, out)
    show(to_text(result), end="")
    if out is not None:
        tell(f"comparison: {out / 'comparison.html'}")


@app.command(epilog="Example: asr report exp --out exp/leaderboard.html")
def report(
    folders: Annotated[list[Path], typer.Argument(help="Report folders, or folders of them.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The page, exp/leaderboard.html by default; with --texts, a folder."),
    ] = None,
    texts: Annotated[
        TextsFormat | None,
        typer.Option(help="Write reference and hypothesis of one report for other scoring tools."),
    ] = None,
) -> None:
    """Make a leaderboard of reports: error rate against speed and size; or write texts."""
    if texts is None:
        _make_leaderboard(folders, out or Path("exp/leaderboard.html"))
    else:
        _write_texts(folders, texts, out)


def _make_leaderboard(folders: list[Path], out: Path) -> None:
    from rich.console import Console

    from asr.evaluation.leaderboard import gather, to_tables, write_board

    boards, skipped = gather(folders)
    write_board(boards, out)  # before the tables, since a reader such as head may close the output
    tell(f"leaderboard: {out}")
    for reason in skipped:
        tell(f"left out: {reason}")
    console = Console(highlight=False, markup=False)
    for table in to_tables(boards):
        console.print(table)
        console.print()


def _write_texts(folders: list[Path], format: TextsFormat, out: Path | None) -> None:
    from asr.evaluation.report_folder import read_report
    from asr.evaluation.report_texts import write_report_texts

    if len(folders) != 1 or out is None:
        missing = f"got {len(folders)}" if len(folders) != 1 else "got no --out"
        raise ReportError(
            f"expected one report and a folder with --texts, {missing}: "
            f"asr report REPORT --texts {format.value} --out DIR"
        )
    for file in write_report_texts(read_report(folders[0]), out, format.value):
        show(str(file))
