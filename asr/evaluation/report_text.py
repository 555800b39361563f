"""The report for a terminal: plain text, one line per fact."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len

from asr.evaluation.breakdown import Breakdown
from asr.evaluation.confidence import Calibration
from asr.evaluation.confusions import Confusions
from asr.evaluation.error_rate import FEWEST, Interval, UtteranceScore
from asr.evaluation.report import CONFIDENCE, WORST, EvaluationReport, RunFacts, rate_name
from asr.io.printable import printable
from asr.text.edit_distance import AlignedWord

LINE_WIDTH = 100  # terminal cells
MOST_SPEAKERS = 40  # lines; report.html shows all
MOST_CONFUSIONS = 10
_MARKS = {"C": " ", "S": "S", "D": "D", "I": "I"}


def to_text(report: EvaluationReport, worst: int = WORST) -> str:
    """The report as text; the first line is the main error rate."""
    blocks = [
        headline(report),
        _speaker_interval_lines(report),
        _calibration_lines(report.calibration),
        _facts_lines(report.facts),
        *(_speaker_lines(b, report.units) for b in report.breakdowns if b.title == "speaker"),
        _confusion_lines(report.confusions),
        _unpaired_lines(report),
        _worst_lines(report.worst, worst),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def headline(report: EvaluationReport) -> list[str]:
    """The error rates with counts and intervals, the main one first."""
    scores, sentences = report.scores, report.scores.sentences
    main = rate_name(report.units)
    lines = [f"{main} {scores.words}, {_interval_text(report.wer_interval)}"]
    if report.units == "words":
        lines.append(f"CER {scores.characters}, {_interval_text(report.cer_interval)}")
    lines.append(
        f"SER {_percent(sentences.rate)} % ({sentences.errors}/{sentences.reference_length} "
        f"utterances), {_interval_text(report.ser_interval)}"
    )
    return lines


def _speaker_interval_lines(report: EvaluationReport) -> list[str]:
    if report.speaker_interval is None:
        return []
    return [
        f"Interval over speakers: {_interval_text(report.speaker_interval)} "
        f"({report.speakers} speakers, resampled)"
    ]


def _percent(rate: float, digits: int = 2) -> str:
    return f"{100 * rate:.{digits}f}" if math.isfinite(rate) else "n/a"


def _interval_text(interval: Interval | None) -> str:
    if interval is None:
        return f"no interval (it takes {FEWEST} or more utterances that differ)"
    low, high = interval
    return f"{100 * CONFIDENCE:.0f} % interval {_percent(low, 1)} to {_percent(high, 1)}"


def _calibration_lines(result: Calibration) -> list[str]:
    if not result.words:
        return []
    return [
        f"Confidence: on average {_percent(result.mean_confidence, 1)} %, while "
        f"{_percent(result.right, 1)} % of {result.words} recognised words are correct; "
        f"expected calibration error {_percent(result.error, 1)} %"
    ]


def _facts_lines(facts: RunFacts) -> list[str]:
    return [f"{name:<14}{printable(value)}" for name, value in facts.rows().items()]


def _speaker_lines(speakers: Breakdown, units: str) -> list[str]:
    groups = sorted(speakers.groups, key=lambda group: (-group.words.errors, group.label))
    names = [printable(group.label) for group in groups[:MOST_SPEAKERS]]
    width = max(map(cell_len, ["speaker", *names]))
    main, second = ("WER %", "   CER %") if units == "words" else ("CER %", "")
    lines = [
        f"{_fill('speaker', width)}  utterances  {units:>6}      S      D      I   {main}   (95 %)"
        f"{' ' * 8}{second}".rstrip()
    ]
    for name, group in zip(names, groups, strict=False):
        words = group.words
        spread = ""
        if group.interval is not None:
            spread = f"({_percent(group.interval[0], 1)} to {_percent(group.interval[1], 1)})"
        last = f"  {_percent(group.characters.rate):>6}" if second else ""
        lines.append(
            f"{_fill(name, width)}  {group.utterances:>10}  {words.reference_length:>6} "
            f"{words.substitutions:>6} {words.deletions:>6} {words.insertions:>6}  "
            f"{_percent(words.rate):>6}  {spread:<15}{last}".rstrip()
        )
    if len(groups) > MOST_SPEAKERS:
        lines.append(f"and {len(groups) - MOST_SPEAKERS} more speakers with fewer errors")
    return lines


def _confusion_lines(confusions: Confusions) -> list[str]:
    """The most frequent of each kind, one per line."""
    kinds = {
        "substituted": [f"{a} > {b} ({n})" for a, b, n in confusions.substituted],
        "deleted": [f"{word} ({n})" for word, n in confusions.deleted],
        "inserted": [f"{word} ({n})" for word, n in confusions.inserted],
    }
    return [
        f"{kind:<14}{printable(', '.join(items[:MOST_CONFUSIONS]))}"
        for kind, items in kinds.items()
        if items
    ]


def _unpaired_lines(report: EvaluationReport) -> list[str]:
    scores = report.scores
    lines = [f"not read: {printable(reason)}" for reason in report.unreadable.values()]
    if scores.missing:
        lines.append(f"no hypothesis, all words deleted: {_some(scores.missing)}")
    if scores.unexpected:
        lines.append(f"no reference, not scored: {_some(scores.unexpected)}")
    return lines


def _some(ids: Sequence[str], shown: int = 10) -> str:
    rest = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(map(printable, ids[:shown])) + rest


def _worst_lines(utterances: Sequence[UtteranceScore], worst: int) -> list[str]:
    lines = []
    for utterance in utterances[: max(worst, 0)]:
        lines += ["", f"{printable(utterance.id)}: {utterance.words}"]
        for rows in alignment_rows(utterance.alignment, LINE_WIDTH - len("  REF ")):
            labels = ("  REF ", "  HYP ", "      ")
            lines += [(label + row).rstrip() for label, row in zip(labels, rows, strict=True)]
    return ["Utterances with the most word errors", *lines] if lines else []


def alignment_rows(
    alignment: Sequence[AlignedWord], width: int = LINE_WIDTH
) -> list[tuple[str, str, str]]:
    """Reference, hypothesis and marks, aligned word by word and broken at `width` cells.

    The three rows of a block have the same number of terminal cells, including wide characters. A
    missing word is shown as asterisks; a word wider than `width` has its own block.

    >>> words = [AlignedWord("S", "two", "too"), AlignedWord("D", "big", None)]
    >>> for row in alignment_rows(words)[0]:
    ...     print(row.rstrip())
    two big
    too ***
    S   D
    """
    blocks: list[list[tuple[str, str, str]]] = [[]]
    used = 0
    for word in alignment:
        reference, hypothesis = printable(word.reference or ""), printable(word.hypothesis or "")
        cells = max(cell_len(reference), cell_len(hypothesis), 1)
        if blocks[-1] and used + cells > width:
            blocks.append([])
            used = 0
        used += cells + 1
        blocks[-1].append(
            (
                "*" * cells if word.reference is None else _fill(reference, cells),
                "*" * cells if word.hypothesis is None else _fill(hypothesis, cells),
                _fill(_MARKS[word.operation], cells),
            )
        )
    return [
        (
            " ".join(r for r, _, _ in block),
            " ".join(h for _, h, _ in block),
            " ".join(m for _, _, m in block),
        )
        for block in blocks
        if block
    ]


def _fill(text: str, cells: int) -> str:
    return text + " " * (cells - cell_len(text))
