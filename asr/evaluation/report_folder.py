"""Writing and reading a report folder.

hypotheses.jsonl   one utterance per line: texts, word times, confidences, manifest columns
reliability.png    confidence against accuracy
report.html        the page
report.txt         the same for a terminal
report.json        every figure, written last: it marks a complete folder
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from asr.dataset.lines import is_whole
from asr.errors import ReportError, reason
from asr.evaluation.error_rate import Scores, UtteranceScore, score
from asr.evaluation.page import Extras, write_page
from asr.evaluation.reliability_plot import write_picture
from asr.evaluation.report import VERSION, EvaluationReport, RunFacts, Units, to_json
from asr.evaluation.report_text import to_text
from asr.evaluation.utterance import Details
from asr.inference.time_formats import Word
from asr.inference.time_formats import to_json as words_to_json
from asr.io.files import atomic_path, read_json, write_json
from asr.io.paths import as_stored
from asr.io.printable import printable_name


def write_report(
    report: EvaluationReport, folder: str | Path, extras: Extras | None = None
) -> None:
    """Write the files above into `folder`.

    Each is written atomically; other files in the folder stay. Every figure can be computed from
    hypotheses.jsonl.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(u, report.details.get(u.id, Details()), folder) for u in report.scores.utterances]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    _write_text(folder / "hypotheses.jsonl", "".join(line + "\n" for line in lines))
    if report.calibration.words:
        title = f"{Path(report.facts.manifest).name}\n{report.facts.decoder}"
        write_picture(report.calibration, folder / "reliability.png", title)
    else:  # that of an earlier report
        (folder / "reliability.png").unlink(missing_ok=True)
    write_page(report, folder / "report.html", extras)
    _write_text(folder / "report.txt", to_text(report))
    write_json(folder / "report.json", to_json(report))


def check_writable(folder: str | Path) -> None:
    """Create the folder of a report. Raises ReportError if it is not writable."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReportError(
            f"expected a folder to write the report into, got {folder} ({error.strerror}): choose "
            "another --out"
        ) from None


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _row(utterance: UtteranceScore, known: Details, folder: Path) -> dict[str, Any]:
    """A line of hypotheses.jsonl. The audio's path is relative to the folder, so that both can be
    moved together."""
    row: dict[str, Any] = {
        "id": utterance.id,
        "reference": utterance.reference,
        "hypothesis": utterance.hypothesis,
        "words": words_to_json(known.words, units=False),
        "speaker": known.speaker,
        "seconds": known.seconds,
        "snr": None if known.snr is None else round(known.snr, 1),
    }
    if known.audio is not None:
        path = Path(os.path.relpath(as_stored(known.audio), folder.resolve())).as_posix()
        if is_whole(path):  # a name that is not UTF-8 cannot be stored in JSON
            row["audio"] = path
    if known.start or known.end is not None:
        row |= {"start": known.start, "end": known.end}
    if known.packed is not None:
        row["packed"] = list(known.packed)
    return row | ({"columns": dict(known.columns)} if known.columns else {})


@dataclass(frozen=True)
class Saved:
    """A report that was read: its figures, and the scores and details behind them."""

    folder: Path
    facts: RunFacts
    units: Units
    scores: Scores
    details: dict[str, Details]

    @property
    def name(self) -> str:
        """The shortest name of the folder."""
        return printable_name(os.path.relpath(self.folder))


class _Line(BaseModel):
    """A line of hypotheses.jsonl, possibly written by another program."""

    model_config = ConfigDict(extra="ignore")

    id: str
    reference: str
    hypothesis: str
    words: tuple[Word, ...] = ()
    speaker: str = ""
    seconds: float | None = None
    snr: float | None = None
    audio: str | None = None
    start: float = 0.0
    end: float | None = None
    packed: tuple[NonNegativeInt, PositiveInt] | None = None
    columns: dict[str, str] = {}


class _Counts(BaseModel):
    model_config = ConfigDict(extra="ignore")

    errors: int
    reference_length: int


class _Figures(BaseModel):
    """The part of report.json that shows that the folder is complete."""

    model_config = ConfigDict(extra="ignore")

    units: Units = "words"  # version 1 had only words
    wer: _Counts | None = None
    cer: _Counts
    run: RunFacts


def read_report(folder: str | Path) -> Saved:
    """A report as written by `write_report`; its texts are aligned again.

    Raises ReportError for a missing file, a later version, wrong content, or texts that do not give
    the errors of report.json.
    """
    folder = Path(folder)
    figures = _read_figures(folder / "report.json")
    lines = _read_lines(folder / "hypotheses.jsonl")
    scores = score(
        {line.id: line.reference for line in lines}, {line.id: line.hypothesis for line in lines}
    )
    reported = figures.cer if figures.units == "characters" else figures.wer
    found = scores.words
    if reported is None or (reported.errors, reported.reference_length) != (
        found.errors,
        found.reference_length,
    ):
        counts = "none" if reported is None else f"{reported.errors} of {reported.reference_length}"
        raise ReportError(
            f"{folder}: expected the errors of report.json, {counts}, got {found.errors} "
            f"of {found.reference_length} from hypotheses.jsonl: evaluate again"
        )
    details = {line.id: _details(line, folder) for line in lines}
    return Saved(folder, figures.run, figures.units, scores, details)


def _read_figures(path: Path) -> _Figures:
    if not path.is_file():
        raise ReportError(
            f"expected a report folder with report.json, got {path.parent}: name the --out folder "
            "of asr evaluate or asr score"
        )
    try:
        figures = read_json(path)
    except (OSError, ValueError, RecursionError):
        raise ReportError(f"{path}: expected JSON, got something else: evaluate again") from None
    version = figures.get("version") if isinstance(figures, dict) else None
    if version is None:
        raise ReportError(f"{path}: expected a report of asr evaluate, got another file")
    if version not in (1, VERSION):
        raise ReportError(f"{path}: expected version 1 to {VERSION}, got {version}: evaluate again")
    try:
        return _Figures.model_validate(figures)
    except ValidationError as error:
        raise ReportError(f"{path}: {_reason(error)}: evaluate again") from None


def _read_lines(path: Path) -> list[_Line]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"expected {path}, got {reason(error)}: evaluate again") from None
    lines: dict[str, _Line] = {}
    for number, text in enumerate(content.split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate_json(text)
        except ValidationError as error:
            raise ReportError(f"{path}:{number}: {_reason(error)}: evaluate again") from None
        if line.id in lines:
            raise ReportError(f"{path}:{number}: expected a new id, got {line.id} again")
        lines[line.id] = line
    if not lines:
        raise ReportError(f"{path}: expected at least one utterance, got none: evaluate again")
    return list(lines.values())


def _reason(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the line"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _details(line: _Line, folder: Path) -> Details:
    return Details(
        speaker=line.speaker,
        seconds=line.seconds,
        audio=None if line.audio is None else (folder / line.audio).resolve(),
        start=line.start,
        end=line.end,
        packed=line.packed,
        columns=line.columns,
        snr=line.snr,
        words=line.words,
    )
