"""FLEURS (Conneau et al. 2022, CC BY 4.0): the same 2009 sentences read in 102 languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from data.corpus import Progress, Say, locate, with_durations, write_splits
from data.download import download, unpack
from data.text import read_columns

# The archives in the dataset's repository on the Hugging Face hub.
URL = "https://huggingface.co/datasets/google/fleurs/resolve/main/data/{language}/{file}"
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[a-z]{4})?_([a-z]{2}|\d{3})")  # de_de, cmn_hans_cn, es_419
SPLITS = ("train", "dev", "test")
COLUMNS = 7  # sentence, file, text as written, text, its characters, samples, gender


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
    language: str = "en_us",
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archives or a local copy of
    them: LANGUAGE/SPLIT.tsv with audio/SPLIT.tar.gz or audio/SPLIT/.

    The corpus names no speakers. A sentence is read by up to three people, so a recording's id is
    its file name. Rows without text or recording, and repeated recordings, are left out and
    reported. Raises AsrError for a missing or malformed table or archive, and for another language.
    """
    if not _LANGUAGE.fullmatch(language):
        raise AsrError(
            f"expected a language such as de_de or en_us, got {language[:50]!r}: check --language"
        )
    splits = {}
    for split in SPLITS:
        table, audio = _locate(split, language, folder, source, progress)
        rows = list(_utterances(table, audio))
        found = {u.id: u for u in reversed(rows) if u.text and u.audio.is_file()}
        if len(found) < len(rows):
            left = len(rows) - len(found)
            say(f"left out of {split}: {left} rows without text or a recording of their own")
        splits[split] = with_durations(list(reversed(found.values())), progress)
    return write_splits(folder, splits)


def _locate(
    split: str, language: str, folder: Path, source: Path | None, progress: Progress | None
) -> tuple[Path, Path]:
    """Table and folder of recordings of a split, downloaded and unpacked if necessary."""
    if source is None:
        files = (f"{split}.tsv", f"audio/{split}.tar.gz")
        urls = (URL.format(language=language, file=file) for file in files)
        table, archive = (
            download(url, folder / "published" / file, progress)
            for url, file in zip(urls, files, strict=True)
        )
    else:
        table = locate(source, f"{language}/{split}.tsv", f"data/{language}/{split}.tsv")
        archive = locate(table.parent, f"audio/{split}", f"audio/{split}.tar.gz")
    audio = archive if archive.is_dir() else unpack(archive, folder / "audio" / split, progress)
    # The archive contains a folder with the name of the split.
    return table, audio / split if (audio / split).is_dir() else audio


def _utterances(table: Path, audio: Path) -> Iterator[Utterance]:
    for number, (sentence, file, _, text, _, _, gender) in read_columns(table, COLUMNS):
        if not file or "/" in file:
            raise AsrError(
                f"{table}:{number}: expected the name of a recording, got '{file[:40]}': get the "
                "corpus again"
            )
        extra = {"sentence": sentence, "gender": gender.lower()}
        # A recording may be a link to a file with a different name.
        yield Utterance(Path(file).stem, (audio / file).resolve(), text, 0.0, extra=extra)
