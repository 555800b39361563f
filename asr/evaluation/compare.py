"""Comparison of systems on the same utterances: differences and their significance."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from asr.errors import ReportError
from asr.evaluation.error_rate import FEWEST, Interval, UtteranceScore, bootstrap_interval
from asr.evaluation.page import environment, highest, interval_text
from asr.evaluation.report import counts_json, finite_interval, rate_name
from asr.evaluation.report_folder import Saved, read_report
from asr.evaluation.report_text import alignment_rows
from asr.evaluation.significance import Difference, MatchedPairs, matched_pairs, paired_bootstrap
from asr.io.files import atomic_path, write_json
from asr.io.printable import printable, printable_lines

LISTED = 200  # utterances in the page and in the JSON
PRINTED = 5
SHOWN_IDS = 5


@dataclass(frozen=True)
class System:
    """A report under its short name."""

    name: str
    report: Saved
    interval: Interval | None


@dataclass(frozen=True)
class Pair:
    """The second system against the first: negative differences favour the second. `holm` has the
    p-values of the two tests, adjusted for the number of pairs."""

    first: str
    second: str
    bootstrap: Difference
    matched: MatchedPairs
    holm: tuple[float | None, float | None]


@dataclass(frozen=True)
class Contrast:
    """The output of every system for an utterance, in the order of the systems."""

    scores: tuple[UtteranceScore, ...]

    @property
    def spread(self) -> int:
        """Difference in errors between the best and the worst."""
        errors = [score.words.errors for score in self.scores]
        return max(errors) - min(errors)


@dataclass(frozen=True)
class Comparison:
    systems: tuple[System, ...]
    pairs: tuple[Pair, ...]
    contrasts: tuple[Contrast, ...]
    """Utterances on which the systems differ, most first."""


def compare_reports(folders: Sequence[str | Path]) -> Comparison:
    """Read two or more report folders and compare each system with all before it.

    Raises ReportError for fewer than two reports, for unreadable reports, and for reports with
    other references or rules, naming the difference.
    """
    if len(folders) < 2:
        raise ReportError(f"expected at least two report folders, got {len(folders)}: name another")
    reports = [read_report(folder) for folder in folders]
    for report in reports[1:]:
        check_comparable(reports[0], report)
    names = map(printable, short_names([Path(folder) for folder in folders]))
    systems = tuple(
        System(name, report, bootstrap_interval([u.words for u in report.scores.utterances]))
        for name, report in zip(names, reports, strict=True)
    )
    by_id = [{u.id: u for u in report.scores.utterances} for report in reports]
    contrasts = [Contrast(tuple(rows[name] for rows in by_id)) for name in by_id[0]]
    differing = sorted((c for c in contrasts if c.spread), key=lambda c: -c.spread)
    return Comparison(systems, _pairs(systems), tuple(differing))


def check_comparable(one: Saved, other: Saved) -> None:
    """Raise ReportError unless both reports scored the same texts in the same way."""
    names = f"{one.name} and {other.name}"
    if one.units != other.units:
        raise ReportError(
            f"expected reports in the same units, got {one.units} and {other.units} in {names}: "
            "score both in the same way"
        )
    if one.facts.normalisation != other.facts.normalisation:
        raise ReportError(
            f"expected the same normalisation, got '{one.facts.normalisation}' and "
            f"'{other.facts.normalisation}' in {names}: score both in the same way"
        )
    mine = {u.id: u.reference for u in one.scores.utterances}
    theirs = {u.id: u.reference for u in other.scores.utterances}
    if mine.keys() != theirs.keys():
        only = [
            f"{len(ids)} only in {report.name} ({', '.join(sorted(ids)[:SHOWN_IDS])}"
            f"{', ...' if len(ids) > SHOWN_IDS else ''})"
            for report, ids in (
                (one, mine.keys() - theirs.keys()),
                (other, theirs.keys() - mine.keys()),
            )
            if ids
        ]
        raise ReportError(
            f"expected the same utterances, got {' and '.join(only)}: score both on one test set"
        )
    differing = [name for name in mine if mine[name] != theirs[name]]
    if differing:
        first = differing[0]
        raise ReportError(
            f"expected the same references, got others in {len(differing)} utterances of {names}, "
            f"such as {first}: '{mine[first]}' and '{theirs[first]}': score both on one manifest"
        )


def short_names(folders: Sequence[Path]) -> list[str]:
    """Distinct names of folders: their paths without the parts common to all at either end.

    >>> short_names([Path("exp/a/test"), Path("exp/b/test")])
    ['a', 'b']
    >>> short_names([Path("one"), Path("one")])
    ['one', 'one (2)']
    """
    parts = [folder.resolve().parts for folder in folders]
    shortest = min(map(len, parts))
    front = sum(1 for _ in itertools.takewhile(_same, zip(*parts, strict=False)))
    ends = zip(*(row[::-1] for row in parts), strict=False)
    back = sum(1 for _ in itertools.takewhile(_same, ends))
    back = min(back, shortest - front - 1)
    names = [
        "/".join(row[front : len(row) - back] if back > 0 else row[front:]) or row[-1]
        for row in parts
    ]
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _same(values: Sequence[str]) -> bool:
    return len(set(values)) == 1


def _pairs(systems: Sequence[System]) -> tuple[Pair, ...]:
    found = []
    for first, second in itertools.combinations(systems, 2):
        one = {u.id: u for u in first.report.scores.utterances}
        other = {u.id: u for u in second.report.scores.utterances}
        bootstrap = paired_bootstrap(
            {name: u.words for name, u in other.items()}, {name: u.words for name, u in one.items()}
        )
        matched = matched_pairs(
            [other[name].alignment for name in one], [u.alignment for u in one.values()]
        )
        found.append((first.name, second.name, bootstrap, matched))
    adjusted = zip(
        holm([row[2].p_value for row in found]),
        holm([row[3].p_value for row in found]),
        strict=True,
    )
    return tuple(Pair(*row, both) for row, both in zip(found, adjusted, strict=True))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for multiple tests (Holm, "A simple sequentially rejective multiple test
    procedure", 1979). None, a test that was not made, stays None.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    made = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for rank, (p, place) in enumerate(made):
        reached = max(reached, min(1.0, (len(made) - rank) * p))
        adjusted[place] = reached
    return adjusted


# --- output ---


def to_text(result: Comparison) -> str:
    """The comparison for a terminal."""
    main = rate_name(result.systems[0].report.units)
    width = max(len(system.name) for system in result.systems)
    lines = []
    for system in result.systems:
        lines.append(
            f"{system.name:<{width}}  {main} {system.report.scores.words}, "
            f"95 % interval {interval_text(system.interval)}"
        )
    lines.append("")
    for pair in result.pairs:
        b, m = pair.bootstrap, pair.matched
        lines.append(
            f"{pair.second} against {pair.first}: {100 * b.difference:+.2f} points "
            f"({spread_text(b)}), paired bootstrap p "
            f"{p_text(pair.holm[0])}, matched pairs (MAPSSWE) p {p_text(pair.holm[1])} in "
            f"{m.segments} segments"
        )
        lines.append(f"  {verdict(pair)}")
    if len(result.pairs) > 1:
        lines.append(f"p-values are Holm-adjusted for {len(result.pairs)} pairs.")
    for contrast in result.contrasts[:PRINTED]:
        lines += ["", *_contrast_lines(result.systems, contrast)]
    return printable_lines("\n".join(lines) + "\n")


def verdict(pair: Pair) -> str:
    """The joint result of the two tests, at 5 %."""
    if None in pair.holm and pair.bootstrap.difference:
        return f"too little data: it takes {FEWEST} utterances and {FEWEST} segments with errors"
    sure = [p is not None and p < 0.05 for p in pair.holm]
    if all(sure):
        better = pair.second if pair.bootstrap.difference < 0 else pair.first
        return f"{better} is better"
    if any(sure):
        return "inconclusive: the tests disagree"
    return "no significant difference"


def spread_text(found: Difference) -> str:
    """The interval of a difference, in percentage points.

    >>> spread_text(Difference(-0.01, (-0.02, 0.001), 0.1, 0.2))
    '-2.00 to +0.10'
    """
    if found.interval is None:
        return "n/a"
    return " to ".join(f"{100 * bound:+.2f}" for bound in found.interval)


def p_text(p: float | None) -> str:
    """A p-value with its relation sign and its significant digits.

    >>> p_text(0.0004), p_text(0.0312), p_text(None)
    ('< 0.001', '= 0.031', 'n/a')
    """
    if p is None:
        return "n/a"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _contrast_lines(systems: Sequence[System], contrast: Contrast) -> list[str]:
    lines = [f"{printable(contrast.scores[0].id)}"]
    width = max(len(system.name) for system in systems)
    for system, score in zip(systems, contrast.scores, strict=True):
        lines.append(f"  {system.name:<{width}}  {score.words.errors} errors")
        for rows in alignment_rows(score.alignment, 90):
            lines += [
                f"    {label} {row}".rstrip()
                for label, row in zip(("REF", "HYP", "   "), rows, strict=True)
            ]
    return lines


def to_json(result: Comparison) -> dict[str, Any]:
    """Plain JSON values; rates and differences are fractions."""
    return {
        "units": result.systems[0].report.units,
        "systems": [
            {
                "name": system.name,
                "folder": system.report.name,
                "run": asdict(system.report.facts),
                "words": counts_json(system.report.scores.words)
                | {"interval": finite_interval(system.interval)},
            }
            for system in result.systems
        ],
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "paired_bootstrap": asdict(pair.bootstrap) | {"p_value_holm": pair.holm[0]},
                "matched_pairs": asdict(pair.matched) | {"p_value_holm": pair.holm[1]},
                "verdict": verdict(pair),
            }
            for pair in result.pairs
        ],
        "utterances": [
            {
                "id": contrast.scores[0].id,
                "reference": contrast.scores[0].reference,
                "hypotheses": [score.hypothesis for score in contrast.scores],
                "errors": [score.words.errors for score in contrast.scores],
            }
            for contrast in result.contrasts[:LISTED]
        ],
    }


def write_comparison(result: Comparison, folder: str | Path) -> None:
    """Write comparison.txt, comparison.html and, last, comparison.json into `folder`."""
    folder = Path(folder)
    page = (
        environment()
        .get_template("compare.html")
        .render(
            result=result,
            main=rate_name(result.systems[0].report.units),
            contrasts=result.contrasts[:LISTED],
            p_text=p_text,
            spread_text=spread_text,
            verdict=verdict,
            top=highest(system.interval for system in result.systems),
        )
    )
    for name, text in (("comparison.html", page), ("comparison.txt", to_text(result))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    write_json(folder / "comparison.json", to_json(result))
