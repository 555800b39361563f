"""`asr label`: recordings without transcripts to training data."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.console import check_out
from asr.cli.decoder_options import DecoderOptions
from asr.cli.option_groups import SectionedCommand, with_options
from asr.cli.sharding import ShardOptions, merged_rows, run_shard
from asr.errors import AudioError, ConfigError, ManifestError
from asr.io.terminal import progress_bar, tell

if TYPE_CHECKING:
    from asr.dataset.manifest import Utterance
    from asr.evaluation.label_threshold import ConfidenceThreshold
    from asr.inference.label import Labelled
    from asr.inference.recognizer import Recognizer
    from asr.io.shard_results import Row

app = typer.Typer()


@app.command(
    cls=SectionedCommand,
    epilog="Example: asr label exp/first/model recordings/ --dev dev.jsonl --out labels.jsonl",
)
@with_options
def label(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    source: Annotated[Path, typer.Argument(help="Folder or manifest of recordings.")],
    options: DecoderOptions,
    sharding: ShardOptions,
    out: Annotated[Path, typer.Option(help="Manifest of the labels, for data.labels.")],
    dev: Annotated[
        Path | None, typer.Option(help="Manifest of transcribed recordings, to choose labels by.")
    ] = None,
    target: Annotated[
        float, typer.Option(min=0, help="Highest error rate on --dev of what is kept, in percent.")
    ] = 10.0,
    seconds: Annotated[
        float, typer.Option(min=0.5, help="Target length of an utterance if nobody pauses.")
    ] = 10.0,
) -> None:
    """Transcribe recordings as training data, and keep labels that --dev shows to be reliable.

    Long recordings are cut at pauses. The same command resumes one that was stopped.
    """
    from asr.inference.label import check_writes_words, read_labelled, recordings
    from asr.io.shard_results import file_size
    from asr.io.sharding import Shard

    check_out(out, source, dev)
    _refuse_transcripts(out)
    rows = {u.id: u for u in recordings(source, lambda note: tell(f"note: {note}"))}
    recognizer = options.recognizer(model)
    check_writes_words(recognizer)
    given = source if source.suffix == ".jsonl" else "folder"  # of a folder, ids say enough
    facts = {"model": model, "source": given, "seconds": seconds, **asdict(options)}
    asked = sharding.check(out) is not None or sharding.merge
    # A single run has a journal like a shard's, so that it can be resumed.
    journal = sharding if asked else replace(sharding, shard="1/1")
    work = journal.work("label", out, facts, list(rows))
    assert work is not None

    def size(id_: str) -> int | None:
        return file_size(rows[id_].audio)

    results = partial(_label, recognizer, rows, seconds)
    if sharding.shard:
        sys.exit(min(1, sharding.run(work, size, results)))
    if dev is not None:
        _tell_if_learnt(model, dev)
    kept = set(rows) if dev is None else _not_in(dev, list(rows.values()))
    threshold = None if dev is None else _threshold(recognizer, dev, target)
    failed = 0 if sharding.merge else run_shard(work, Shard(1, 1), size, results, named=False)
    with merged_rows(work, size) as row:
        read = ((u, row(u.id)) for u in rows.values())
        found = [read_labelled(made.value, u, made.error) for u, made in read]
    if sharding.merge:
        failed = _tell_errors(found)
    _write(out, [labelled for labelled in found if labelled.recording.id in kept], threshold)
    if failed:
        sys.exit(1)
    if not asked:
        shutil.rmtree(work.folder, ignore_errors=True)


def _refuse_transcripts(out: Path) -> None:
    """Raise ConfigError for a manifest that `asr label` has not written, such as transcripts."""
    from asr.dataset.labels import CONFIDENCE
    from asr.dataset.manifest import read_manifest

    if not out.is_file() or not out.stat().st_size:
        return
    try:
        are_labels = all(CONFIDENCE in u.extra for u in read_manifest(out))
    except ManifestError:
        are_labels = False
    if not are_labels:
        raise ConfigError(
            f"expected a new --out or an earlier one of labels, got {out}, which has lines without "
            "confidence, such as transcripts: choose another"
        )


def _tell_if_learnt(model: Path, dev: Path) -> None:
    """A model has few errors, and high confidence, on what it was trained on."""
    from asr.dataset.manifest import read_manifest
    from asr.dataset.repeats import of_others
    from asr.project.earlier import earlier_sets

    rows = read_manifest(dev)
    learnt = sum(map(bool, of_others(rows, earlier_sets(model.resolve()).train)))
    if learnt:
        tell(
            f"note: the model was trained on {learnt} of the {len(rows)} recordings of --dev: it "
            "will have more errors on others than this command finds; give others"
        )


def _not_in(dev: Path, recordings: Sequence[Utterance]) -> set[str]:
    """The ids of the recordings that --dev does not have: dev must not be trained on."""
    from asr.dataset.manifest import read_manifest
    from asr.dataset.repeats import of_others

    own = of_others(recordings, read_manifest(dev))
    kept = {u.id for u, shared in zip(recordings, own, strict=True) if not shared}
    if len(kept) < len(recordings):
        tell(f"left out: {len(recordings) - len(kept)} recordings that --dev has too")
    if not kept:
        raise AudioError("expected recordings that --dev does not have, got none: label others")
    return kept


def _label(
    recognizer: Recognizer, rows: Mapping[str, Utterance], seconds: float, ids: Sequence[str]
) -> Iterator[tuple[str, Row]]:
    from asr.inference.label import label_all, label_values
    from asr.io.shard_results import Row

    for made in label_all(recognizer, [rows[id_] for id_ in ids], seconds):
        yield made.recording.id, Row(label_values(made), made.error)


def _tell_errors(found: Sequence[Labelled]) -> int:
    """Report failed recordings; returns their number."""
    errors = [labelled.error for labelled in found if labelled.error is not None]
    for error in errors:
        tell(f"error: {error}")
    return len(errors)


def _write(out: Path, found: Sequence[Labelled], threshold: ConfidenceThreshold | None) -> None:
    from asr.inference.label import write_labels

    ids = [labelled.recording.id for labelled in found]
    written = write_labels(out, found, ids, 0.0 if threshold is None else threshold.confidence)
    if written.empty:
        tell(f"recordings without a word: {written.empty}")
    if threshold is None:
        tell(f"kept all {written}: without --dev, nothing is known of their errors")
    else:
        tell(f"kept {written}, of confidence {threshold.confidence:g} or more; {threshold}")
    tell(f"labels: {out}")


def _threshold(recognizer: Recognizer, dev: Path, target: float) -> ConfidenceThreshold:
    from asr.dataset.manifest import read_manifest
    from asr.evaluation.label_threshold import confidence_threshold, recognize_dev

    utterances = read_manifest(dev)
    with progress_bar("recognising dev") as progress:
        return confidence_threshold(recognize_dev(recognizer, utterances, progress), target / 100)
