"""Speech Commands v2 (Warden 2018, CC BY 4.0): 35 English words, one per one-second recording."""

from __future__ import annotations

from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from data.corpus import Progress, Say, locate, tell_incomplete, with_durations, write_splits
from data.download import download, unpack
from data.text import read_lines

URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
MD5 = "6b74f3901214cb2c2934e98196829835"
PUBLISHED = {"train": 84843, "dev": 9981, "test": 11005}
LISTS = {"dev": "validation_list.txt", "test": "testing_list.txt"}


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of it.

    The split is the published one: its two lists contain whole speakers. `_background_noise_` is
    left out. Raises AsrError for a missing list, a list with a missing recording, or a recording
    without a speaker in its name.
    """
    if source is None:
        archive = download(URL, folder / "speech_commands_v0.02.tar.gz", progress, MD5)
        source = unpack(archive, folder / "audio", progress)
    dev_list = LISTS["dev"]
    root = locate(source, dev_list, f"speech_commands_v0.02/{dev_list}").parent
    recordings = {f"{p.parent.name}/{p.name}": p for p in sorted(root.glob("*/[!.]*.wav"))}
    part_of = _parts(root, recordings)
    splits: dict[str, list[Utterance]] = {name: [] for name in PUBLISHED}
    for name, path in recordings.items():
        if not name.startswith("_"):
            splits[part_of.get(name, "train")].append(_utterance(path))
    for part, utterances in splits.items():
        tell_incomplete(say, part, len(utterances), PUBLISHED[part], "recordings")
    measured = {part: with_durations(utts, progress) for part, utts in splits.items()}
    return write_splits(folder, measured)


def _parts(root: Path, recordings: dict[str, Path]) -> dict[str, str]:
    """dev or test for every recording in a list."""
    part_of: dict[str, str] = {}
    for part, file in LISTS.items():
        for number, name in read_lines(root / file):
            if name not in recordings or name in part_of:
                raise AsrError(
                    f"{root / file}:{number}: expected a recording that is there and in one list, "
                    f"got '{name[:60]}': get the corpus again"
                )
            part_of[name] = part
    return part_of


def _utterance(path: Path) -> Utterance:
    speaker, mark, take = path.stem.partition("_nohash_")
    if not (speaker and mark and take):
        raise AsrError(
            f"expected a name as in 0a7c2a8d_nohash_0.wav, got {path}: get the corpus again"
        )
    word = path.parent.name
    return Utterance(f"{word}-{path.stem}", path.resolve(), word, 0.0, speaker)
