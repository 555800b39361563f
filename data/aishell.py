"""AISHELL-1 (Bu et al. 2017, Apache 2.0): Mandarin read by 400 speakers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from asr.dataset.manifest import Utterance
from data.corpus import (
    Progress,
    Say,
    locate,
    speakers_apart,
    tell_incomplete,
    with_durations,
    write_splits,
)
from data.download import download, unpack
from data.text import read_table

URL = "https://www.openslr.org/resources/33/data_aishell.tgz"
MD5 = "2f494334227864a8a8fec932999db9d8"
SPLITS = {"train": 120098, "dev": 14326, "test": 7176}  # utterances that have a transcript
TRANSCRIPTS = "transcript/aishell_transcript_v0.8.txt"


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of its
    tree, with the archives of speakers unpacked or not.

    Texts have no spaces, since spaces separate nothing in Chinese. A few recordings have no
    transcript; they are left out, and missing files of a local copy are reported. Raises AsrError
    if the transcripts or all recordings of a split are missing.
    """
    root = _locate(folder, source, progress)
    texts = _transcripts(root / TRANSCRIPTS)
    places = [root / "wav", *_speakers(root / "wav", folder / "speakers", progress)]
    found = {}
    for name, published in SPLITS.items():
        recordings = [path for place in places for path in place.glob(f"{name}/*/*.wav")]
        # By name, so that the place of unpacked files does not matter.
        found[name] = list(_utterances(sorted(recordings, key=lambda p: p.name), texts))
        tell_incomplete(say, name, len(found[name]), published, "utterances")
    splits = speakers_apart(found, say)
    return write_splits(folder, {n: with_durations(u, progress) for n, u in splits.items()})


def _locate(folder: Path, source: Path | None, progress: Progress | None) -> Path:
    if source is None:
        archive = download(URL, folder / "data_aishell.tgz", progress, MD5)
        return unpack(archive, folder / "audio", progress) / "data_aishell"
    return locate(source, f"data_aishell/{TRANSCRIPTS}", TRANSCRIPTS).parents[1]


def _speakers(wav: Path, folder: Path, progress: Progress | None) -> list[Path]:
    """The content of the archives of speakers: S0002.tar.gz has train/S0002/*.wav. Archives that
    are already unpacked are skipped."""
    unpacked = {path.name for path in wav.glob("*/S*") if path.is_dir()}
    archives = [p for p in sorted(wav.glob("S*.tar.gz")) if p.name[:-7] not in unpacked]
    found = []
    for done, archive in enumerate(archives, start=1):
        found.append(unpack(archive, folder / archive.name[:-7], progress))
        if progress:
            progress(done, len(archives))
    return found


def _transcripts(path: Path) -> dict[str, str]:
    """Lines such as BAC009S0002W0122 and the words, separated by spaces."""
    return {name: "".join(words.split()) for name, words in read_table(path).items()}


def _utterances(recordings: list[Path], texts: dict[str, str]) -> Iterator[Utterance]:
    for path in recordings:
        if path.stem in texts:
            yield Utterance(path.stem, path.resolve(), texts[path.stem], 0.0, path.parent.name)
