"""A page of transcripts to check: each with the model's hypothesis and an audio player."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from asr.evaluation.clips import embed, link
from asr.evaluation.error_rate import score
from asr.evaluation.misfit import Ranked
from asr.evaluation.page import environment, short
from asr.evaluation.scoring import Scoring
from asr.evaluation.utterance import details_of
from asr.io.files import atomic_path

MOST_ROWS = 1000  # the manifest has all


def write_check_page(
    path: Path, ranked: Sequence[Ranked], model: Path, manifest: Path, audio_megabytes: float
) -> None:
    """Write check.html, atomically: the transcripts in this order, with the words that differ from
    the hypothesis marked."""
    shown = ranked[:MOST_ROWS]
    details = {row.utterance.id: details_of(row.utterance) for row in shown}
    clips = embed(details, details, audio_megabytes)
    texts = {row.utterance.id: row.reference for row in shown}
    scoring = Scoring().with_units(texts.values())
    hypotheses = {row.utterance.id: row.hypothesis for row in shown}
    scores = score(scoring.apply_all(texts), scoring.apply_all(hypotheses)) if shown else None
    columns = {u.id: u.alignment for u in scores.utterances} if scores else {}
    rows = [
        {
            "id": id_,
            "speaker": row.utterance.speaker,
            "seconds": row.utterance.duration,
            "misfit": f"{row.misfit:.2f}" if math.isfinite(row.misfit) else "",
            "problem": row.problem,
            "text": row.utterance.text,
            "hypothesis": row.hypothesis,
            "alignment": columns[id_],
            "sound": clips.get(id_) or link(details[id_], path.parent),
        }
        for row in shown
        for id_ in [row.utterance.id]
    ]
    page = (
        environment()
        .get_template("check.html")
        .render(
            rows=rows,
            count=len(ranked),
            title=f"{short(str(manifest))} to check",
            model=short(str(model)),
        )
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
