"""A small model folder with a report beside it, for the tests of this room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.decoding.decoder import Decoder, DecoderConfig
from asr.decoding.folder import save_decoder
from asr.evaluation.error_rate import score
from asr.evaluation.report import RunFacts, build_report
from asr.evaluation.report_folder import write_report
from asr.lm.estimate import estimate
from asr.models.bundle import save_bundle
from asr.models.files import weights_digest
from tests.tones import untrained_bundle

REFERENCES = {f"u{i}": "low high up" for i in range(20)}
ABOUT = {
    "languages": ["en"],
    "licence": "cc-by-4.0",
    "datasets": ["Tones"],
    "description": "Four tones.",
}
INFO: dict[str, Any] = {
    "date": "2026-11-20",
    "epochs": 3,
    "training_seconds": 90.0,
    "dev_errors": 4,
    "dev_words": 50,
    "dev_units": "words",
    "training_data": {
        "manifest": "data/train.jsonl",
        "hours": 1.5,
        "utterances": 40,
        "speakers": 7,
    },
    "about": ABOUT,
}


def make_model(
    run: Path, info: dict[str, Any] = INFO, report: str | None = "test", lm: bool = True
) -> Path:
    """`run`/model, with an n-gram decoder, and its report in `run`/`report`."""
    bundle = replace(untrained_bundle(), info=info)
    model = run / "model"
    save_bundle(model, bundle, half=True)
    if lm:
        language = estimate(["low high", "up down"], order=2)
        config = DecoderConfig(kind="beam", tuned="dev.jsonl: 4 errors in 50 words")
        save_decoder(model, Decoder(bundle.tokens, config, language))
    if report is not None:
        make_report(run / report, model, f"{report}.jsonl")
    return model


def make_report(
    folder: Path, model: Path, manifest: str = "test.jsonl", path: str = "run/model", **facts: Any
) -> Path:
    """A report in which the last word of four utterances is wrong; `path` is its model's."""
    heard = {name: "low high " + ("x" if int(name[1:]) < 4 else "up") for name in REFERENCES}
    known: dict[str, Any] = {
        "model": path,
        "manifest": f"/home/somebody/corpus/{manifest}",
        "manifest_sha256": "cd" * 32,
        "date": "2026-11-21T10:00:00+00:00",
        "decoder": "beam 16",
        "audio_seconds": 100.0,
        "processing_seconds": 2.0,
        "machine": "a machine",
        "weights_sha256": weights_digest(model),
    }
    write_report(build_report(score(REFERENCES, heard), {}, RunFacts(**(known | facts))), folder)
    return folder
