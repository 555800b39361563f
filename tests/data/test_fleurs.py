"""FLEURS in its published layout: a tiny imitation."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from data import fleurs
from tests.recordings import tone

# Sentence, recording, gender: two people read sentence 7.
ROWS = {
    "train": [(7, "100", "MALE"), (7, "101", "FEMALE"), (8, "102", "MALE")],
    "dev": [(9, "103", "FEMALE")],
    "test": [(10, "104", "OTHER")],
}


EMPTY = "7\t101.wav\t\t\t\t1600\tMALE\n"


def line(sentence: int, name: str, gender: str) -> str:
    text = f'"wort {sentence}'
    spelled = " ".join(text.replace(" ", "|")) + " |"
    return f'{sentence}\t{name}.wav\t"Wort {sentence}!\t{text}\t{spelled}\t1600\t{gender}\n'


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """The archives of de_de, as in the repository on the hub."""
    root = tmp_path / "source" / "data" / "de_de"
    for split, rows in ROWS.items():
        folder = root / "audio" / split
        folder.mkdir(parents=True)
        for _, name, _ in rows:
            soundfile.write(folder / f"{name}.wav", tone(0.1, 16000), 16000)
        with tarfile.open(root / "audio" / f"{split}.tar.gz", "w:gz") as tar:
            tar.add(folder, split)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        (root / f"{split}.tsv").write_text("".join(line(*row) for row in rows), encoding="utf-8")
    return tmp_path / "source"


def refused(folder: Path, source: Path | None, language: str = "de_de") -> str:
    with pytest.raises(AsrError) as error:
        fleurs.prepare(folder, source, language=language)
    assert "\n" not in str(error.value)
    assert not list(folder.glob("*.jsonl"))
    return str(error.value)


def test_manifests_of_a_local_copy(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    paths = fleurs.prepare(tmp_path / "data", published, say=said.append, language="de_de")
    splits = {split: list(read_manifest(path)) for split, path in paths.items()}
    assert {split: [u.id for u in rows] for split, rows in splits.items()} == {
        "train": ["100", "101", "102"],
        "dev": ["103"],
        "test": ["104"],
    }
    first = splits["train"][0]
    assert (first.text, first.speaker, first.duration) == ('"wort 7', "", 0.1)
    assert dict(first.extra) == {"sentence": "7", "gender": "male"}
    assert said == []
    before = [path.read_bytes() for path in paths.values()]
    again = fleurs.prepare(tmp_path / "data", published / "data", language="de_de")
    assert [path.read_bytes() for path in again.values()] == before


def test_an_unpacked_copy(published: Path, tmp_path: Path) -> None:
    audio = published / "data" / "de_de" / "audio"
    for split in ROWS:
        with tarfile.open(audio / f"{split}.tar.gz") as tar:
            tar.extractall(audio, filter="data")
        (audio / f"{split}.tar.gz").unlink()
    # A recording may be a link to a file of another name.
    (audio / "train" / "100.wav").rename(tmp_path / "8f3a.wav")
    (audio / "train" / "100.wav").symlink_to(tmp_path / "8f3a.wav")
    paths = fleurs.prepare(tmp_path / "data", published, language="de_de")
    assert [u.id for u in read_manifest(paths["train"])] == ["100", "101", "102"]


def test_the_published_archives(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Path], str]
) -> None:
    monkeypatch.setattr(fleurs, "URL", serve(published) + "/data/{language}/{file}")
    paths = fleurs.prepare(tmp_path / "data", language="de_de")
    assert len(read_manifest(paths["train"])) == 3
    message = refused(tmp_path / "other", None, "xx_xx")
    assert "expected to download" in message
    assert "xx_xx/train.tsv" in message


def test_rows_without_a_recording_of_their_own_are_left_out(
    published: Path, tmp_path: Path
) -> None:
    table = published / "data" / "de_de" / "train.tsv"
    table.write_text(line(1, "100", "MALE") + table.read_text() + line(3, "999", "MALE") + EMPTY)
    said: list[str] = []
    paths = fleurs.prepare(tmp_path / "data", published, say=said.append, language="de_de")
    found = read_manifest(paths["train"])
    assert [(u.id, u.extra["sentence"]) for u in found] == [
        ("100", "1"),
        ("101", "7"),
        ("102", "8"),
    ]
    assert said == ["left out of train: 3 rows without text or a recording of their own"]


def test_refusals(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert "fr_fr/train.tsv" in refused(out, published, "fr_fr")
    root = published / "data" / "de_de"
    table = root / "dev.tsv"
    for content, problem in (
        ("9\t103.wav\n", "7 columns"),
        ("9\t../103.wav\ta\tb\tc\t1\tMALE\n", "the name of a recording, got '../103.wav'"),
        ("9\t\ta\tb\tc\t1\tM\n", "the name of a recording, got ''"),
    ):
        table.write_text(content)
        assert f"dev.tsv:1: expected {problem}" in refused(out, published)
    table.write_bytes(b"\xff\n")
    assert "text that is not UTF-8" in refused(out, published)
    table.write_text(line(9, "999", "MALE"))
    assert "expected utterances in dev, got none" in refused(out, published)
    (root / "audio" / "dev.tar.gz").write_bytes(b"nothing")
    unpacked = out / "audio" / "dev" / "dev" / "103.wav"
    unpacked.unlink()
    unpacked.parent.rmdir()
    unpacked.parent.parent.rmdir()
    assert "expected a sound archive" in refused(out, published)
    (root / "audio" / "dev.tar.gz").unlink()
    assert "audio/dev or audio/dev.tar.gz" in refused(out, published)
