"""The report of one evaluation: what was measured, on what, how sure it is, and where it fails."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from asr.evaluation.confidence import Calibration, calibration
from asr.evaluation.error_rate import (
    AlignedWord,
    ErrorCounts,
    Scores,
    UtteranceScore,
    bootstrap_interval,
    sentence_counts,
)
from asr.evaluation.reliability_picture import write_picture
from asr.files import atomic_path, write_json

VERSION = 1  # of the JSON layout: raised when a key changes its meaning or goes
CONFIDENCE = 0.95
WORST = 10
LINE_WIDTH = 100  # terminal cells
_MARKS = {"C": " ", "S": "S", "D": "D", "I": "I"}

Interval = tuple[float, float]


@dataclass(frozen=True)
class RunFacts:
    """What one needs to know of a run to repeat it and to judge its figures."""

    model: str  # path or name
    parameters: int
    manifest: str  # path
    manifest_sha256: str
    decoder: str  # in words
    audio_seconds: float
    processing_seconds: float
    peak_memory_mib: float
    date: str  # ISO 8601
    machine: str

    @property
    def real_time_factor(self) -> float:
        """Processing time over audio time, infinite where there was no audio."""
        return self.processing_seconds / self.audio_seconds if self.audio_seconds else math.inf


@dataclass(frozen=True)
class SpeakerRow:
    """The summed errors of one speaker."""

    speaker: str
    utterances: int
    words: ErrorCounts
    characters: ErrorCounts


@dataclass(frozen=True)
class EvaluationReport:
    """Everything the report shows; `to_json` and `to_text` only lay it out.

    Intervals are fractions at `CONFIDENCE`, by utterance. `worst` holds every utterance with an
    error, those with the most word errors first.
    """

    scores: Scores
    speakers: tuple[SpeakerRow, ...]
    worst: tuple[UtteranceScore, ...]
    wer_interval: Interval
    cer_interval: Interval
    ser_interval: Interval
    calibration: Calibration
    confidences: Mapping[str, Sequence[float]]
    facts: RunFacts


def build_report(
    scores: Scores,
    speakers: Mapping[str, str],
    confidences: Mapping[str, Sequence[float]],
    facts: RunFacts,
) -> EvaluationReport:
    """Gather what the report shows. `speakers` maps each scored utterance id to its speaker,
    `confidences` to how sure the recogniser is of each word of the hypothesis.

    Raises KeyError for an utterance without a speaker: both come from one manifest.
    """
    utterances = scores.utterances
    by_speaker: dict[str, list[UtteranceScore]] = defaultdict(list)
    for utterance in utterances:
        by_speaker[speakers[utterance.id]].append(utterance)
    rows = [
        SpeakerRow(
            speaker,
            len(spoken),
            sum((utterance.words for utterance in spoken), ErrorCounts()),
            sum((utterance.characters for utterance in spoken), ErrorCounts()),
        )
        for speaker, spoken in sorted(by_speaker.items())
    ]
    # By count, not by rate: these are the utterances that make the corpus figure.
    worst = sorted(
        (utterance for utterance in utterances if utterance.words.errors),
        key=lambda utterance: (
            -utterance.words.errors,
            -utterance.characters.errors,
            utterance.id,
        ),
    )
    return EvaluationReport(
        scores=scores,
        speakers=tuple(rows),
        worst=tuple(worst),
        wer_interval=bootstrap_interval([u.words for u in utterances], CONFIDENCE),
        cer_interval=bootstrap_interval([u.characters for u in utterances], CONFIDENCE),
        ser_interval=bootstrap_interval([sentence_counts(u) for u in utterances], CONFIDENCE),
        calibration=calibration(
            [sure for u in utterances for sure in confidences.get(u.id, ())],
            [right for u in utterances for right in u.right],
        ),
        confidences=confidences,
        facts=facts,
    )


def write_report(report: EvaluationReport, folder: str | Path) -> None:
    """Write hypotheses.jsonl, reliability.png, report.txt and, last of all, report.json into
    `folder`.

    Each file is written whole or not at all; other files in the folder are left alone. From
    hypotheses.jsonl (id, reference, hypothesis, confidence of each word) every figure can be
    computed again.
    """
    folder = Path(folder)
    rows = [
        {
            "id": u.id,
            "reference": u.reference,
            "hypothesis": u.hypothesis,
            "confidences": [round(sure, 4) for sure in report.confidences.get(u.id, ())],
        }
        for u in report.scores.utterances
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    _write_text(folder / "hypotheses.jsonl", "".join(line + "\n" for line in lines))
    title = f"{Path(report.facts.manifest).name}\n{report.facts.decoder}"
    write_picture(report.calibration, folder / "reliability.png", title)
    _write_text(folder / "report.txt", to_text(report))
    write_json(folder / "report.json", to_json(report))


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


# --- JSON -------------------------------------------------------------------------------------


def to_json(report: EvaluationReport) -> dict[str, Any]:
    """The report as plain JSON values; rates are fractions, and an infinite one is null."""
    scores = report.scores
    return {
        "version": VERSION,
        "confidence": CONFIDENCE,
        "wer": _counts_json(scores.words) | {"interval": _finite(*report.wer_interval)},
        "cer": _counts_json(scores.characters) | {"interval": _finite(*report.cer_interval)},
        "ser": {
            "rate": scores.sentences.rate,
            "errors": scores.sentences.errors,
            "utterances": scores.sentences.reference_length,
            "interval": _finite(*report.ser_interval),
        },
        "calibration": {
            "error": report.calibration.error,
            "mean_confidence": report.calibration.mean_confidence,
            "right": report.calibration.right,
            "bins": [asdict(row) for row in report.calibration.bins],
        },
        "run": asdict(report.facts)
        | {"real_time_factor": _finite(report.facts.real_time_factor)[0]},
        "speakers": [
            {
                "speaker": row.speaker,
                "utterances": row.utterances,
                "wer": _counts_json(row.words),
                "cer": _counts_json(row.characters),
            }
            for row in report.speakers
        ],
        "worst": [
            {
                "id": utterance.id,
                "reference": utterance.reference,
                "hypothesis": utterance.hypothesis,
                "wer": _counts_json(utterance.words),
                "cer": _counts_json(utterance.characters),
                "alignment": [list(word) for word in utterance.alignment],
            }
            for utterance in report.worst[:WORST]
        ],
        "missing": list(scores.missing),
        "unexpected": list(scores.unexpected),
    }


def _counts_json(counts: ErrorCounts) -> dict[str, Any]:
    return {"rate": _finite(counts.rate)[0], "errors": counts.errors} | asdict(counts)


def _finite(*values: float) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


# --- text -------------------------------------------------------------------------------------


def to_text(report: EvaluationReport, worst: int = WORST) -> str:
    """The report for a person; the first line is the word error rate."""
    scores, sentences = report.scores, report.scores.sentences
    blocks = [
        [
            f"WER {scores.words}, {_interval_text(report.wer_interval)}",
            f"CER {scores.characters}, {_interval_text(report.cer_interval)}",
            f"SER {_percent(sentences.rate)} % ({sentences.errors}/{sentences.reference_length} "
            f"utterances), {_interval_text(report.ser_interval)}",
        ],
        [_calibration_line(report.calibration)],
        _facts_lines(report.facts),
        _speaker_lines(report.speakers),
        _unpaired_lines(scores),
        _worst_lines(report.worst, worst),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _percent(rate: float, digits: int = 2) -> str:
    return f"{100 * rate:.{digits}f}" if math.isfinite(rate) else "n/a"


def _interval_text(interval: Interval) -> str:
    low, high = interval
    return f"{100 * CONFIDENCE:.0f} % interval {_percent(low, 1)} to {_percent(high, 1)}"


def _calibration_line(result: Calibration) -> str:
    return (
        f"Confidence: on average {_percent(result.mean_confidence, 1)} % where "
        f"{_percent(result.right, 1)} % of {result.words} recognised words are right; "
        f"expected calibration error {_percent(result.error, 1)} %"
    )


def _facts_lines(facts: RunFacts) -> list[str]:
    rows = {
        "model": f"{facts.model} ({facts.parameters:,} parameters)",
        "manifest": f"{facts.manifest} (sha256 {facts.manifest_sha256})",
        "decoder": facts.decoder,
        "audio": f"{facts.audio_seconds:.1f} s, recognised in {facts.processing_seconds:.1f} s",
        "real time": f"factor {facts.real_time_factor:.3f}",
        "peak memory": f"{facts.peak_memory_mib:.0f} MiB",
        "date": facts.date,
        "machine": facts.machine,
    }
    return [f"{name:<12}{_printable(value)}" for name, value in rows.items()]


def _speaker_lines(rows: Sequence[SpeakerRow]) -> list[str]:
    names = [_printable(row.speaker) for row in rows]
    width = max(map(cell_len, ["speaker", *names]))
    lines = [f"{_fill('speaker', width)}  utterances   words      S      D      I   WER %   CER %"]
    for name, row in zip(names, rows, strict=True):
        words = row.words
        lines.append(
            f"{_fill(name, width)}  {row.utterances:>10}  {words.reference_length:>6} "
            f"{words.substitutions:>6} {words.deletions:>6} {words.insertions:>6}  "
            f"{_percent(words.rate):>6}  {_percent(row.characters.rate):>6}"
        )
    return lines


def _unpaired_lines(scores: Scores) -> list[str]:
    lines = []
    if scores.missing:
        lines.append(f"no hypothesis, all words deleted: {_some(scores.missing)}")
    if scores.unexpected:
        lines.append(f"no reference, not scored: {_some(scores.unexpected)}")
    return lines


def _some(ids: Sequence[str], shown: int = 10) -> str:
    rest = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(map(_printable, ids[:shown])) + rest


def _worst_lines(utterances: Sequence[UtteranceScore], worst: int) -> list[str]:
    lines = []
    for utterance in utterances[: max(worst, 0)]:
        lines += ["", f"{_printable(utterance.id)}: {utterance.words}"]
        for rows in alignment_rows(utterance.alignment, LINE_WIDTH - len("  REF ")):
            labels = ("  REF ", "  HYP ", "      ")
            lines += [(label + row).rstrip() for label, row in zip(labels, rows, strict=True)]
    return ["Utterances with the most word errors", *lines] if lines else []


def alignment_rows(
    alignment: Sequence[AlignedWord], width: int = LINE_WIDTH
) -> list[tuple[str, str, str]]:
    """Reference, hypothesis and marks, one word above the other, broken at `width` cells.

    The three rows of a block take the same number of terminal cells, wide characters included.
    A word that is not there shows as asterisks; a word wider than `width` gets its own block.

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
        reference, hypothesis = _printable(word.reference or ""), _printable(word.hypothesis or "")
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


def _printable(text: str) -> str:
    """`text` with the replacement character for what would break a line or steer a terminal."""
    breaking = {"Cc", "Cs", "Zl", "Zp"}  # control, lone surrogate, line and paragraph separator
    return "".join("�" if unicodedata.category(c) in breaking else c for c in text)
