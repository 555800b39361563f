"""CMU AN4 (census): spelled words, numbers and commands; 948 training and 130 test utterances."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from asr.audio.load import audio_duration
from asr.dataset.manifest import Utterance, write_manifest
from asr.dataset.splits import split_speakers
from asr.errors import AsrError
from asr.io.paths import files_below
from data.download import download, unpack

URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz"
# sha256 over the transcripts, file lists and audio, in order: see `_digest`.
SHA256 = "8c4fa3641ebb37e5f5414e60ad1cb95c450594558c4f375cf0fa1e270f9dd2d9"
PARTS = {"train": 948, "test": 130}
DEV_SPEAKERS = 9
DEV_SEED = 1


def prepare(
    folder: Path,
    source: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Manifests train, dev and test in `folder`, from the published archive or a local copy of it.

    dev is nine whole speakers of the training part; train is the rest. Raises AsrError if the
    corpus differs from the published one.
    """
    if source is None:
        archive = download(URL, folder / "an4_sphere.tar.gz", progress)
        source = unpack(archive, folder / "audio", progress) / "an4"
    if not (source / "etc").is_dir():
        raise AsrError(f"expected AN4 with its etc and wav folders, got {source}: check --source")
    parts = {part: _read_part(source, part) for part in PARTS}
    _verify(source, parts)
    train, dev = split_speakers(parts["train"], DEV_SPEAKERS, DEV_SEED)
    splits = {"train": train, "dev": dev, "test": parts["test"]}
    paths = {name: folder / f"{name}.jsonl" for name in splits}
    for name, utterances in splits.items():
        write_manifest(paths[name], utterances)
    return paths


def _read_part(source: Path, part: str) -> list[Utterance]:
    transcripts = {}
    for line in _read(source / "etc" / f"an4_{part}.transcription").splitlines():
        if match := re.fullmatch(r"(?:<s> )?(.*?)(?: </s>)? \((\S+)\)", line.strip()):
            transcripts[match[2]] = match[1].strip()
    audio = {path.stem: path for path in files_below(source / "wav") if path.suffix == ".sph"}
    utterances = []
    for line in _read(source / "etc" / f"an4_{part}.fileids").split():
        # train: an4_clstk/fash/an251-fash-b; test: test/fcaw/an406-fcaw-b.wav
        name = Path(line).name.removesuffix(".wav")
        if name not in audio or name not in transcripts:
            raise AsrError(f"expected audio and transcript of {name} in {source}: get it again")
        path = audio[name]
        speaker = path.parent.name
        utterances.append(
            Utterance(name, path.resolve(), transcripts[name], audio_duration(path), speaker)
        )
    return utterances


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise AsrError(
            f"expected a list of AN4, got {path}: {error}; get the corpus again"
        ) from None


def _verify(source: Path, parts: dict[str, list[Utterance]]) -> None:
    counts = {part: len(utterances) for part, utterances in parts.items()}
    digest = _digest([u for utterances in parts.values() for u in utterances])
    if counts != PARTS or digest != SHA256:
        raise AsrError(
            f"expected AN4 as published ({PARTS}, sha256 {SHA256[:12]}), got {source} ({counts}, "
            f"{digest[:12]}): download it again"
        )


def _digest(utterances: list[Utterance]) -> str:
    """sha256 over id, transcript and audio file of each utterance, in order."""
    total = hashlib.sha256()
    for utterance in utterances:
        total.update(f"{utterance.id} {utterance.text}\n".encode())
        total.update(utterance.audio.read_bytes())
    return total.hexdigest()
