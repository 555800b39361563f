"""A report's texts in the formats of other scoring tools."""

from __future__ import annotations

from pathlib import Path

from asr.errors import ReportError
from asr.evaluation.formats import Format, write_texts
from asr.evaluation.optional import as_in_file
from asr.evaluation.report_folder import Saved
from asr.evaluation.timed_formats import CtmWord, StmSegment, write_ctm, write_stm


def write_report_texts(report: Saved, folder: Path, format: Format) -> list[Path]:
    """Write reference and hypothesis into `folder`, and return the files.

    ctm holds only the hypothesis and stm only the reference: for either format both are written, as
    NIST's sclite requires, with every utterance as a separate file.

    Raises ReportError if the format needs times or words that the report does not have.
    """
    if format in ("ctm", "stm"):
        return _write_timed(report, folder)
    utterances = report.scores.utterances
    files = []
    for name, texts in (
        ("reference", {u.id: as_in_file(u.reference) for u in utterances}),
        ("hypothesis", {u.id: u.hypothesis for u in utterances}),
    ):
        ending = "txt" if format == "kaldi" else format
        files.append(folder / f"{name}.{ending}")
        write_texts(files[-1], texts, format)
    return files


def _write_timed(report: Saved, folder: Path) -> list[Path]:
    words, segments = [], []
    for utterance in report.scores.utterances:
        known = report.details[utterance.id]
        recognized = utterance.hypothesis.split()
        if utterance.id != "".join(utterance.id.split()):
            raise ReportError(
                f"expected ids without spaces for stm and ctm, got '{utterance.id}': write jsonl"
            )
        if known.seconds is None or len(known.words) != len(recognized):
            raise ReportError(
                f"expected the times of all words, got none for {utterance.id} in {report.name}: "
                "evaluate with a model and without normalisation, or write trn"
            )
        words += [
            CtmWord(utterance.id, "1", w.start, round(w.end - w.start, 3), text, w.confidence)
            for text, w in zip(recognized, known.words, strict=True)
        ]
        speaker = "_".join(known.speaker.split()) or "unknown"  # a space would begin a field
        segments.append(
            StmSegment(
                utterance.id, "1", speaker, 0.0, known.seconds, as_in_file(utterance.reference)
            )
        )
    if not words:  # no file is written if one of them is impossible
        raise ReportError(
            f"expected words for ctm, got none recognised in {report.name}: write trn or jsonl"
        )
    reference, hypothesis = folder / "reference.stm", folder / "hypothesis.ctm"
    write_stm(reference, segments)
    write_ctm(hypothesis, words)
    return [reference, hypothesis]
