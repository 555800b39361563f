"""Multilingual LibriSpeech (Pratap et al. 2020, CC BY 4.0): audiobooks in eight languages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from asr.io.paths import files_below
from data.corpus import Progress, Say, locate, speakers_apart, with_durations, write_splits
from data.download import download, unpack
from data.text import read_columns, read_lines

URL = "https://dl.fbaipublicfiles.com/mls/mls_{language}.tar.gz"
MD5 = {
    "english": "9d4249911e318c2b8dcfcfecb484d865",
    "german": "91ac982bf63869307f1b8950dfb7c776",
    "dutch": "6b171a16baff0108efd320b1ad65b9d1",
    "french": "4172e807697259bff9ad63661aecabf6",
    "spanish": "6c34698dd522dde28fdc43309e9cc1ac",
    "italian": "dc77f5805aecc7182aa20786032e5dc1",
    "portuguese": "12d54613fae75ae5fb1d55836408f3ee",
    "polish": "ce1a1278006cc373c9d1cb6dbfc03d47",
}
# Published lists of limited training sets: 1hr is six lists of ten minutes, and both together are
# the ten hours of the paper.
LIMITED = {"": (), "1hr": ("1hr",), "9hr": ("9hr",), "10hr": ("1hr", "9hr")}


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
    language: str = "german",
    limited: str = "",
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of its
    tree, in FLAC or Opus; `limited` is one of `LIMITED`.

    Raises AsrError for a missing list, or a transcript without recording.
    """
    for option, value, known in (("language", language, MD5), ("limited", limited, LIMITED)):
        if value not in known:
            raise AsrError(
                f"expected one of {', '.join(filter(None, known))}, got '{value}': correct "
                f"--{option}"
            )
    root = _locate(language, folder, source, progress)
    found = {name: list(_utterances(root / name)) for name in ("train", "dev", "test")}
    if limited:
        found["train"] = _listed(found["train"], root / "train" / "limited_supervision", limited)
    for name, utterances in speakers_apart(found, say).items():
        # Recordings are located only now, since a limited set needs few of thousands of hours.
        found[name] = with_durations([_with_audio(root / name, u) for u in utterances], progress)
    return write_splits(folder, found)


def _locate(language: str, folder: Path, source: Path | None, progress: Progress | None) -> Path:
    name = f"mls_{language}"
    if source is None:
        url = URL.format(language=language)
        archive = download(url, folder / f"{name}.tar.gz", progress, MD5[language])
        return unpack(archive, folder / "audio", progress) / name
    if source.resolve().name in (name, f"{name}_opus") and (source / "train").is_dir():
        return source
    return locate(source, name, f"{name}_opus")


def _utterances(split: Path) -> Iterator[Utterance]:
    """The lines of transcripts.txt, SPEAKER_BOOK_NUMBER<tab>TEXT; the book is a separate column."""
    for number, (name, text) in read_columns(split / "transcripts.txt", 2):
        parts = name.split("_")
        if len(parts) != 3 or not all(part.isalnum() for part in parts) or not text:
            raise AsrError(
                f"expected SPEAKER_BOOK_NUMBER and a text, got '{name[:40]}' and '{text[:40]}' "
                f"({split / 'transcripts.txt'}:{number}): get the corpus again"
            )
        # The path of the recording without its suffix, to be completed.
        place = split / "audio" / parts[0] / parts[1] / name
        yield Utterance(name, place, text, 0.0, parts[0], extra={"book": parts[1]})


def _with_audio(split: Path, utterance: Utterance) -> Utterance:
    for suffix in (".flac", ".opus"):
        path = utterance.audio.with_name(utterance.id + suffix)
        if path.is_file():
            return replace(utterance, audio=path.resolve())
    raise AsrError(
        f"expected {utterance.id}.flac or .opus, which {split / 'transcripts.txt'} names, got no "
        f"such file in {utterance.audio.parent}: unpack the corpus again"
    )


def _listed(utterances: list[Utterance], folder: Path, limited: str) -> list[Utterance]:
    """The ids of the published lists, 9hr/handles.txt and 1hr/0/handles.txt to 1hr/5."""
    paths = []
    for name in LIMITED[limited]:
        lists = [path for path in files_below(folder / name) if path.name == "handles.txt"]
        if not lists:
            raise AsrError(
                f"expected handles.txt in {folder / name}, got none: get the corpus again"
            )
        paths += lists
    wanted = {line for path in paths for _, line in read_lines(path)}
    missing = wanted - {u.id for u in utterances}
    if missing:
        raise AsrError(
            f"expected transcripts of all that {folder} lists, got none of {min(missing)}: get the "
            "corpus again"
        )
    return [u for u in utterances if u.id in wanted]
