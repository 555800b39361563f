"""Comparison of texts, and reports on the texts of any system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import regex

from asr.dataset.manifest import read_manifest
from asr.errors import ManifestError, TranscriptError
from asr.evaluation.confusions import count_words
from asr.evaluation.error_rate import Scores, score
from asr.evaluation.formats import Format, guess_format, read_pair
from asr.evaluation.normalise import BUILT_IN, Profile, split_characters
from asr.evaluation.optional import bracket
from asr.evaluation.report import EvaluationReport, RunFacts, Units, build_report
from asr.evaluation.timed_formats import read_stm
from asr.evaluation.utterance import Details, details_of
from asr.io.files import digest
from asr.io.printable import printable_name
from asr.text.characters import UNSPACED, lower

_LETTER = regex.compile(r"\p{L}")
# In segmented text of these scripts, a space comes every two letters (Chinese) to four (Thai).
_LETTERS_A_SPACE = 6


@dataclass(frozen=True)
class Scoring:
    """Normalisation of reference and hypothesis, and the unit that is scored; without `units`,
    `guess_units` chooses it from the references."""

    profile: Profile = BUILT_IN["none"]
    units: Units | None = None

    def with_units(self, references: Iterable[str]) -> Scoring:
        """With units chosen from the references."""
        return replace(self, units=self.units or guess_units(references))

    def apply(self, text: str) -> str:
        """A text for alignment: its units separated by spaces."""
        text = self.profile.apply(text)
        return bracket(split_characters(text) if self.units == "characters" else text)

    def apply_all(self, texts: Mapping[str, str]) -> dict[str, str]:
        """`apply` for many texts by id."""
        return {name: self.apply(text) for name, text in texts.items()}


def guess_units(texts: Iterable[str]) -> Units:
    """Characters for texts in a script without spaces between words, such as Chinese, Japanese and
    Thai, if they have hardly any spaces; else words.

    >>> guess_units(["打开客厅的灯", "iPhone 在哪里"]), guess_units(["打开 客厅 的 灯"])
    ('characters', 'words')
    """
    letters = unparted = spaces = 0
    for text in texts:
        letters += len(_LETTER.findall(text))
        unparted += len(UNSPACED.findall(text))
        spaces += max(0, len(text.split()) - 1)
    return "characters" if max(letters / 2, _LETTERS_A_SPACE * spaces) < unparted else "words"


def score_files(
    reference: Path,
    hypothesis: Path,
    scoring: Scoring,
    formats: tuple[Format | None, Format | None] = (None, None),
    train: Path | None = None,
) -> EvaluationReport:
    """The report on any system's texts. A manifest or an stm file as reference also gives speakers
    and durations, and a manifest the recordings; `train` is a manifest whose words are counted.

    Raises TranscriptError or ManifestError for unreadable files.
    """
    references, hypotheses = read_pair(reference, hypothesis, *formats)
    if not references.keys() & hypotheses.keys():
        raise TranscriptError(
            f"expected ids that {reference} and {hypothesis} share, got none, such as "
            f"'{next(iter(references))}' and '{next(iter(hypotheses), '')}': use the same ids"
        )
    scoring = scoring.with_units(map(bracket, references.values()))
    scores = score(scoring.apply_all(references), scoring.apply_all(hypotheses))
    facts = RunFacts(
        model=printable_name(os.path.relpath(hypothesis)),
        manifest=printable_name(os.path.relpath(reference)),
        manifest_sha256=digest(reference),
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        normalisation=scoring.profile.description,
    )
    details = _details(reference, formats[0] or guess_format(reference))
    known = {name: details.get(name, Details()) for name in references}
    texts = [] if train is None else [scoring.apply(u.text) for u in read_manifest(train)]
    return build_report(
        scores,
        known,
        facts,
        scoring.units or "words",
        None if train is None else count_words(texts),
    )


def errors_of_case(scores: Scores, language: str = "") -> int:
    """The number of word errors that differ from the reference only in case."""
    lowered = score(
        {u.id: lower(u.reference, language) for u in scores.utterances},
        {u.id: lower(u.hypothesis, language) for u in scores.utterances},
    )
    return scores.words.errors - lowered.words.errors


def _details(reference: Path, format: Format) -> dict[str, Details]:
    if format == "stm":
        return {
            segment.id: Details(speaker=segment.speaker, seconds=segment.end - segment.start)
            for segment in read_stm(reference)
        }
    if format != "jsonl":
        return {}
    try:
        return {u.id: details_of(u) for u in read_manifest(reference)}
    except ManifestError:
        return {}  # texts only
