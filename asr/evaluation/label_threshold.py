"""Which labels of a recogniser can be trusted: the confidence from which on it makes few errors on
transcribed recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asr.dataset.manifest import Utterance
from asr.errors import AudioError, ReportError
from asr.evaluation.error_rate import ErrorCounts, Interval, bootstrap_interval, score
from asr.evaluation.page import interval_text, percent
from asr.evaluation.report import Units, rate_name
from asr.evaluation.scoring import Scoring
from asr.inference.label import DIGITS, label_all
from asr.inference.recognizer import Recognizer


@dataclass(frozen=True)
class DevResults:
    """The transcribed recordings in which the recogniser found words: how certain it was of each,
    and its errors."""

    confidences: Sequence[float]
    counts: Sequence[ErrorCounts]
    units: Units


@dataclass(frozen=True)
class ConfidenceThreshold:
    """Labels of at least this confidence, and the errors of the transcribed recordings that have
    it."""

    confidence: float
    kept: int
    recordings: int
    counts: ErrorCounts
    interval: Interval | None
    units: Units

    def __str__(self) -> str:
        rate = rate_name(self.units)
        return (
            f"on --dev they have {rate} {percent(self.counts.rate, 1)} % ({self.counts.errors}/"
            f"{self.counts.reference_length}, 95 % {interval_text(self.interval)}), "
            f"in {self.kept} of {self.recordings} recordings"
        )


def recognize_dev(
    recognizer: Recognizer,
    dev: Sequence[Utterance],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DevResults:
    """Recognise transcribed recordings. Raises ReportError if there are no transcripts, AudioError
    for the first recording that cannot be read."""
    references = {u.id: recognizer.bundle.normalise(u.text) for u in dev}
    if not any(references.values()):
        raise ReportError(
            f"expected transcripts in --dev, got {len(references)} recordings without words: give "
            "a manifest with transcripts"
        )
    texts: dict[str, str] = {}
    sure: list[float] = []
    for done, labelled in enumerate(label_all(recognizer, dev), start=1):
        if labelled.error is not None:
            raise AudioError(labelled.error)
        if labelled.utterances:  # others give no labels
            texts[labelled.recording.id] = labelled.text
            sure.append(round(labelled.confidence, DIGITS))
        progress(done, len(dev))
    scoring = Scoring().with_units(references.values())
    if not texts:
        return DevResults([], [], scoring.units or "words")
    scores = score(
        scoring.apply_all({id_: references[id_] for id_ in texts}), scoring.apply_all(texts)
    )
    counts = {row.id: row.words for row in scores.utterances}
    return DevResults(sure, [counts[id_] for id_ in texts], scoring.units or "words")


def confidence_threshold(dev: DevResults, target: float) -> ConfidenceThreshold:
    """The lowest confidence at which the error rate of the recordings that have it is at most
    `target`, a fraction.

    Raises ReportError if there is none.
    """
    best: ConfidenceThreshold | None = None
    kept: list[ErrorCounts] = []
    lowest: ErrorCounts | None = None
    pairs = sorted(zip(dev.confidences, dev.counts, strict=True), key=lambda pair: -pair[0])
    for place, (confidence, counts) in enumerate(pairs):
        kept.append(counts)
        if place + 1 < len(pairs) and pairs[place + 1][0] == confidence:
            continue
        total = sum(kept, ErrorCounts())
        if lowest is None or total.rate < lowest.rate:
            lowest = total
        if total.rate <= target:
            best = ConfidenceThreshold(confidence, len(kept), len(pairs), total, None, dev.units)
    if best is None:
        got = f"{percent(lowest.rate, 1)} % at least" if lowest else "no word in any recording"
        raise ReportError(
            f"expected dev recordings with at most {percent(target, 1)} % errors at some "
            f"confidence, got {got}: raise --target, or train a better model first"
        )
    interval = bootstrap_interval(kept[: best.kept])
    return ConfidenceThreshold(
        best.confidence, best.kept, best.recordings, best.counts, interval, best.units
    )
