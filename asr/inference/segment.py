"""Cutting long recordings into short utterances, at the quietest moments between words.

A recurrent network computes frames in sequence, and the work per frame grows with the number of
utterances in a batch. Batches of short utterances have more of them for the same duration, and
train about twice as fast on a CPU. CTC also converges sooner on shorter texts.

S samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from asr.audio.silence import quietest
from asr.dataset.manifest import Utterance, read_manifest, write_manifest
from asr.dataset.segments import WordPart, segments
from asr.dataset.shards import load_recording
from asr.errors import AlignmentError, AudioError, ConfigError
from asr.inference.forced_alignment import align_words
from asr.inference.joining import items_of
from asr.inference.output_names import free_id
from asr.models.bundle import Bundle, load_bundle

SECONDS = 4.0  # approximate length of a segment


@dataclass(frozen=True)
class Cut:
    """The segments of an utterance, or why it is left whole."""

    segments: tuple[Utterance, ...]
    error: str | None = None


@dataclass(frozen=True)
class CutManifest:
    """The numbers of utterances and of their segments, and why some are left whole."""

    utterances: int
    segments: int
    left_whole: tuple[str, ...]


def cut_manifest(
    model: Path,
    manifest: Path,
    out: Path,
    seconds: float = SECONDS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CutManifest:
    """Write a manifest of the segments of another one's utterances, atomically.

    Raises AsrError for an unusable model or manifest, or an unwritable path.
    """
    utterances = read_manifest(manifest)
    cuts = cut_all(load_bundle(model), utterances, seconds)
    return write_cuts(out, cuts, len(utterances), progress)


def write_cuts(
    out: Path,
    cuts: Iterable[Cut],
    count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CutManifest:
    """Write a manifest of the segments of `count` utterances, atomically.

    Raises ManifestError for an unwritable path.
    """
    found: list[Cut] = []
    for done, cut in enumerate(cuts, start=1):
        found.append(cut)
        progress(done, count)
    segments = _distinct(found)
    write_manifest(out, segments)
    errors = (cut.error for cut in found if cut.error is not None)
    return CutManifest(count, len(segments), tuple(errors))


def _distinct(cuts: Sequence[Cut]) -> list[Utterance]:
    """All segments. An utterance that was left whole may have the id of a segment of another one,
    as "a-1" beside "a": it keeps it, and the segment gets a longer one."""
    taken = {cut.segments[0].id for cut in cuts if len(cut.segments) == 1}
    segments = []
    for cut in cuts:
        for segment in cut.segments:
            name = segment.id if len(cut.segments) == 1 else free_id(segment.id, taken)
            segments.append(replace(segment, id=name))
    return segments


_OWN = ("id", "text", "duration", "start", "end")  # what a segment does not share with the whole


def cut_values(cut: Cut) -> list[dict[str, Any]]:
    """The segments as plain JSON values, as far as they differ from their utterance."""
    return [{name: getattr(segment, name) for name in _OWN} for segment in cut.segments]


def read_cut(values: Iterable[Mapping[str, Any]], u: Utterance, error: str | None) -> Cut:
    """The segments of utterance `u` from `cut_values`."""
    return Cut(tuple(replace(u, **row) for row in values), error)


def cut_all(bundle: Bundle, utterances: Sequence[Utterance], seconds: float) -> Iterator[Cut]:
    """Each utterance in segments of about `seconds`, in order; a bad one is left whole. Raises
    ConfigError for a model of phones, which does not know where words end.

    Words are located with the bundle's model. Segments refer to the same recordings: no audio is
    written. Their ids are the utterance's with -1, -2 and so on; one that is not cut keeps its id.
    """
    if bundle.text.phones is not None:
        raise ConfigError(
            "expected a model that writes words, got one of phones: cut with one of characters, "
            "words or subwords"
        )
    bundle.on_device().eval()
    for u in utterances:
        try:
            samples = load_recording(u.audio, bundle.sample_rate, u.start, u.end, u.packed)
            words = align_words(bundle, torch.from_numpy(samples), u.text, u.id)
        except (AudioError, AlignmentError) as error:
            yield Cut((u,), str(error))
            continue
        items = items_of(words, seconds / 2)
        gaps = [
            quietest(samples, a.word.end, b.word.start, bundle.sample_rate)
            for a, b in itertools.pairwise(items)
        ]
        parts = [WordPart(item.word.text, item.glued) for item in items]
        duration = len(samples) / bundle.sample_rate
        yield Cut(tuple(segments(u, parts, gaps, duration, seconds, bundle.normalise)))
