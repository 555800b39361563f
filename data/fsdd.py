"""Free Spoken Digit Dataset: 3000 recordings of ten English digits by six speakers, at 8 kHz.

Seven splits: the official one, and one per speaker in which that speaker is the test set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from asr.audio.load import audio_duration
from asr.dataset.manifest import Utterance, write_manifest
from asr.errors import AsrError

ADDRESS = "https://github.com/Jakobovski/free-spoken-digit-dataset"
# sha256 over name and bytes of every recording, by name: see `_digest`.
SHA256 = "1f8d5e32795f4e1021eafba03ea51f452ce6166c1a5380050875adbf8b660252"
SAMPLE_RATE = 8000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = 50  # of each digit by each speaker
OFFICIAL = "official"
TEST_TAKES = range(5)  # "recordings numbered 0-4 are in the test", says the corpus' README
DEV_TAKES = range(5, 7)

Split = dict[str, list[Utterance]]


def prepare(folder: Path, source: Path | None = None) -> dict[str, dict[str, Path]]:
    """Manifests train, dev and test of every split, below `folder`, from a local copy.

    The splits are `OFFICIAL` and the names of the `SPEAKERS`. Dev is always cut from the rest:
    takes 5 and 6 of every digit in the official split, the next speaker in the others.

    Raises AsrError without a copy, and if it differs from the published corpus.
    """
    if source is None:
        raise AsrError(
            "expected a local copy of the Free Spoken Digit Dataset, got none (nothing is "
            f"downloaded): clone {ADDRESS} and name its folder with --source"
        )
    utterances = _read(source)
    splits = {OFFICIAL: official_split(utterances)}
    splits |= {speaker: speaker_split(utterances, speaker) for speaker in SPEAKERS}
    paths: dict[str, dict[str, Path]] = {}
    for name, split in splits.items():
        paths[name] = {part: folder / name / f"{part}.jsonl" for part in split}
        for part, chosen in split.items():
            write_manifest(paths[name][part], chosen)
    return paths


def official_split(utterances: Sequence[Utterance]) -> Split:
    """Takes 0 to 4 are test, as published; 5 and 6 are dev, the rest train. Speakers are shared."""
    return _split(utterances, lambda u: _take(u) in TEST_TAKES, lambda u: _take(u) in DEV_TAKES)


def speaker_split(utterances: Sequence[Utterance], speaker: str) -> Split:
    """All takes of one speaker are test, all of the next (in the order of `SPEAKERS`) dev."""
    following = SPEAKERS[(SPEAKERS.index(speaker) + 1) % len(SPEAKERS)]
    return _split(utterances, lambda u: u.speaker == speaker, lambda u: u.speaker == following)


def _split(
    utterances: Sequence[Utterance],
    is_test: Callable[[Utterance], bool],
    is_dev: Callable[[Utterance], bool],
) -> Split:
    split: Split = {"train": [], "dev": [], "test": []}
    for utterance in utterances:
        part = "test" if is_test(utterance) else "dev" if is_dev(utterance) else "train"
        split[part].append(utterance)
    return split


def _take(utterance: Utterance) -> int:
    return int(utterance.id.rpartition("_")[2])


def _read(source: Path) -> list[Utterance]:
    """Every recording, by name: digit, speaker, take."""
    recordings = source / "recordings"
    if not recordings.is_dir():
        raise AsrError(f"expected FSDD with its recordings folder, got {source}: check --source")
    names = {
        f"{digit}_{speaker}_{take}": (word, speaker)
        for digit, word in enumerate(DIGITS)
        for speaker in SPEAKERS
        for take in range(TAKES)
    }
    found = {path.stem for path in recordings.glob("[!.]*.wav")}
    if found != names.keys():
        first = min(found ^ names.keys())
        raise AsrError(
            f"expected the {len(names)} recordings of FSDD, got {len(found)} in {recordings} "
            f"(first difference: {first}): get the corpus again"
        )
    _verify(recordings, sorted(names))
    utterances = []
    for name, (word, speaker) in names.items():
        path = (recordings / f"{name}.wav").resolve()
        utterances.append(Utterance(name, path, word, audio_duration(path), speaker))
    return utterances


def _verify(recordings: Path, names: Sequence[str]) -> None:
    digest = _digest(recordings, names)
    if digest != SHA256:
        raise AsrError(
            f"expected FSDD as published (sha256 {SHA256[:12]}), got {recordings} "
            f"({digest[:12]}): get the corpus again"
        )


def _digest(recordings: Path, names: Sequence[str]) -> str:
    """sha256 over name and bytes of each recording."""
    total = hashlib.sha256()
    for name in names:
        total.update(f"{name}\n".encode())
        total.update((recordings / f"{name}.wav").read_bytes())
    return total.hexdigest()
