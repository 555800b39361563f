"""Evaluate a model folder on a manifest, with all facts that are needed to repeat the run."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

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
from asr.inference.plain_values import read_recognition
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
    dataset = texts_and_audio(bundle, utterances)
    results = recognize(bundle, decoder, dataset, progress)
    return report_results(
        model, manifest, out, decoder, scoring, audio_megabytes, bundle, dataset, results
    )


def texts_and_audio(bundle: Bundle, utterances: Sequence[Utterance]) -> SpeechDataset:
    """The utterances as a model reads them. Raises AsrError for words without phones."""
    return SpeechDataset(utterances, None, bundle.text, bundle.sample_rate)


@dataclass(frozen=True)
class Result:
    """What the report needs to know about an utterance besides its manifest line."""

    recognition: Recognition | None = None
    error: str | None = None
    """Why the recording cannot be read."""
    snr: float | None = None
    seconds: float = 0.0
    """Its part of the time of recognition, without word times and confidences."""
    memory_mib: float = 0.0
    """The peak of its process."""
    machine: str = ""


def recognize(
    bundle: Bundle,
    decoder: Decoder,
    dataset: SpeechDataset,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Result]:
    """Recognise utterances; the results by id, in their order."""
    bundle.on_device()
    utterances = dataset.utterances
    unreadable: dict[str, str] = {}

    def remember(name: str, error: AudioError) -> None:
        unreadable[name] = str(error)

    started = time.perf_counter()
    recognized, beyond = recognize_dataset(bundle.model, dataset, decoder, remember, progress)
    seconds = time.perf_counter() - started - beyond
    snr = {
        u.id: estimate_snr(dataset.waveform(index), dataset.sample_rate)
        for index, u in enumerate(utterances)
        if u.id not in unreadable
    }
    audio, memory, machine = sum(dataset.durations), _peak_memory_mib(), machine_name()
    return {
        u.id: Result(
            recognized.get(u.id),
            unreadable.get(u.id),
            snr.get(u.id),
            seconds * u.duration / audio if audio else seconds / len(utterances),
            memory,
            machine,
        )
        for u in utterances
    }


def read_result(values: Mapping[str, Any]) -> Result:
    """A result from the values of `dataclasses.asdict`."""
    known = values["recognition"]
    return Result(**{**values, "recognition": None if known is None else read_recognition(known)})


def report_results(
    model: Path,
    manifest: Path,
    out: Path | None,
    decoder: Decoder,
    scoring: Scoring | None,
    audio_megabytes: float,
    bundle: Bundle,
    dataset: SpeechDataset,
    results: Mapping[str, Result],
) -> Evaluation:
    """Score the results, and write the report to `out` if given.

    Raises AudioError if no recording could be read.
    """
    unreadable = {name: row.error for name, row in results.items() if row.error is not None}
    if len(unreadable) == len(results):
        first = next(iter(unreadable.values()))
        raise AudioError(f"expected recordings, got none that can be read, first: {first}")
    scoring, utterances = (scoring or Scoring()).with_units(dataset.references), dataset.utterances
    references = {u.id: text for u, text in zip(utterances, dataset.references, strict=True)}
    known = {name: row.recognition for name, row in results.items() if row.recognition is not None}
    hypotheses = {name: row.text for name, row in known.items()}
    details = {u.id: _details(u, known.get(u.id), results[u.id].snr) for u in utterances}
    facts = replace(
        _facts(model, manifest, bundle, decoder),
        normalisation=scoring.profile.description,
        audio_seconds=sum(dataset.durations),
        processing_seconds=sum(row.seconds for row in results.values()),
        peak_memory_mib=max(row.memory_mib for row in results.values()),
        machine="; ".join(dict.fromkeys(row.machine for row in results.values())),
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
        weights_sha256=weights_digest(model),
    )


def _details(utterance: Utterance, found: Recognition | None, snr: float | None) -> Details:
    known = replace(details_of(utterance), snr=snr)
    if found is None:
        return replace(known, audio=None)  # the page cannot play it either
    return replace(known, words=found.words, posteriors=found.posteriors)


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
