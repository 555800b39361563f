"""Mozilla Common Voice (Ardila et al. 2020, CC0): sentences in many languages."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from asr.dataset.manifest import Utterance
from asr.errors import AsrError, reason
from data.corpus import Progress, Say, speakers_apart, with_durations, write_splits

ADDRESS = "https://mozilladatacollective.com"  # since October 2025
PARTS = ("", "validated")
REQUIRED = ("client_id", "path", "sentence")
EXTRA = ("age", "gender", "accents", "accent", "variant", "locale")  # older releases have accent


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say = print,
    language: str = "en",
    part: str = "",
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from a local copy of a release.

    With part "validated", train has all clips approved by listeners, not only one recording of each
    sentence. Speakers of dev and test are never in train, nor those of test in dev: their other
    clips are left out and reported. Raises AsrError without a local copy, and for a missing clip.
    """
    if part not in PARTS:
        raise AsrError(f"expected --part validated or none, got '{part}': correct it")
    if source is None:
        raise AsrError(
            "expected a local copy of Common Voice, got none (Mozilla's downloads need an account):"
            f" get {language} from {ADDRESS}, unpack it and name its folder with --source"
        )
    root = _locate(source, language)
    durations = _durations(root / "clip_durations.tsv")
    splits = {
        name: list(_utterances(root, f"{table}.tsv", durations))
        for name, table in (("train", part or "train"), ("dev", "dev"), ("test", "test"))
    }
    splits = speakers_apart(splits, say)
    if part == "validated":  # in train.tsv each sentence is the only one in all three tables
        said = {u.text for name in ("dev", "test") for u in splits[name]}
        new = [u for u in splits["train"] if u.text not in said]
        say(f"left out of train: {len(splits['train']) - len(new)} sentences of dev or test")
        splits["train"] = new
    for name, utterances in splits.items():
        heard = [u for u in utterances if u.text and u.duration != 0]
        if len(heard) < len(utterances):
            say(f"left out of {name}: {len(utterances) - len(heard)} clips without text or sound")
        # -1: the release does not state the duration.
        unknown = iter(with_durations([u for u in heard if u.duration < 0], progress))
        splits[name] = [next(unknown) if u.duration < 0 else u for u in heard]
    return write_splits(folder, splits)


def _locate(source: Path, language: str) -> Path:
    """The folder of a language: in that of the release, in its parent, or `source` itself."""
    releases = sorted(source.glob(f"cv-corpus-*/{language}/train.tsv"))
    if len(releases) > 1:
        raise AsrError(
            f"expected one release of Common Voice in {source}, got {len(releases)}: name one of "
            f"them with --source, such as {releases[-1].parents[1]}"
        )
    own = [source] if source.resolve().name == language else []
    for place in (source / language, *(path.parent for path in releases), *own):
        if (place / "train.tsv").is_file():
            return place
    raise AsrError(
        f"expected {language}/train.tsv or cv-corpus-*/{language}/train.tsv in {source}, got none: "
        "check --source and --language"
    )


def _rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # Quotation marks are part of sentences.
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
            missing = [name for name in required if name not in (reader.fieldnames or ())]
            if missing:
                raise AsrError(
                    f"expected the column {missing[0]}, got none ({path}:1): get it again"
                )
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError) as error:
        raise AsrError(
            f"expected a table of Common Voice, got {path}: {reason(error)}; get it again"
        ) from None


def _durations(path: Path) -> dict[str, float]:
    """Seconds of each clip, which newer releases publish: mp3 must be decoded to know it."""
    if not path.is_file():
        return {}
    found = {}
    for line, row in _rows(path, ("clip", "duration[ms]")):
        if not row["duration[ms]"].isdecimal():
            raise AsrError(
                f"expected milliseconds, got '{row['duration[ms]']}' ({path}:{line}): get it again"
            )
        found[row["clip"]] = int(row["duration[ms]"]) / 1000
    return found


def _utterances(root: Path, table: str, durations: Mapping[str, float]) -> Iterator[Utterance]:
    for line, row in _rows(root / table, REQUIRED):
        clip = (root / "clips" / row["path"]).resolve()
        if not row["client_id"] or not clip.is_file():
            raise AsrError(
                f"expected a speaker and a clip, got '{row['client_id'][:12]}' and '{row['path']}' "
                f"({root / table}:{line}): unpack the release again"
            )
        extra = {name: row[name] for name in EXTRA if row.get(name)}
        # Some older releases have clips without a byte, and no table of durations.
        seconds = durations.get(row["path"], -1.0) if clip.stat().st_size else 0.0
        text = row["sentence"].strip()
        name = Path(row["path"]).stem  # a clip may be a link to a file with a different name
        yield Utterance(name, clip, text, seconds, row["client_id"], extra=extra)
