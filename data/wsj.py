"""Wall Street Journal (LDC93S6, LDC94S13: Paul and Baker 1992), local copies only.

train is si_284, dev the Nov 1993 development set (dev93, 20k words, not verbalised), test eval92,
by LDC's index files, anywhere below the copy. Transcripts are the .dot files, or the .lsn ones if
there is no .dot; `clean` describes their normalisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from asr.io.paths import files_below
from data.corpus import Progress, Say, tell_incomplete, with_durations, write_splits
from data.text import read_lines

INDICES = {
    "train": ("wsj0/doc/indices/train/tr_s_wv1.ndx", "wsj1/doc/indices/si_tr_s.ndx"),
    "dev": ("wsj1/doc/indices/h1_p0.ndx",),
    "test": ("wsj0/doc/indices/test/nvp/si_et_20.ndx",),
}
PUBLISHED = {"train": 37416, "dev": 503, "test": 333}
ABSENT = "wsj0/si_tr_s/401/"  # indexed, but on no disc
AUDIO = (".wv1", ".wav", ".sph", ".flac")  # the close microphone; .wv2 is the other one

_NO_WORD = re.compile(r"\[[^\]]*\]|[.~]")
_NOT_SPOKEN = re.compile(r"-?\([A-Z']+\)-?")  # of a fragment: COM(PANY)-
# ,COMMA --DASH "DOUBLE-QUOTE 'SINGLE-QUOTE 'QUOTE (LEFT-PAREN %PERCENT .POINT ...ELLIPSIS; an
# apostrophe alone begins words such as 'CAUSE.
_VERBALISED = re.compile(r"(?:[^\w'*<]+|'(?=(?:[A-Z]+-)*QUOTE\b|APOSTROPHE\b))(?=[A-Z])(.+)")


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder` from a local copy, names in either case.

    The discs may be in separate folders (11-13.1/wsj0) or in one tree (wsj0, wsj1). Indexed
    recordings that a copy lacks are reported. Raises AsrError without a copy, an index, or the
    transcript of a recording.
    """
    if source is None:
        raise AsrError(
            "expected a local copy of WSJ, which cannot be downloaded, got none: get LDC93S6 and "
            "LDC94S13 and give their folder with --source"
        )
    files = [path for path in files_below(source) if path.is_file()]
    audio = _audio(source, files)
    texts = _texts(files)
    splits: dict[str, list[Utterance]] = {}
    for part, indices in INDICES.items():
        wanted = [place for index in indices for place in _places(source, files, index)]
        there = [place for place in dict.fromkeys(wanted) if place in audio]
        tell_incomplete(say, part, len(there), PUBLISHED[part], "recordings")
        utterances = [_utterance(audio[place], texts) for place in there]
        splits[part] = [u for u in utterances if u.text]  # 46uc030b and 47hc0418 are empty
        if silent := len(utterances) - len(splits[part]):
            say(f"left out of {part}: {silent} recordings without words")
    return write_splits(folder, {p: with_durations(utts, progress) for p, utts in splits.items()})


def _audio(source: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Recordings by their path on the discs, wsj0/si_tr_s/011/011c0201; published formats first."""
    found: dict[str, Path] = {}
    for suffix in AUDIO:
        for path in files:
            if path.suffix.lower() == suffix:
                tail = "/".join(path.relative_to(source).with_suffix("").parts[-4:])
                found.setdefault(tail.lower(), path)
    return found


def _places(source: Path, files: Iterable[Path], index: str) -> list[str]:
    """The entries of an index, from lines such as `11_13_1:wsj0/si_et_20/440/440c0401.wv1`."""
    for path in files:
        if f"/{path.relative_to(source).as_posix()}".lower().endswith(f"/{index}"):
            break
    else:
        raise AsrError(f"expected {index} in {source}, got none: check --source, copy doc/ as well")
    places = []
    for number, line in read_lines(path):
        match = re.fullmatch(r"\w+:\s*/?(\w+/\w+/\w+/\w{8})(\.wv1)?", line.lower())
        if match is None and not line.startswith(";"):
            raise AsrError(
                f"{path}:{number}: expected disc:folder/recording, got '{line[:60]}': copy it again"
            )
        if match and not match[1].startswith(ABSENT):
            places.append(match[1])
    return places


def _texts(files: Iterable[Path]) -> dict[str, str]:
    """Transcripts by utterance, from lines `words (id)`."""
    found: dict[str, str] = {}
    for suffix in (".dot", ".lsn"):
        for path in files:
            if path.suffix.lower() == suffix:
                for number, line in read_lines(path):
                    match = re.fullmatch(r"(.*?)\s*\((\w{8})\)", line)
                    if match is None:
                        raise AsrError(
                            f"{path}:{number}: expected a sentence and (id), got '{line[:60]}': "
                            "copy it again"
                        )
                    found.setdefault(match[2].lower(), match[1])
    return found


def _utterance(path: Path, texts: dict[str, str]) -> Utterance:
    name = path.stem.lower()
    if name not in texts:
        raise AsrError(f"expected {name} in a .dot or .lsn file, got none: copy transcrp/ as well")
    return Utterance(name, path.resolve(), clean(texts[name]), 0.0, name[:3])


def clean(sentence: str) -> str:
    """The spoken words, in upper case: without backslashes, noises in brackets, pauses, the part of
    a fragment that was not said, or marks of stress, length and cut-off; <words> that were to be
    omitted but were spoken, and *words* that were mispronounced, stay; verbalised punctuation
    becomes its words.

    >>> clean("[loud_breath] The *firm* 's <two> B\\\\. ,COMMA --DASH . %PERCENT [<door_slam]")
    "THE FIRM 'S TWO B. COMMA DASH PERCENT"
    >>> clean("com(pany)- -(inter)national ~~")
    'COM NATIONAL'
    """
    words = []
    for word in sentence.replace("\\", "").upper().split():
        if _NO_WORD.fullmatch(word):
            continue
        word = _NOT_SPOKEN.sub("", word)
        if match := _VERBALISED.fullmatch(word):
            word = match[1].replace("-", " ")
        # A colon within a word is a lengthened sound, an exclamation mark a stressed one.
        word = re.sub(r"[*<>:!~]", "", word)
        if word:
            words.append(word)
    return " ".join(words)
