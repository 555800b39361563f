"""THCHS-30 (Wang and Zhang 2015, Apache 2.0): 30 hours of Mandarin read in an office."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.dataset.splits import split_speakers
from asr.errors import AsrError
from data.corpus import Progress, Say, locate, tell_incomplete, with_durations, write_splits
from data.download import download, unpack
from data.text import read_lines

URL = "https://www.openslr.org/resources/18/data_thchs30.tgz"
MD5 = "2d2252bde5c8429929e1841d4cb95e90"
PARTS = {"train": 10000, "dev": 893, "test": 2495}
DEV_SPEAKERS = 3
DEV_SEED = 1


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of its
    tree.

    The speakers of the published dev part are also in the training part. In that case, dev is three
    whole speakers of both, and train is the rest; this is reported, as are missing files of a local
    copy. Raises AsrError for a missing part, transcript or recording.
    """
    if source is None:
        archive = download(URL, folder / "data_thchs30.tgz", progress, MD5)
        root = unpack(archive, folder / "audio", progress) / "data_thchs30"
    else:
        root = locate(source, "data_thchs30/train", "train").parent
    parts = {}
    for part, published in PARTS.items():
        parts[part] = with_durations(list(_utterances(root, part)), progress)
        tell_incomplete(say, part, len(parts[part]), published, "utterances")
    train, dev = parts["train"], parts["dev"]
    if {u.speaker for u in train} & {u.speaker for u in dev}:
        train, dev = split_speakers([*train, *dev], DEV_SPEAKERS, DEV_SEED)
        chosen = ", ".join(sorted({u.speaker for u in dev}))
        say(f"dev is {chosen} of train and dev: speakers of the published dev are in train")
    return write_splits(folder, {"train": train, "dev": dev, "test": parts["test"]})


def _utterances(root: Path, part: str) -> Iterator[Utterance]:
    """Files A11_0.wav and A11_0.wav.trn, of speaker A11. Either may be only in data/."""
    transcripts = sorted((root / part).glob("[!.]*.wav.trn"))
    if not transcripts:
        raise AsrError(f"expected *.wav.trn in {root / part}, got none: unpack the corpus again")
    for path in transcripts:
        name = path.name.removesuffix(".wav.trn")
        places = (path.with_suffix(""), root / "data" / f"{name}.wav")
        recordings = [place for place in places if place.is_file()]
        if not recordings or not re.fullmatch(r"[A-Z]\d+_\d+", name):
            raise AsrError(
                f"expected SPEAKER_NUMBER with a recording beside it or in data, got {path}: "
                "unpack the corpus again"
            )
        speaker = name.partition("_")[0]
        yield Utterance(name, recordings[0].resolve(), _words(path), 0.0, speaker)


def _words(path: Path) -> str:
    """The first line of a transcript; the others are syllables and phones. A transcript may be the
    path of another one, as git and tar write links on some systems: ../data/A11_0.wav.trn.

    Some published lists contain " l =", which is not spoken.
    """
    first = _first_line(path)
    if first.endswith(".wav.trn"):
        path = path.parent.parent / "data" / Path(first).name
        first = _first_line(path)
    if not first or first.endswith(".trn"):
        raise AsrError(f"expected words, got '{first[:40]}' ({path}:1): unpack the corpus again")
    return first.replace(" l =", "")


def _first_line(path: Path) -> str:
    return " ".join(dict(read_lines(path)).get(1, "").split())
