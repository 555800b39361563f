"""The report of one evaluation: settings, data, error rates with intervals, and errors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from asr.evaluation.breakdown import (
    Breakdown,
    Column,
    Group,
    break_down,
    label_utterances,
    left_out,
)
from asr.evaluation.confidence import Calibration, calibration
from asr.evaluation.confusions import (
    Confusions,
    FrequencyClass,
    count_confusions,
    errors_by_frequency,
)
from asr.evaluation.error_rate import (
    ErrorCounts,
    Interval,
    Scores,
    UtteranceScore,
    bootstrap_interval,
    sentence_counts,
)
from asr.evaluation.normalise import BUILT_IN
from asr.evaluation.utterance import Details
from asr.io.printable import printable

VERSION = 2  # of the JSON layout: raised when a key changes its meaning or is removed
CONFIDENCE = 0.95
WORST = 10
PLAIN = BUILT_IN["none"].description
MOST_CONFUSIONS = 50  # of each kind, in report.json

Units = Literal["words", "characters"]


def rate_name(units: str) -> str:
    """The error rate of what is scored: WER or CER."""
    return "WER" if units == "words" else "CER"


@dataclass(frozen=True)
class RunFacts:
    """Facts to repeat a run and to judge its figures; None or empty for scored texts of an unknown
    system."""

    model: str  # path or name
    manifest: str  # path
    manifest_sha256: str
    date: str  # ISO 8601
    parameters: int | None = None
    decoder: str = ""  # as text
    normalisation: str = PLAIN
    audio_seconds: float | None = None
    processing_seconds: float | None = None
    peak_memory_mib: float | None = None
    machine: str = ""
    weights_sha256: str = ""

    @property
    def real_time_factor(self) -> float | None:
        """Processing time over audio time, infinite without audio."""
        if self.processing_seconds is None or self.audio_seconds is None:
            return None
        return self.processing_seconds / self.audio_seconds if self.audio_seconds else math.inf

    def rows(self) -> dict[str, str]:
        """The known facts by name, for display."""
        size = "" if self.parameters is None else f" ({self.parameters:,} parameters)"
        rows = {
            "model": self.model + size,
            "manifest": f"{self.manifest} (sha256 {self.manifest_sha256})",
            "decoder": self.decoder,
            "normalisation": self.normalisation,
        }
        if self.processing_seconds is not None and self.audio_seconds is not None:
            rows["audio"] = (
                f"{self.audio_seconds:.1f} s, recognised in {self.processing_seconds:.1f} s"
            )
            rows["real time"] = f"factor {self.real_time_factor:.3f}"
        if self.peak_memory_mib is not None:
            rows["peak memory"] = f"{self.peak_memory_mib:.0f} MiB"
        rows |= {"date": self.date, "machine": self.machine}
        return {name: value for name, value in rows.items() if value}


@dataclass(frozen=True)
class EvaluationReport:
    """The content of the report; text, JSON and page only format it.

    Intervals are fractions at `CONFIDENCE`, by utterance; `speaker_interval` is that of the main
    error rate with whole speakers resampled. Each is None if there is too little data. `worst`
    holds every utterance with an error, most errors first. `labels` are those of
    `label_utterances`. With characters as units, "words" are characters throughout.
    """

    scores: Scores
    units: Units
    details: Mapping[str, Details]
    labels: Mapping[str, Column]
    breakdowns: tuple[Breakdown, ...]
    confusions: Confusions
    by_frequency: tuple[FrequencyClass, ...]
    worst: tuple[UtteranceScore, ...]
    wer_interval: Interval | None
    cer_interval: Interval | None
    ser_interval: Interval | None
    speaker_interval: Interval | None
    speakers: int
    calibration: Calibration
    facts: RunFacts
    unreadable: Mapping[str, str]
    """Why a recording could not be read, by utterance; it is scored as silence."""


def build_report(
    scores: Scores,
    details: Mapping[str, Details],
    facts: RunFacts,
    units: Units = "words",
    training: Mapping[str, int] | None = None,
    unreadable: Mapping[str, str] | None = None,
    unnormalised: Scores | None = None,
) -> EvaluationReport:
    """Collect the content of the report. `details` are by utterance id, if known; `training` has
    the number of occurrences of each word in training. `unnormalised` are the scores before
    normalisation, whose words have the confidences; without it, they are those of `scores`."""
    utterances = scores.utterances
    labels = label_utterances(utterances, details, units)
    by_speaker = _speaker_counts(utterances, details)
    # By count, not by rate: these utterances determine the total error rate.
    worst = sorted(
        (utterance for utterance in utterances if utterance.words.errors),
        key=lambda utterance: (
            -utterance.words.errors,
            -utterance.characters.errors,
            utterance.id,
        ),
    )
    judged = [
        (word.confidence, right)
        for u in (unnormalised or scores).utterances
        if u.id in details and len(details[u.id].words) == len(u.right)
        for word, right in zip(details[u.id].words, u.right, strict=True)
        if word.confidence is not None
    ]
    return EvaluationReport(
        scores=scores,
        units=units,
        details=details,
        labels=labels,
        breakdowns=break_down(utterances, labels),
        confusions=count_confusions(utterances),
        by_frequency=() if training is None else errors_by_frequency(utterances, training),
        worst=tuple(worst),
        wer_interval=bootstrap_interval([u.words for u in utterances], CONFIDENCE),
        cer_interval=bootstrap_interval([u.characters for u in utterances], CONFIDENCE),
        ser_interval=bootstrap_interval([sentence_counts(u) for u in utterances], CONFIDENCE),
        speaker_interval=bootstrap_interval(by_speaker, CONFIDENCE)
        if scores.words.errors
        else None,
        speakers=len(by_speaker),
        calibration=calibration([sure for sure, _ in judged], [right for _, right in judged]),
        facts=facts,
        unreadable=unreadable or {},
    )


def _speaker_counts(
    utterances: Sequence[UtteranceScore], details: Mapping[str, Details]
) -> list[ErrorCounts]:
    """Errors summed by speaker, for known speakers."""
    counts: dict[str, ErrorCounts] = defaultdict(ErrorCounts)
    for utterance in utterances:
        if utterance.id in details and details[utterance.id].speaker:
            counts[details[utterance.id].speaker] += utterance.words
    return list(counts.values())


def to_json(report: EvaluationReport) -> dict[str, Any]:
    """The report as plain JSON values; rates are fractions, and an infinite one is null."""
    scores = report.scores
    main = counts_json(scores.words) | {"interval": finite_interval(report.wer_interval)}
    if report.speaker_interval is not None:
        main["interval_by_speaker"] = finite_interval(report.speaker_interval)
    rates = {"cer": main}
    if report.units == "words":
        letters = counts_json(scores.characters) | {
            "interval": finite_interval(report.cer_interval)
        }
        rates = {"wer": main, "cer": letters}
    return {
        "version": VERSION,
        "confidence": CONFIDENCE,
        "units": report.units,
        **rates,
        "ser": {
            "rate": scores.sentences.rate,
            "errors": scores.sentences.errors,
            "utterances": scores.sentences.reference_length,
            "interval": finite_interval(report.ser_interval),
        },
        "calibration": {
            "error": report.calibration.error,
            "mean_confidence": report.calibration.mean_confidence,
            "right": report.calibration.right,
            "bins": [asdict(row) for row in report.calibration.bins],
        },
        "run": asdict(report.facts)
        | {"real_time_factor": finite(report.facts.real_time_factor)[0]},
        "breakdowns": {
            b.title: [_group_json(group) for group in b.groups] for b in report.breakdowns
        },
        "by_training_frequency": [asdict(row) | {"rate": row.rate} for row in report.by_frequency],
        "confusions": {
            kind: [list(row) for row in rows[:MOST_CONFUSIONS]]
            for kind, rows in asdict(report.confusions).items()
        },
        "worst": [
            {
                "id": utterance.id,
                "reference": utterance.reference,
                "hypothesis": utterance.hypothesis,
                "words": counts_json(utterance.words),
                "characters": counts_json(utterance.characters),
                "alignment": [list(word) for word in utterance.alignment],
            }
            for utterance in report.worst[:WORST]
        ],
        "unreadable": {name: printable(why) for name, why in report.unreadable.items()},
        "columns_left_out": left_out(report.details),
        "missing": list(scores.missing),
        "unexpected": list(scores.unexpected),
    }


def counts_json(counts: ErrorCounts) -> dict[str, Any]:
    return {"rate": finite(counts.rate)[0], "errors": counts.errors} | asdict(counts)


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "label": group.label,
        "utterances": group.utterances,
        "words": counts_json(group.words) | {"interval": finite_interval(group.interval)},
        "characters": counts_json(group.characters),
    }


def finite(*values: float | None) -> list[float | None]:
    """Null for infinity, which JSON does not have."""
    return [value if value is not None and math.isfinite(value) else None for value in values]


def finite_interval(interval: Interval | None) -> list[float | None]:
    """The two bounds for JSON, both null if there is no interval."""
    return finite(*(interval or (None, None)))
