"""Times of the words of a known text, and their file formats.

S samples, T frames, V tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from asr.dataset.manifest import Utterance, read_manifest
from asr.dataset.shards import load_recording
from asr.errors import AlignmentError, AsrError, AudioError, reason
from asr.inference.plain_values import read_words
from asr.inference.time_formats import Word, ctm_names, to_ctm, to_json, to_textgrid
from asr.inference.word_times import time_words
from asr.io.files import atomic_path
from asr.io.printable import printable_json, printable_name
from asr.models.bundle import Bundle
from asr.padded import Padded

LONGEST_NAME = 200  # bytes; file systems allow 255, some of which a suffix needs


@dataclass(frozen=True)
class Aligned:
    """An utterance with its words, or the reason for a failure. It begins `start` seconds after the
    start of its recording, whose name in ctm is `recording`."""

    id: str
    seconds: float = 0.0
    words: tuple[Word, ...] = ()
    error: str | None = None
    recording: str = ""
    start: float = 0.0


def align_all(
    bundle: Bundle, utterances: Sequence[Utterance], ids: Collection[str] | None = None
) -> Iterator[Aligned]:
    """Recordings with aligned transcripts, in order; a failed one has an error. With `ids`, only
    these of the utterances.

    Times count from the start of the utterance, which may be a segment of a recording.
    """
    bundle.on_device().eval()
    names = ctm_names(u.audio for u in utterances if u.packed is None)
    for u in utterances:
        if ids is not None and u.id not in ids:
            continue
        try:
            samples = torch.from_numpy(
                load_recording(u.audio, bundle.sample_rate, u.start, u.end, u.packed)
            )
            words = align_words(bundle, samples, u.text, u.id)
        except (AudioError, AlignmentError) as error:
            yield Aligned(u.id, error=str(error))
        else:
            # A packed recording has no name but its id.
            name = names[u.audio] if u.packed is None else "_".join(u.id.split())
            seconds = len(samples) / bundle.sample_rate
            yield Aligned(u.id, seconds, tuple(words), recording=name, start=u.start)


@torch.inference_mode()
def align_words(bundle: Bundle, samples: Tensor, text: str, name: str) -> list[Word]:
    """The times of the words of `text` in a recording of any length; see `time_words`.

    Shape: samples [S] in [-1, 1] at the bundle's rate. Raises AlignmentError naming the recording
    `name` if the text cannot be encoded or does not fit.
    """
    try:
        text = bundle.normalise(text)
    except AsrError as error:  # words without phones
        raise AlignmentError(f"{name}: {error}") from None
    device = next(bundle.model.parameters()).device
    waves = Padded(samples[None], torch.tensor([len(samples)])).to(device)
    scores, spelled = bundle.model.forward_and_spell(bundle.model.features(waves))
    seconds = len(samples) / bundle.sample_rate
    used, spells = (scores, False) if spelled is None else (spelled, True)
    (log_probs,) = used.unpad()
    return time_words(bundle.tokens, log_probs, spells, text, seconds, name)


# --- input and output ---


def read_source(source: Path, text: Path | None) -> list[Utterance]:
    """The utterances of a manifest, or a recording with its text in a separate file.

    Raises ManifestError or AlignmentError naming the file.
    """
    if text is None and source.suffix != ".jsonl":
        raise AlignmentError(f"expected a manifest (.jsonl), got {source}: name one or give --text")
    if text is None:
        return list(read_manifest(source))
    try:
        words = text.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise AlignmentError(
            f"{text}: expected text, got {reason(error)}: correct the path or the file"
        ) from None
    if not words:
        raise AlignmentError(f"expected the text of {source}, got nothing in {text}: write it")
    return [Utterance(printable_name(source.stem), source, " ".join(words), 0.0)]


def to_text(result: Aligned, format: Literal["json", "ctm", "textgrid"]) -> str:
    """An utterance's words in one of the formats, ending with a line feed."""
    if format == "textgrid":
        return to_textgrid({"": result.words}, result.seconds)
    if format == "ctm":
        return to_ctm(result.recording, result.words, result.start)
    row = {"id": result.id, "seconds": round(result.seconds, 3), "words": to_json(result.words)}
    return printable_json(row) + "\n"


def read_aligned(values: Mapping[str, Any]) -> Aligned:
    """An utterance from the values of `dataclasses.asdict`."""
    return Aligned(**{**values, "words": read_words(values["words"])})


def write_aligned(out: Path, result: Aligned, format: Literal["json", "ctm", "textgrid"]) -> None:
    """One file per utterance, named by its id; slashes in it make folders below `out`.

    Raises AlignmentError for an id that leads out of `out` or is not a valid file name.
    """
    parts = result.id.split("/")
    longest = max(len(part.encode()) for part in parts)
    if {"", ".", ".."} & set(parts) or "\0" in result.id or longest > LONGEST_NAME:
        raise AlignmentError(
            f"expected an id that can name a file below {out}, got {result.id!r}: rename it, or "
            "print without --out"
        )
    ending = "TextGrid" if format == "textgrid" else format
    with atomic_path(out / f"{result.id}.{ending}") as temporary:
        temporary.write_text(to_text(result, format), encoding="utf-8")
