"""LJ Speech 1.1 (Ito and Johnson 2017, public domain): one woman reads seven books, 24 h."""

from __future__ import annotations

import re
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from data.corpus import Progress, Say, locate, tell_incomplete, with_durations, write_splits
from data.download import download, unpack
from data.text import read_lines, spoken_words

URL = "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2"
MD5 = "c4763be9595ddfa79c2fc6eaeb3b6c8e"
PUBLISHED = 13100
# There is one speaker and no published split. Neighbouring clips share subject and names, so whole
# chapters are held out, by the number in LJ001-0001.
PARTS = {"LJ001": "test", "LJ002": "test", "LJ003": "dev"}


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of it.

    The text is the normalised one (numbers in words) without punctuation; the printed text is kept
    in the manifests as `written`. Raises AsrError for a line of metadata.csv without three fields,
    or without its recording.
    """
    if source is None:
        archive = download(URL, folder / "LJSpeech-1.1.tar.bz2", progress, MD5)
        source = unpack(archive, folder / "audio", progress)
    metadata = locate(source, "metadata.csv", "LJSpeech-1.1/metadata.csv")
    utterances = _utterances(metadata)
    tell_incomplete(say, "LJ Speech", len(utterances), PUBLISHED, "clips")
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for utterance in with_durations(utterances, progress):
        splits[PARTS.get(utterance.id.partition("-")[0], "train")].append(utterance)
    return write_splits(folder, splits)


def _utterances(metadata: Path) -> list[Utterance]:
    """Lines id|as printed|normalised, and wavs/id.wav beside the list."""
    found = []
    for number, line in read_lines(metadata):
        fields = line.split("|")
        audio = metadata.parent / "wavs" / f"{fields[0]}.wav"
        # Quotation marks are characters of the text here, not of the format.
        if not (re.fullmatch(r"LJ\d{3}-\d{4}", fields[0]) and len(fields) == 3 and audio.is_file()):
            raise AsrError(
                f"{metadata}:{number}: expected id|text|normalised text with wavs/id.wav, got "
                f"'{line[:40]}': get the corpus again"
            )
        text = spoken_words(fields[2])
        extra = {"written": fields[1]}
        # No speaker: training refuses a dev set with speakers of train, and there is only one.
        found.append(Utterance(fields[0], audio.resolve(), text, 0.0, extra=extra))
    return found
