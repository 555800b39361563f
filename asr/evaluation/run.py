"""Evaluate a model folder on a manifest, with everything a report needs to be repeated."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from asr.dataset import SpeechDataset
from asr.decoder import Decoder, load_decoder
from asr.errors import AudioError
from asr.evaluation.decode import hear_dataset
from asr.evaluation.error_rate import score
from asr.evaluation.report import EvaluationReport, RunFacts, build_report, write_report
from asr.files import digest
from asr.manifest import read_manifest
from asr.models.bundle import load_bundle


@dataclass(frozen=True)
class Evaluation:
    """A report, and the recordings that could not be read (id to reason), counted as deletions."""

    report: EvaluationReport
    unreadable: dict[str, str]


def evaluate(
    model: Path,
    manifest: Path,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    decoder: Decoder | None = None,
) -> Evaluation:
    """Decode `manifest` with the model folder, score, and write the report into `out` if given.

    Without `decoder`, the model's own is taken. Raises AsrError for a bad model or manifest.
    """
    bundle = load_bundle(model)
    decoder = decoder or load_decoder(model, bundle.tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bundle.model.to(device)
    utterances = read_manifest(manifest)
    rate = bundle.sample_rate
    dataset = SpeechDataset(utterances, None, bundle.text, rate)
    unreadable: dict[str, str] = {}

    def remember(name: str, error: AudioError) -> None:
        unreadable[name] = str(error)

    started = time.perf_counter()
    heard, doubting = hear_dataset(bundle.model, dataset, decoder, remember, progress)
    # What recognition takes; nobody waits for confidences who does not ask for them.
    seconds = time.perf_counter() - started - doubting
    ids = [utterance.id for utterance in utterances]
    hypotheses = {name: row.text for name, row in heard.items()}
    scores = score(dict(zip(ids, dataset.references, strict=True)), hypotheses)
    facts = RunFacts(
        model=os.path.relpath(model),
        parameters=bundle.model.parameter_count(),
        manifest=os.path.relpath(manifest),
        manifest_sha256=digest(manifest),
        decoder=decoder.description,
        audio_seconds=sum(dataset.durations),
        processing_seconds=seconds,
        peak_memory_mib=_peak_memory_mib(),
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        machine=machine_name(),
    )
    speakers = {u.id: u.speaker for u in utterances}
    confidences = {name: row.confidences for name, row in heard.items()}
    report = build_report(scores, speakers, confidences, facts)
    if out is not None:
        write_report(report, out)
    return Evaluation(report, unreadable)


def machine_name() -> str:
    """Processor (and GPU) in words, with the number of cores."""
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
