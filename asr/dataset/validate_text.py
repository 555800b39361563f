"""The result of a check as plain text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from asr.dataset.validate import CheckReport, LengthBin, ManifestSummary, Problem
from asr.io.printable import printable, printable_name, shown_character

_BAR = 40  # characters


def render(report: CheckReport) -> str:
    """Plain text for a terminal: tables, a bar histogram, problems by kind."""
    parts = [_manifest_table(report.manifests)]
    if report.units:
        by_count = sorted(report.units.items(), key=lambda item: (-item[1], item[0]))
        listed = "  ".join(f"{shown_character(unit)} {count}" for unit, count in by_count)
        parts.append(f"{len(report.units)} characters\n{listed}")
    if report.lengths:
        parts.append(_length_table(report.lengths))
    parts.append(_problem_table(report.problems))
    if report.notes:
        parts.append(_problem_table(report.notes, "note"))
    return "\n\n".join(parts) + "\n"


def _manifest_table(manifests: Sequence[ManifestSummary]) -> str:
    width = max([len(printable_name(manifest.path)) for manifest in manifests] + [8])
    lines = [f"{'manifest':{width}}    hours  utterances  speakers"]
    lines += [
        f"{printable_name(m.path):{width}}  {m.hours:7.3f}  {m.utterances:10}  {m.speakers:8}"
        for m in manifests
    ]
    return "\n".join(lines)


def _length_table(lengths: Sequence[LengthBin]) -> str:
    most = max(length.count for length in lengths)
    lines = ["seconds"]
    for length in lengths:
        bar = "#" * -(-_BAR * length.count // most)  # rounded up: one utterance is still visible
        lines.append(f"{length.low:6.1f} to {length.high:6.1f}  {length.count:7}  {bar}".rstrip())
    return "\n".join(lines)


def _problem_table(problems: Sequence[Problem], name: str = "problem") -> str:
    if not problems:
        return f"no {name}s"
    lines = [f"{len(problems)} {name}{'s' if len(problems) > 1 else ''}"]
    for kind, count in Counter(problem.kind for problem in problems).most_common():
        lines.append(f"{kind}: {count}")
        lines += [
            f"  {printable(p.id)}  ({printable_name(p.manifest)})  {printable(p.detail)}"
            for p in problems
            if p.kind == kind
        ]
    return "\n".join(lines)
