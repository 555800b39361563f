"""VCTK 0.92 (Yamagishi, Veaux, MacDonald 2019, CC BY 4.0): 110 readers of English, by accent."""

from __future__ import annotations

from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.dataset.splits import split_speakers
from asr.errors import AsrError
from data.corpus import Progress, Say, locate, with_durations, write_splits
from data.download import download, unpack
from data.text import read_lines, spoken_words

URL = "https://datashare.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip"
MD5 = "8a6ba2946b36fcbef0212cad601f4bfa"
AUDIO = "wav48_silence_trimmed"
MICROPHONE = "mic1"  # the microphone that all speakers have
TEST_SPEAKERS, DEV_SPEAKERS = 10, 6
TEST_SEED, DEV_SEED = 1, 2


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of it.

    Sixteen speakers are held out, ten of them for the test; they share a few sentences with the
    others. Age, gender and accent of a speaker are columns of the manifests. Recordings without
    text (all of p315) and texts without a recording are left out and reported. Raises AsrError for
    a speaker missing from speaker-info.txt.
    """
    if source is None:
        archive = download(URL, folder / "VCTK-Corpus-0.92.zip", progress, MD5)
        source = unpack(archive, folder / "audio", progress)
    root = locate(source, AUDIO, f"VCTK-Corpus-0.92/{AUDIO}").parent
    utterances = with_durations(_utterances(root, say), progress)
    rest, test = split_speakers(utterances, TEST_SPEAKERS, TEST_SEED)
    train, dev = split_speakers(rest, DEV_SPEAKERS, DEV_SEED)
    return write_splits(folder, {"train": train, "dev": dev, "test": test})


def _utterances(root: Path, say: Say) -> list[Utterance]:
    """Pairs of txt/p225/p225_001.txt and its recording by the first microphone."""
    speakers = _speakers(root / "speaker-info.txt")
    texts = {path.stem: path for path in sorted(root.glob("txt/*/[!.]*.txt"))}
    mark = f"_{MICROPHONE}"
    audio = {p.stem.removesuffix(mark): p for p in sorted(root.glob(f"{AUDIO}/*/[!.]*{mark}.*"))}
    for what, missing in (("text", audio.keys() - texts), ("recording", texts.keys() - audio)):
        if missing:
            of = ", ".join(sorted({name.partition("_")[0] for name in missing})[:5])
            say(f"left out, without {what}: {len(missing)} of {of}")
    found = []
    for name in sorted(texts.keys() & audio):
        speaker = texts[name].parent.name
        if speaker not in speakers:
            raise AsrError(
                f"expected {speaker} in {root / 'speaker-info.txt'}, got other speakers: "
                "get the corpus again"
            )
        text = spoken_words(" ".join(line for _, line in read_lines(texts[name])))
        path = audio[name].resolve()
        found.append(Utterance(name, path, text, 0.0, speaker, extra=speakers[speaker]))
    return found


def _speakers(path: Path) -> dict[str, dict[str, str | int]]:
    """Lines ID AGE GENDER ACCENTS, then region and comments, both optional."""
    found: dict[str, dict[str, str | int]] = {}
    for number, line in read_lines(path)[1:]:
        fields = line.split()
        if len(fields) < 4 or not fields[1].isdigit():
            raise AsrError(
                f"{path}:{number}: expected id, age, gender and accent, got '{line[:40]}': "
                "get the corpus again"
            )
        name, age, gender, accent = fields[:4]
        found[name] = {"age": int(age), "gender": gender, "accent": accent}
    return found
