"""speechocean762 (Zhang et al. 2021, CC BY 4.0): English by Mandarin speakers, half of them young.

The published lists have equally many speakers for training and test. Age and gender of a speaker
and the experts' score of a sentence (0 to 10) are columns of the manifests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.dataset.manifest import Utterance
from asr.dataset.splits import split_speakers
from asr.errors import AsrError
from asr.io.files import read_json
from data.corpus import Progress, Say, locate, tell_incomplete, with_durations, write_splits
from data.download import download, unpack
from data.text import read_table

URL = "https://www.openslr.org/resources/101/speechocean762.tar.gz"
PUBLISHED = 2500  # utterances in either part
DEV_SPEAKERS = 12
DEV_SEED = 1


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of it.

    dev is twelve whole speakers of the training part. Raises AsrError for a missing list, an
    utterance or a speaker missing from a list, or a missing recording.
    """
    if source is None:
        # OpenSLR publishes no checksum of this archive.
        archive = download(URL, folder / "speechocean762.tar.gz", progress)
        source = unpack(archive, folder / "audio", progress)
    root = locate(source, "train/wav.scp", "speechocean762/train/wav.scp").parents[1]
    scores = _scores(root / "resource" / "scores.json")
    parts = {part: _utterances(root, part, scores) for part in ("train", "test")}
    for part, utterances in parts.items():
        tell_incomplete(say, part, len(utterances), PUBLISHED, "utterances")
    measured = {part: with_durations(utterances, progress) for part, utterances in parts.items()}
    train, dev = split_speakers(measured["train"], DEV_SPEAKERS, DEV_SEED)
    return write_splits(folder, {"train": train, "dev": dev, "test": measured["test"]})


def _utterances(root: Path, part: str, scores: dict[str, Any]) -> list[Utterance]:
    names = ("wav.scp", "text", "utt2spk", "spk2age", "spk2gender")
    tables = {name: read_table(root / part / name) for name in names}

    def look_up(table: str, key: str) -> str:
        if key not in tables[table]:
            raise AsrError(
                f"expected {key} in {root / part / table}, got none: get the corpus again"
            )
        return tables[table][key]

    found = []
    for name, place in tables["wav.scp"].items():
        audio = root / place
        if not audio.is_file():
            raise AsrError(
                f"expected the recording of {name}, got no {audio}: get the corpus again"
            )
        speaker = look_up("utt2spk", name)
        age, gender = look_up("spk2age", speaker), look_up("spk2gender", speaker)
        extra: dict[str, Any] = {"age": int(age) if age.isdigit() else age, "gender": gender}
        if name in scores:
            extra["score"] = scores[name]
        text = look_up("text", name)
        found.append(Utterance(name, audio.resolve(), text, 0.0, speaker, extra=extra))
    return found


def _scores(path: Path) -> dict[str, Any]:
    """The total score of every utterance; empty for a copy without scores."""
    if not path.is_file():
        return {}
    try:
        return {name: entry["total"] for name, entry in read_json(path).items()}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise AsrError(
            f"expected utterances with a total score, got {path}: get the corpus again"
        ) from None
