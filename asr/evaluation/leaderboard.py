"""Many reports on one page: error rate against speed and size, one table a test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from markupsafe import Markup
from rich.table import Table

from asr.errors import ReportError
from asr.evaluation.charts import Point, scatter
from asr.evaluation.compare import short_names
from asr.evaluation.error_rate import bootstrap_interval
from asr.evaluation.page import environment, percent
from asr.evaluation.report_folder import Saved, read_report
from asr.files import atomic_path


@dataclass(frozen=True)
class Entry:
    """A report under its short name, with the interval of its error rate."""

    name: str
    report: Saved
    interval: tuple[float, float]


@dataclass(frozen=True)
class Board:
    """Reports that can be compared: one test set, scored in one way. The best comes first."""

    manifest: str
    units: str
    normalisation: str
    utterances: int
    entries: tuple[Entry, ...]

    @property
    def main(self) -> str:
        return "WER" if self.units == "words" else "CER"


def gather(folders: Sequence[str | Path]) -> tuple[Board, ...]:
    """Read reports, also those in folders below the ones that are named.

    Raises ReportError where none is found or one cannot be read.
    """
    paths = []
    for folder in map(Path, folders):
        found = sorted(path.parent for path in folder.rglob("report.json"))
        if not found:
            raise ReportError(
                f"expected a folder with report.json in it or below it, got {folder}: name the "
                "--out folder of asr evaluate, or one above several"
            )
        paths += found
    paths = list(dict.fromkeys(paths))
    names = short_names(paths) if len(paths) > 1 else [paths[0].resolve().name]
    entries = []
    for name, path in zip(names, paths, strict=True):
        report = read_report(path)
        interval = bootstrap_interval([u.words for u in report.scores.utterances])
        entries.append(Entry(name, report, interval))

    def test_set(entry: Entry) -> tuple[str, str, str]:
        facts = entry.report.facts
        return facts.manifest_sha256, entry.report.units, facts.normalisation

    boards = []
    for (_, units, normalisation), members in groupby(sorted(entries, key=test_set), key=test_set):
        ranked = sorted(members, key=lambda entry: entry.report.scores.words.rate)
        first = ranked[0].report
        boards.append(
            Board(
                first.facts.manifest,
                units,
                normalisation,
                len(first.scores.utterances),
                tuple(ranked),
            )
        )
    return tuple(boards)


def to_tables(boards: Sequence[Board]) -> list[Table]:
    """The boards for a terminal."""
    tables = []
    for board in boards:
        title = f"{board.manifest}, {board.utterances} utterances"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("", justify="right")
        for column in ("system", "decoder"):
            table.add_column(column, overflow="fold")
        for column in (f"{board.main} %", "95 %", "errors", "real time", "parameters", "date"):
            table.add_column(column, justify="right", no_wrap=True)
        for rank, entry in enumerate(board.entries, start=1):
            table.add_row(str(rank), *_cells(entry))
        tables.append(table)
    return tables


def _cells(entry: Entry) -> list[str]:
    facts, words = entry.report.facts, entry.report.scores.words
    low, high = entry.interval
    speed, size = facts.real_time_factor, facts.parameters
    return [
        entry.name,
        facts.decoder,
        percent(words.rate),
        f"{percent(low, 1)} to {percent(high, 1)}",
        f"{words.errors}/{words.reference_length}",
        "" if speed is None else f"{speed:.4f}",
        "" if size is None else f"{size / 1e6:.2f} M",
        facts.date[:10],
    ]


def write_board(boards: Sequence[Board], path: str | Path) -> None:
    """Write the page, whole or not at all."""
    page = (
        environment()
        .get_template("leaderboard.html")
        .render(
            boards=[
                {
                    "board": board,
                    "rows": [(entry, _cells(entry)) for entry in board.entries],
                    "top": max(entry.interval[1] for entry in board.entries),
                    "pictures": _pictures(board),
                }
                for board in boards
            ]
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _pictures(board: Board) -> list[Markup]:
    speed, size = [], []
    for rank, entry in enumerate(board.entries, start=1):
        facts = entry.report.facts
        rate = 100 * entry.report.scores.words.rate
        low, high = (100 * bound for bound in entry.interval)
        if facts.real_time_factor:
            speed.append(Point(facts.real_time_factor, rate, entry.name, low, high, str(rank)))
        if facts.parameters:
            size.append(Point(facts.parameters / 1e6, rate, entry.name, low, high, str(rank)))
    return [
        scatter(f"{board.main}, %, by speed", speed, "real-time factor (less is faster)", log=True),
        scatter(f"{board.main}, %, by size", size, "million parameters", log=True),
    ]
