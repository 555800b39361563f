"""yesno (OpenSLR 1): one man says yes and no in Hebrew (ken, lo), eight words per recording."""

from __future__ import annotations

import re
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from data.corpus import Progress, Say, tell_incomplete, with_durations, write_splits
from data.download import download, unpack

URL = "https://www.openslr.org/resources/1/waves_yesno.tar.gz"
MD5 = "962ff6e904d2df1126132ecec6978786"
WORDS = {"0": "NO", "1": "YES"}
PUBLISHED = 60
TEST_EVERY = 5  # recordings in the order of their names
DEV_EVERY = 6  # of the remaining ones


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of it.

    There is one speaker, so the parts are split by recording: every fifth is test, of the others
    every sixth is dev. Raises AsrError for a recording whose name does not spell its words.
    """
    if source is None:
        archive = download(URL, folder / "waves_yesno.tar.gz", progress, MD5)
        source = unpack(archive, folder / "audio", progress)
    found = [*source.glob("[!.]*.wav"), *source.glob("waves_yesno/[!.]*.wav")]
    if not found:
        raise AsrError(f"expected recordings of yesno in {source}, got none: check --source")
    tell_incomplete(say, "yesno", len(found), PUBLISHED, "recordings")
    utterances = with_durations([_utterance(path) for path in sorted(found)], progress)
    test = utterances[::TEST_EVERY]
    rest = [utterance for i, utterance in enumerate(utterances) if i % TEST_EVERY]
    train = [utterance for i, utterance in enumerate(rest) if i % DEV_EVERY]
    return write_splits(folder, {"train": train, "dev": rest[::DEV_EVERY], "test": test})


def _utterance(path: Path) -> Utterance:
    if not re.fullmatch("[01](_[01]){7}", path.stem):
        raise AsrError(
            f"expected a name of eight 0 and 1, as in 0_1_0_1_1_0_0_1.wav, got {path}: remove it"
        )
    text = " ".join(WORDS[digit] for digit in path.stem.split("_"))
    # No speaker: training refuses a dev set with speakers of train, and there is only one.
    return Utterance(path.stem, path.resolve(), text, 0.0)
