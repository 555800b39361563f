"""Many reports on one page: error rate against speed and size, with one table per test set."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from rich.table import Table

from asr.errors import ReportError
from asr.evaluation.charts import Point, scatter
from asr.evaluation.compare import System, short_names
from asr.evaluation.error_rate import bootstrap_interval
from asr.evaluation.page import environment, highest, interval_text, percent
from asr.evaluation.report import rate_name
from asr.evaluation.report_folder import read_report
from asr.io.files import atomic_path
from asr.io.paths import files_below
from asr.io.printable import printable


@dataclass(frozen=True)
class Board:
    """Comparable reports: one test set, scored in one way. The best comes first."""

    manifest: str
    units: str
    normalisation: str
    utterances: int
    entries: tuple[System, ...]

    @property
    def main(self) -> str:
        return rate_name(self.units)


def gather(folders: Sequence[str | Path]) -> tuple[tuple[Board, ...], list[str]]:
    """The boards of all reports in these folders and below, and why other reports are missing.

    Raises ReportError if there is no report.
    """
    found = {
        folder: [path for path in files_below(folder) if path.name == "report.json"]
        for folder in folders
    }
    reports, skipped = [], []
    for path in dict.fromkeys(path.parent.resolve() for paths in found.values() for path in paths):
        try:
            reports.append(read_report(path))
        except ReportError as error:
            skipped.append(str(error))
    if not reports:
        raise ReportError(
            f"expected a report in {', '.join(map(str, folders))} or below, got "
            f"{skipped[0] if skipped else 'none'}: name the --out folder of asr evaluate"
        )
    skipped += [
        f"expected a report in {folder} or below, got none: correct the path"
        for folder, paths in found.items()
        if not paths
    ]
    names = short_names([report.folder for report in reports])
    entries = [
        System(name, report, bootstrap_interval([u.words for u in report.scores.utterances]))
        for name, report in zip(names, reports, strict=True)
    ]
    groups: dict[tuple[object, ...], list[System]] = defaultdict(list)
    for entry in entries:
        # By the references, not by the manifest's bytes: two systems may spell them differently.
        said = frozenset((u.id, u.reference) for u in entry.report.scores.utterances)
        groups[said, entry.report.units, entry.report.facts.normalisation].append(entry)
    return tuple(map(_board, groups.values())), skipped


def _board(entries: Sequence[System]) -> Board:
    ranked = sorted(entries, key=lambda entry: entry.report.scores.words.rate)
    first = ranked[0].report
    return Board(
        first.facts.manifest,
        first.units,
        first.facts.normalisation,
        len(first.scores.utterances),
        tuple(ranked),
    )


def ranks(board: Board) -> list[int]:
    """Ranks from 1; equal error rates have equal ranks."""
    rates = [entry.report.scores.words.rate for entry in board.entries]
    return [1 + sum(other < rate for other in rates) for rate in rates]


def to_tables(boards: Sequence[Board]) -> list[Table]:
    """The boards for a terminal."""
    tables = []
    for board in boards:
        title = printable(f"{board.manifest}, {board.utterances} utterances")
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("", justify="right")
        table.add_column("system", overflow="fold", min_width=20)
        # If all have the same decoder, names need the space.
        alike = len({entry.report.facts.decoder for entry in board.entries}) == 1
        if not alike:
            table.add_column("decoder", overflow="fold")
        for column in (f"{board.main} %", "95 %", "errors", "real time", "parameters", "date"):
            table.add_column(column, justify="right", no_wrap=True)
        for rank, entry in zip(ranks(board), board.entries, strict=True):
            name, decoder, *cells = _cells(entry)
            row = [str(rank), name, *([] if alike else [decoder]), *cells]
            table.add_row(*map(printable, row))
        tables.append(table)
    return tables


def _cells(entry: System) -> list[str]:
    facts, words = entry.report.facts, entry.report.scores.words
    speed, size = facts.real_time_factor, facts.parameters
    return [
        entry.name,
        facts.decoder,
        percent(words.rate),
        interval_text(entry.interval),
        f"{words.errors}/{words.reference_length}",
        "" if speed is None else f"{speed:.4f}",
        "" if size is None else f"{size / 1e6:.2f} M",
        facts.date[:10],
    ]


def write_board(boards: Sequence[Board], path: str | Path) -> None:
    """Write the page, atomically."""
    shown = [
        {
            "board": board,
            "rows": [
                (rank, entry, _cells(entry))
                for rank, entry in zip(ranks(board), board.entries, strict=True)
            ],
            "top": highest(entry.interval for entry in board.entries),
            "pictures": _pictures(board),
        }
        for board in boards
    ]
    page = environment().get_template("leaderboard.html").render(boards=shown)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _pictures(board: Board) -> list[Markup]:
    speed, size = [], []
    for rank, entry in zip(ranks(board), board.entries, strict=True):
        facts = entry.report.facts
        rate = 100 * entry.report.scores.words.rate
        low, high = (100 * bound for bound in entry.interval) if entry.interval else (rate, rate)
        if not math.isfinite(rate + high):
            continue
        name, _, *cells = _cells(entry)
        label = f"{name}: {cells[0]} % ({cells[1]}), {cells[3]}, {cells[4]}"
        if facts.real_time_factor and math.isfinite(facts.real_time_factor):
            speed.append(Point(facts.real_time_factor, rate, label, low, high, str(rank)))
        if facts.parameters:
            size.append(Point(facts.parameters / 1e6, rate, label, low, high, str(rank)))
    return [
        scatter(f"{board.main}, %, by speed", speed, "real-time factor (low is fast)", log=True),
        scatter(f"{board.main}, %, by size", size, "million parameters", log=True),
    ]
