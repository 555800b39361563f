"""TIMIT (LDC93S1, Garofolo et al. 1993): phones of read sentences; local copies only.

The text is phones: the 61 of the transcripts mapped to the usual 39 for scoring (Lee and Hon 1989,
table II), so that "word" errors are phone errors. The 61 are kept in the manifests as `phones`. The
test set is the core test set of 24 speakers (TIMIT's own documentation, testset.doc); dev is 50
other speakers of the test part (Halberstadt 1998, as in Kaldi's recipe). SA sentences, which are
the same for all speakers, are left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from asr.io.paths import files_below
from data.corpus import Progress, Say, tell_incomplete, with_durations, write_splits
from data.text import read_lines

CORE_TEST = """
    mdab0 mwbt0 felc0 mtas1 mwew0 fpas0 mjmp0 mlnt0 fpkt0 mlll0 mtls0 fjlm0
    mbpm0 mklt0 fnlp0 mcmj0 mjdh0 fmgd0 mgrt0 mnjm0 fdhc0 mjln0 mpam0 fmld0
"""
DEV = """
    faks0 fdac1 fjem0 mgwt0 mjar0 mmdb1 mmdm2 mpdf0 fcmh0 fkms0 mbdg0 mbwm0 mcsh0 fadg0 fdms0 fedw0
    mgjf0 mglb0 mrtk0 mtaa0 mtdt0 mthc0 mwjg0 fnmr0 frew0 fsem0 mbns0 mmjr0 mdls0 mdlf0 mdvc0 mers0
    fmah0 fdrw0 mrcs0 mrjm4 fcal1 mmwh0 fjsj0 majc0 mjsw0 mreb0 fgjd0 fjmg0 mroa0 mteb0 mjfc0 mrjr0
    fmml0 mrws1
"""
SPEAKERS = dict.fromkeys(CORE_TEST.split(), "test") | dict.fromkeys(DEV.split(), "dev")
PUBLISHED = {"train": 3696, "dev": 400, "test": 192}
# A phone and those mapped to it; the glottal stop q is dropped.
SAME = {
    "aa": "ao", "ah": "ax ax-h", "er": "axr", "hh": "hv", "ih": "ix", "l": "el", "m": "em",
    "n": "en nx", "ng": "eng", "sh": "zh", "uw": "ux",
    "sil": "pcl tcl kcl bcl dcl gcl h# pau epi",
}  # fmt: skip
ALONE = "ae aw ay b ch d dh dx eh ey f g iy jh k ow oy p r s t th uh v w y z"
FOLDED = {other: phone for phone, others in SAME.items() for other in others.split()}
FOLDED |= {phone: phone for phone in [*SAME, *ALONE.split()] if phone != "sil"} | {"q": ""}


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder` from a local copy, names in either case.

    Raises AsrError without a copy, for an unknown phone and for a sentence without its recording.
    """
    if source is None:
        raise AsrError(
            "expected a local copy of TIMIT, which cannot be downloaded, got none: get LDC93S1 and "
            "give its folder with --source"
        )
    splits: dict[str, list[Utterance]] = {part: [] for part in PUBLISHED}
    files = {path.relative_to(source).as_posix().lower(): path for path in files_below(source)}
    for place in sorted(files):
        # Possibly below folders such as timit/: train/dr1/fcjf0/si1027.phn
        parts = place.split("/")
        if place.endswith(".phn") and len(parts) >= 4 and not parts[-1].startswith("sa"):
            part = _part(parts[-4], parts[-2])
            if part:
                utterance = _utterance(files, place)
                # Dev speakers lie in the folder TEST; the column says that they are no test set.
                splits[part].append(replace(utterance, extra={**utterance.extra, "part": part}))
    if not any(splits.values()):
        raise AsrError(f"expected TRAIN/DR1/FCJF0/SI1027.PHN in {source}, got none: check --source")
    for part, utterances in splits.items():
        tell_incomplete(say, part, len(utterances), PUBLISHED[part], "sentences")
    return write_splits(folder, {p: with_durations(utts, progress) for p, utts in splits.items()})


def _part(side: str, speaker: str) -> str:
    return "train" if side == "train" else SPEAKERS.get(speaker, "") if side == "test" else ""


def _utterance(files: dict[str, Path], place: str) -> Utterance:
    """A sentence from its .phn, .wrd and .wav (or .wav.wav, as in converted copies)."""
    stem = place.removesuffix(".phn")
    audio = files.get(f"{stem}.wav.wav", files.get(f"{stem}.wav"))
    if audio is None:
        raise AsrError(
            f"expected a recording beside {files[place]}, got none: copy the whole TIMIT"
        )
    phones = _labels(files[place])
    for number, phone in enumerate(phones, start=1):
        if phone not in FOLDED:
            raise AsrError(
                f"{files[place]}:{number}: expected one of TIMIT's 61 phones, got '{phone}': "
                "copy the whole TIMIT again"
            )
    dialect, speaker, sentence = stem.split("/")[-3:]
    extra = {"phones": " ".join(phones), "dialect": dialect, "gender": speaker[0]}
    if f"{stem}.wrd" in files:
        extra["words"] = " ".join(_labels(files[f"{stem}.wrd"]))
    text = " ".join(FOLDED[phone] for phone in phones if FOLDED[phone])
    name = f"{speaker}_{sentence}"
    return Utterance(name, audio.resolve(), text, 0.0, speaker, extra=extra)


def _labels(path: Path) -> list[str]:
    """The labels of lines `first-sample last-sample label`."""
    labels = []
    for number, line in read_lines(path):
        fields = line.split()
        if len(fields) != 3 or not (fields[0].isdigit() and fields[1].isdigit()):
            raise AsrError(
                f"{path}:{number}: expected two samples and a label, got '{line[:40]}': "
                "copy the whole TIMIT again"
            )
        labels.append(fields[2])
    return labels
