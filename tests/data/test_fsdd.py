"""FSDD in its published layout: a small imitation everywhere, and the corpus where it lies."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.dataset.manifest import Utterance, read_manifest
from asr.errors import AsrError
from data import fsdd
from tests.recordings import litter

SPEAKERS = ("ann", "ben", "eve")
TAKES = 9


def digest(recordings: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(recordings.glob("*.wav"), key=lambda path: path.stem):
        total.update(f"{path.stem}\n".encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recordings = tmp_path_factory.mktemp("fsdd") / "recordings"
    recordings.mkdir()
    random = np.random.default_rng(0)
    for digit in range(10):
        for speaker in SPEAKERS:
            for take in range(TAKES):
                samples = random.integers(-1000, 1000, 800 + 80 * digit).astype(np.int16)
                soundfile.write(recordings / f"{digit}_{speaker}_{take}.wav", samples, 8000)
    return recordings.parent


@pytest.fixture
def source(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fsdd, "SPEAKERS", SPEAKERS)
    monkeypatch.setattr(fsdd, "TAKES", TAKES)
    monkeypatch.setattr(fsdd, "SHA256", digest(pristine / "recordings"))
    return shutil.copytree(pristine, tmp_path / "published")


def read(paths: dict[str, Path]) -> dict[str, list[Utterance]]:
    return {part: list(read_manifest(path)) for part, path in paths.items()}


def test_a_copy_that_a_mac_wrote_to(source: Path, tmp_path: Path) -> None:
    clean = read(fsdd.prepare(tmp_path / "clean", source)["official"])
    litter(source)
    assert read(fsdd.prepare(tmp_path / "data", source)["official"]) == clean


def refused(folder: Path, source: Path | None) -> str:
    with pytest.raises(AsrError) as error:
        fsdd.prepare(folder, source)
    message = str(error.value)
    assert "\n" not in message
    assert not list(folder.rglob("*.jsonl"))
    return message


def test_the_official_split_goes_by_take(source: Path, tmp_path: Path) -> None:
    paths = fsdd.prepare(tmp_path / "data", source)
    parts = read(paths["official"])
    takes = {part: {int(u.id.split("_")[2]) for u in chosen} for part, chosen in parts.items()}
    assert takes == {"test": {0, 1, 2, 3, 4}, "dev": {5, 6}, "train": {7, 8}}
    assert {part: len(chosen) for part, chosen in parts.items()} == {
        "test": 5 * 30,
        "dev": 2 * 30,
        "train": 2 * 30,
    }
    seven = next(u for u in parts["test"] if u.id == "7_eve_3")
    assert (seven.text, seven.speaker) == ("seven", "eve")
    assert seven.audio == (source / "recordings" / "7_eve_3.wav").resolve()
    assert seven.duration == pytest.approx(0.1 + 7 * 0.01)


def test_a_tested_speaker_is_in_no_other_part(source: Path, tmp_path: Path) -> None:
    paths = fsdd.prepare(tmp_path / "data", source)
    assert paths.keys() == {"official", *SPEAKERS}
    for speaker in SPEAKERS:
        parts = read(paths[speaker])
        heard = {part: {u.speaker for u in chosen} for part, chosen in parts.items()}
        assert heard["test"] == {speaker}
        assert len(heard["dev"]) == 1
        assert heard["train"] == set(SPEAKERS) - heard["test"] - heard["dev"]
        assert heard["train"]
        assert sorted(u.id for chosen in parts.values() for u in chosen) == sorted(
            path.stem for path in (source / "recordings").iterdir()
        )
    dev = {paths[speaker]["dev"].read_text() for speaker in SPEAKERS}
    assert len(dev) == len(SPEAKERS)


@pytest.mark.parametrize("damage", ["sample", "swapped", "lost", "more"])
def test_a_changed_corpus_is_refused(source: Path, tmp_path: Path, damage: str) -> None:
    recordings = source / "recordings"
    one, other = recordings / "1_ann_2.wav", recordings / "1_ben_2.wav"
    if damage == "sample":
        one.write_bytes(one.read_bytes()[:-1] + b"\x7f")
    elif damage == "swapped":
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif damage == "lost":
        one.unlink()
    else:
        shutil.copy(one, recordings / "1_ann_99.wav")
    message = refused(tmp_path / "data", source)
    assert str(recordings) in message
    if damage in {"lost", "more"}:
        assert ("1_ann_2" if damage == "lost" else "1_ann_99") in message


def test_without_a_copy_the_error_says_where_to_get_one(source: Path, tmp_path: Path) -> None:
    assert fsdd.ADDRESS in refused(tmp_path / "data", None)
    assert "--source" in refused(tmp_path / "data", source / "recordings")


def test_the_real_corpus_is_the_published_one(shared_data: Path, tmp_path: Path) -> None:
    paths = fsdd.prepare(tmp_path, shared_data / "free-spoken-digit-dataset")
    parts = read(paths["official"])
    assert [len(parts[part]) for part in ("train", "dev", "test")] == [2580, 120, 300]
    assert sum(u.duration for chosen in parts.values() for u in chosen) / 60 == pytest.approx(
        21.87, abs=0.01
    )
    for speaker in fsdd.SPEAKERS:
        parts = read(paths[speaker])
        assert [len(parts[part]) for part in ("train", "dev", "test")] == [2000, 500, 500]
        assert {u.speaker for u in parts["test"]} == {speaker}
