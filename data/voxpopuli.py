"""VoxPopuli (Wang et al. 2021, CC0): speeches in the European Parliament, transcribed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from data.corpus import Progress, Say, speakers_apart, write_splits
from data.hub import Columns, Split, materialise

DATASET = "facebook/voxpopuli"
LANGUAGES = (
    "en", "de", "fr", "es", "pl", "it", "ro", "hu", "cs", "nl", "fi", "hr", "sk", "sl", "et", "lt",
)  # fmt: skip
SPLITS = {"train": "train", "dev": "validation", "test": "test"}
COLUMNS = Columns(
    text="normalized_text",
    id="audio_id",
    speaker="speaker_id",
    extra=("gender", "accent", "is_gold_transcript"),
)


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
    language: str = "en",
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, their recordings as FLAC below it, streamed from
    the hub or read from a local copy of its repository (LANGUAGE/train-*.parquet and so on).

    A stopped run resumes. Rows without a text, and speakers in two splits, are left out and
    reported. Raises AsrError for an unreadable split.
    """
    if language not in LANGUAGES:
        raise AsrError(
            f"expected a language that VoxPopuli transcribes ({', '.join(LANGUAGES)}), got "
            f"'{language}': correct --language"
        )
    if source is not None and not source.is_dir():
        raise AsrError(f"expected a folder, got {source}: check --source")
    splits = {
        name: materialise(
            Split(str(source.resolve()) if source else DATASET, language, published),
            COLUMNS,
            folder / "audio" / name,
            progress=progress,
            say=say,
        )
        for name, published in SPLITS.items()
    }
    known = {name: [_without_none(u) for u in utterances] for name, utterances in splits.items()}
    return write_splits(folder, speakers_apart(known, say))


def _without_none(utterance: Utterance) -> Utterance:
    """Removes None, the corpus's value for unknown facts of a speaker."""
    extra = {name: value for name, value in utterance.extra.items() if value != "None"}
    speaker = "" if utterance.speaker == "None" else utterance.speaker
    return replace(utterance, speaker=speaker, extra=extra)
