"""How badly each transcript fits its recording, by a trained model.

The misfit of a transcript is its CTC loss per token: the negative log-probability of all its
alignments, in nats. Of a model with a hierarchical CTC layer it is the loss of that layer, whose
letters follow the sound more closely than words.

B utterances, T frames, V tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from asr.ctc.loss import ctc_loss
from asr.dataset.labels import MISFIT
from asr.dataset.manifest import Utterance, write_manifest
from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.decoder import Decoder
from asr.errors import AsrError, AudioError
from asr.inference.decode import batch_seconds, evaluation_mode, load_batches
from asr.models.bundle import Bundle
from asr.padded import Padded

DIGITS = 4  # of a misfit in a manifest


@dataclass(frozen=True)
class Ranked:
    """An utterance with its misfit, in nats per token, and what the model writes for it. One that
    cannot be aligned has an infinite misfit, and the reason."""

    utterance: Utterance
    misfit: float
    reference: str
    """The transcript as the model reads it."""
    hypothesis: str
    problem: str = ""


def rank(
    bundle: Bundle,
    decoder: Decoder,
    utterances: Sequence[Utterance],
    on_error: Callable[[str, AudioError], None],
    progress: Callable[[int, int], None] | None = None,
) -> list[Ranked]:
    """Utterances by their misfit, the worst first. A recording that cannot be read is left out, and
    passed to `on_error` with its id."""
    found = {
        row.utterance.id: row for row in measure(bundle, decoder, utterances, on_error, progress)
    }
    return worst_first(found[u.id] for u in utterances if u.id in found)


def worst_first(found: Iterable[Ranked]) -> list[Ranked]:
    """Sort by misfit; equal ones keep their order."""
    return sorted(found, key=lambda row: -row.misfit)


def measure(
    bundle: Bundle,
    decoder: Decoder,
    utterances: Sequence[Utterance],
    on_error: Callable[[str, AudioError], None],
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Ranked]:
    """Each utterance with its misfit, in no order. `on_error` as in `rank`."""
    targets: dict[str, list[int]] = {}
    references = {u.id: u.text for u in utterances}
    problems: dict[str, str] = {}
    for u in utterances:
        try:
            references[u.id] = bundle.normalise(u.text)
            targets[u.id] = bundle.tokens.encode(references[u.id])
        except AsrError as error:  # characters or words that the model does not know
            targets[u.id], problems[u.id] = [], str(error)
    # Without the transcripts, of which words without phones would be refused.
    silent = [replace(u, text="") for u in utterances]
    data = SpeechDataset(silent, None, bundle.text, bundle.sample_rate)
    known = {u.id: u for u in utterances}
    model = bundle.on_device()
    device = next(model.parameters()).device
    with evaluation_mode(model), torch.inference_mode():
        for batch in load_batches(data, batch_seconds(model), on_error, progress):
            scores, spelled = model.forward_and_spell(model.features(batch.waves.to(device)))
            own = [targets[id_] for id_ in batch.ids]
            if spelled is None:
                losses = misfits(scores, own)
            else:
                losses = misfits(spelled, [bundle.tokens.spell(target) for target in own])
            rows = zip(batch.ids, losses, decoder.texts(scores), strict=True)
            for id_, misfit, text in rows:
                problem = problems.get(id_, "")
                if not problem and not math.isfinite(misfit):
                    problem = "the transcript has more tokens than the recording has frames"
                misfit = math.inf if problem else misfit
                yield Ranked(known[id_], misfit, references[id_], text, problem)


def misfits(log_probs: Padded, targets: Sequence[Sequence[int]]) -> list[float]:
    """The CTC loss of each target per token, in nats. Shape: log_probs [B, T, V]."""
    longest = max(1, *map(len, targets))
    values = torch.zeros(len(targets), longest, dtype=torch.long)
    for row, target in zip(values, targets, strict=True):
        row[: len(target)] = torch.tensor(target, dtype=torch.long)
    lengths = torch.tensor([len(target) for target in targets])
    padded = Padded(values, lengths).to(log_probs.values.device)
    losses = ctc_loss(log_probs, padded) / padded.lengths.clamp(min=1)
    return [float(loss) for loss in losses]


def values_of(row: Ranked) -> list[float | str | None]:
    """The findings as plain JSON values."""
    misfit = row.misfit if math.isfinite(row.misfit) else None
    return [misfit, row.reference, row.hypothesis, row.problem]


def read_values(values: Any, utterance: Utterance) -> Ranked:
    """The inverse of `values_of`."""
    misfit, reference, hypothesis, problem = values
    misfit = math.inf if misfit is None else misfit
    return Ranked(utterance, misfit, reference, hypothesis, problem)


def with_findings(row: Ranked) -> Utterance:
    """The utterance with the misfit and the hypothesis, for a manifest."""
    findings: dict[str, float | str | None] = {
        MISFIT: round(row.misfit, DIGITS) if math.isfinite(row.misfit) else None,
        "hypothesis": row.hypothesis,
    }
    if row.problem:
        findings["problem"] = row.problem
    others = {key: value for key, value in row.utterance.extra.items() if key != "problem"}
    return replace(row.utterance, extra=others | findings)


def write_ranking(
    folder: Path, ranked: Sequence[Ranked], utterances: Sequence[Utterance], count: int
) -> Mapping[str, Path]:
    """Write the worst `count` transcripts as check.jsonl, worst first, and the others as rest.jsonl
    in the order of the manifest; each file atomically, and only if it is not empty.

    Raises ManifestError for a path that cannot be written.
    """
    worst = ranked[:count]
    others = {row.utterance.id for row in ranked[count:]}
    parts = {
        "check": [with_findings(row) for row in worst],
        "rest": [u for u in utterances if u.id in others],
    }
    written = {}
    for name, rows in parts.items():
        if rows:
            written[name] = folder / f"{name}.jsonl"
            write_manifest(written[name], rows)
        else:
            (folder / f"{name}.jsonl").unlink(missing_ok=True)
    return written
