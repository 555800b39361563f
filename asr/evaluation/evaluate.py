"""Evaluate a model folder on a manifest, with all facts that are needed to repeat the run."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import torch

from asr.dataset.manifest import Utterance, read_manifest
from asr.dataset.speech_dataset import SpeechDataset
from asr.decoding.decoder import Decoder
from asr.decoding.folder import load_decoder
from asr.errors import AsrError, AudioError
from asr.evaluation import AUDIO_MEGABYTES
from asr.evaluation.confusions import count_words
from asr.evaluation.error_rate import score
from asr.evaluation.page import Epoch, Extras
from asr.evaluation.report import EvaluationReport, RunFacts, build_report
from asr.evaluation.report_folder import check_writable, write_report
from asr.evaluation.scoring import Scoring
from asr.evaluation.snr import estimate_snr
from asr.evaluation.utterance import Details, details_of
from asr.inference.recognize_dataset import recognize_dataset
from asr.inference.word_times import Recognition
from asr.io.files import digest, read_json
from asr.io.printable import printable_name
from asr.models.bundle import Bundle, load_bundle
from asr.models.files import weights_digest
from asr.text.normalise import TextConfig, normalise


@dataclass(frozen=True)
class Evaluation:
    """A report, and unreadable recordings (id to reason), which count as deletions."""

    report: EvaluationReport
    unreadable: dict[str, str]


def evaluate(
    model: Path,
    manifest: Path,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    decoder: Decoder | None = None,
    scoring: Scoring | None = None,
    audio_megabytes: float = AUDIO_MEGABYTES,
    bundle: Bundle | None = None,
) -> Evaluation:
    """Decode `manifest` with the model folder, score, and write the report to `out` if given.

    Without `decoder`, the model's own is used; `bundle` is the model if it is already loaded.
    Raises AsrError for a bad model or manifest.
    """
    bundle = bundle or load_bundle(model)
    decoder = decoder or load_decoder(model, bundle.tokens, normalise=bundle.normalise)
    utterances = read_manifest(manifest)
    if out is not None:
        check_writable(out)  # before the recognition, which may take hours
    bundle.model.to("cuda" if torch.cuda.is_available() else "cpu")
    dataset = SpeechDataset(utterances, None, bundle.text, bundle.sample_rate)
    scoring = (scoring or Scoring()).settled(dataset.references)
    started = time.perf_counter()
    recognized, beyond, unreadable = _recognize(bundle, dataset, decoder, progress)
    # Only the time of recognition counts, without word times and confidences.
    seconds = time.perf_counter() - started - beyond
    references = {u.id: text for u, text in zip(utterances, dataset.references, strict=True)}
    hypotheses = {name: row.text for name, row in recognized.items()}
    details = {
        u.id: _details(u, recognized.get(u.id), _snr(dataset, index, unreadable))
        for index, u in enumerate(utterances)
    }
    facts = replace(
        _facts(model, manifest, bundle, decoder),
        normalisation=scoring.profile.description,
        audio_seconds=sum(dataset.durations),
        processing_seconds=seconds,
        peak_memory_mib=_peak_memory_mib(),
    )
    compared = scoring.apply_all(references), scoring.apply_all(hypotheses)
    report = build_report(
        score(*compared),
        details,
        facts,
        scoring.units or "words",
        training_words(model, bundle.text, scoring),
        unreadable,
        None if compared == (references, hypotheses) else score(references, hypotheses),
    )
    if out is not None:
        extras = Extras(bundle.tokens.units, training_curves(model), audio_megabytes)
        write_report(report, out, extras)
    return Evaluation(report, unreadable)


def _facts(model: Path, manifest: Path, bundle: Bundle, decoder: Decoder) -> RunFacts:
    return RunFacts(
        model=printable_name(os.path.relpath(model)),
        manifest=printable_name(os.path.relpath(manifest)),
        manifest_sha256=digest(manifest),
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        parameters=bundle.model.parameter_count(),
        decoder=decoder.description,
        machine=machine_name(),
        weights_sha256=weights_digest(model),
    )


def _recognize(
    bundle: Bundle,
    dataset: SpeechDataset,
    decoder: Decoder,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Recognition], float, dict[str, str]]:
    """Recognitions, the seconds spent on word times and confidences, and unreadable recordings.

    Raises AudioError if no recording is readable.
    """
    unreadable: dict[str, str] = {}

    def remember(name: str, error: AudioError) -> None:
        unreadable[name] = str(error)

    recognized, beyond = recognize_dataset(bundle.model, dataset, decoder, remember, progress)
    if not recognized:
        first = next(iter(unreadable.values()))
        raise AudioError(f"expected recordings, got none that can be read, first: {first}")
    return recognized, beyond, unreadable


def _details(utterance: Utterance, found: Recognition | None, snr: float | None) -> Details:
    known = replace(details_of(utterance), snr=snr)
    if found is None:
        return replace(known, audio=None)  # the page cannot play it either
    return replace(known, words=found.words, posteriors=found.posteriors)


def _snr(dataset: SpeechDataset, index: int, unreadable: Mapping[str, str]) -> float | None:
    if dataset.utterances[index].id in unreadable:
        return None
    return estimate_snr(dataset.waveform(index), dataset.sample_rate)


def training_words(model: Path, text: TextConfig, scoring: Scoring) -> Counter[str] | None:
    """The number of occurrences of each word in the training of a model, if its run folder, with
    the recipe and its manifest, still exists around it; else None."""
    try:
        train = read_json(model.parent / "recipe.json")["data"]["train"]
        texts = [normalise(u.text, text) for u in read_manifest(train)]
    except (OSError, ValueError, KeyError, TypeError, AsrError):
        return None
    return count_words([scoring.apply(row) for row in texts])


def training_curves(model: Path) -> tuple[Epoch, ...]:
    """Loss, dev error rate and learning rate by epoch, from the run folder around the model."""
    try:
        history = read_json(model.parent / "history.json")
        return tuple(
            Epoch(
                row["epoch"],
                row["loss"],
                row["dev_wer"],
                row["learning_rate"],
                row.get("dev_units", "words"),
            )
            for row in history
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def machine_name() -> str:
    """Processor (and GPU) with the number of cores, as text."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = names[0].partition(":")[2].strip() if names else name
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024
