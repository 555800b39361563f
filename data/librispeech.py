"""LibriSpeech and Mini LibriSpeech (Panayotov et al. 2015, CC BY 4.0): English books read aloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.dataset.splits import split_speakers
from asr.errors import AsrError
from data.corpus import Progress, Say, locate, tell_incomplete, with_durations, write_splits
from data.download import download, unpack
from data.text import read_lines

URL = "https://www.openslr.org/resources/{resource}/{subset}.tar.gz"
DEV_SEED = 1


@dataclass(frozen=True)
class Archive:
    """A subset as published on OpenSLR."""

    resource: int
    md5: str
    utterances: int


ARCHIVES = {
    "train-clean-5": Archive(31, "5df7d4e78065366204ca6845bb08f490", 1519),
    "dev-clean-2": Archive(31, "6d7ab67ac6a1d2c993d050e16d61080d", 1089),
    "train-clean-100": Archive(12, "2a93770f6d5c6c964bc36631d331a522", 28539),
    "train-clean-360": Archive(12, "c0e676e450a7ff2f54aeade5171606fa", 104014),
    "train-other-500": Archive(12, "d1a0fd59409feb2c614ce4d30c387708", 148688),
    "dev-clean": Archive(12, "42e2234ba48799c1f50f24a7926300a1", 2703),
    "dev-other": Archive(12, "c8d0bcc9cca99d4f8b62fcc847357931", 2864),
    "test-clean": Archive(12, "32fa31d27d2e1cad72775fee3f4849a9", 2620),
    "test-other": Archive(12, "fb5a50374b501bb3bac4815ee91d3135", 2939),
}


@dataclass(frozen=True)
class Corpus:
    """The subsets for training, development and test."""

    train: tuple[str, ...]
    tests: Mapping[str, str]
    dev: tuple[str, ...] = ()
    dev_speakers: int = 0
    """Speakers cut from the training part if no subset is for development."""


_TESTS = {"test-clean": "test-clean", "test-other": "test-other"}
_DEV = ("dev-clean", "dev-other")
CORPORA = {
    # dev-clean-2 is the only test set of Mini LibriSpeech, so it must not serve as dev.
    "mini": Corpus(("train-clean-5",), {"test": "dev-clean-2"}, dev_speakers=3),
    "100": Corpus(("train-clean-100",), _TESTS, _DEV),
    "960": Corpus(("train-clean-100", "train-clean-360", "train-other-500"), _TESTS, _DEV),
}


def prepare(
    name: str,
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and of every test set in `folder`, from the published archives or from a
    local copy of their tree; `name` is one of `CORPORA`.

    A local copy may hold part of a subset, in any audio format; missing files are reported. Raises
    AsrError for a missing subset, or a transcript without recording.
    """
    corpus = CORPORA[name]

    def read(subset: str) -> list[Utterance]:
        found = with_durations(_utterances(_locate(subset, folder, source, progress)), progress)
        tell_incomplete(say, subset, len(found), ARCHIVES[subset].utterances, "utterances")
        return found

    train = [utterance for subset in corpus.train for utterance in read(subset)]
    dev = [utterance for subset in corpus.dev for utterance in read(subset)]
    if not dev:
        train, dev = split_speakers(train, corpus.dev_speakers, DEV_SEED)
    tests = {part: read(subset) for part, subset in corpus.tests.items()}
    return write_splits(folder, {"train": train, "dev": dev, **tests})


def _locate(
    subset: str,
    folder: Path,
    source: Path | None,
    progress: Progress | None,
) -> Path:
    """The folder of a subset, downloaded and unpacked if there is no local copy."""
    if source is None:
        archive = ARCHIVES[subset]
        url = URL.format(resource=archive.resource, subset=subset)
        path = download(url, folder / f"{subset}.tar.gz", progress, archive.md5)
        return unpack(path, folder / "audio" / subset, progress) / "LibriSpeech" / subset
    return locate(source, subset, f"LibriSpeech/{subset}")


def _utterances(subset: Path) -> list[Utterance]:
    """The utterances of SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt and the recordings beside it."""
    transcripts = sorted(subset.glob("*/*/[!.]*.trans.txt"))
    if not transcripts:
        raise AsrError(f"expected speakers with chapters in {subset}, got none: get it again")
    found = []
    for path in transcripts:
        # Sorted: of one recording in two formats, always the same is taken.
        audio = {file.stem: file for file in sorted(path.parent.iterdir()) if file.suffix != ".txt"}
        for number, line in read_lines(path):
            name, _, text = line.partition(" ")
            if name not in audio or not text.strip():
                raise AsrError(
                    f"{path}:{number}: expected an id with a recording beside it and its text, got "
                    f"'{line[:40]}': get the corpus again"
                )
            file, speaker = audio[name].resolve(), path.parents[1].name
            found.append(Utterance(name, file, text.strip(), 0.0, speaker))
    return found
