"""TED-LIUM 3 (Hernandez et al. 2018, CC BY-NC-ND 3.0): 452 hours of TED talks, legacy split.

The text is that of Kaldi's recipe without annotations: pronunciations "(2)" and pauses <sil> are
dropped, "it 's" is joined to "it's". Kaldi keeps <unk> as a word of its lexicon and excludes it
from scoring; here it is dropped, as are noises in braces and segments without any remaining words.
"""

from __future__ import annotations

import re
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from data.corpus import Progress, Say, locate, tell_incomplete, with_durations, write_splits
from data.download import download, unpack
from data.text import read_lines

URL = "https://www.openslr.org/resources/51/TEDLIUM_release-3.tgz"
PUBLISHED = {"train": 2351, "dev": 8, "test": 11}  # talks
IGNORED = "ignore_time_segment_in_scoring"
LONGEST = 1e6  # seconds
# An unknown word goes with its endings: `<unk> 's`.
_NOT_SAID = re.compile(r"<unk>(?: +'\S+)*|<[^>]*>|\{[^}]*\}|\(\d+\)|\([^ ]*\)$")
_SUFFIX = re.compile(r" +(?=')")


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of it.

    Utterances are segments of talks. A talk counts as one speaker, although other people may speak
    in it, and a person who gave two talks counts as two. Raises AsrError for a malformed line of a
    transcript and for a talk without its recording.
    """
    if source is None:
        # OpenSLR publishes no md5 of this archive.
        archive = download(URL, folder / "TEDLIUM_release-3.tgz", progress)
        source = unpack(archive, folder / "audio", progress)
    root = locate(source, "legacy", "TEDLIUM_release-3/legacy")
    splits = {part: _utterances(root, part, say) for part in PUBLISHED}
    return write_splits(folder, {p: with_durations(utts, progress) for p, utts in splits.items()})


def _utterances(root: Path, part: str, say: Say) -> list[Utterance]:
    transcripts = sorted((root / part / "stm").glob("[!.]*.stm"))
    if not transcripts:
        raise AsrError(f"expected transcripts in {root / part / 'stm'}, got none: check --source")
    tell_incomplete(say, part, len(transcripts), PUBLISHED[part], "talks")
    return [utterance for path in transcripts for utterance in _talk(path)]


def _talk(path: Path) -> list[Utterance]:
    """Lines of `talk channel speaker start end <label> words`."""
    audio = path.parents[1] / "sph" / f"{path.stem}.sph"
    if not audio.is_file():
        raise AsrError(f"expected the recording of {path}, got no {audio}: get the corpus again")
    found = []
    for number, line in read_lines(path):
        if line.startswith(";;"):
            continue
        fields = line.split(maxsplit=5)
        start, end = _times(fields)
        if not 0 <= start < end < LONGEST:
            raise AsrError(
                f"{path}:{number}: expected talk, channel, speaker, start, a later end, label and "
                f"words, got '{line[:60]}': get the corpus again"
            )
        text = clean(fields[5] if len(fields) > 5 else "")
        if text and IGNORED not in text:
            name = f"{path.stem}-{round(100 * start):07}-{round(100 * end):07}"
            found.append(Utterance(name, audio.resolve(), text, 0.0, path.stem, start, end))
    return found


def _times(fields: list[str]) -> tuple[float, float]:
    try:
        return float(fields[3]), float(fields[4])
    except (ValueError, IndexError):
        return 0.0, 0.0


def clean(text: str) -> str:
    """The spoken words, without the label before them.

    >>> clean("<o,f0,male> <sil> and(2) it 's <unk> {NOISE} we 'll see (AlGore_2009)")
    "and it's we'll see"
    >>> clean("<NA> the <unk> 's house")
    'the house'
    """
    words = " ".join(_NOT_SAID.sub(" ", text).split())
    return _SUFFIX.sub("", words)
