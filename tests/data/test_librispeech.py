"""LibriSpeech in its published layout: a tiny imitation, and a part of it where that lies."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from data import librispeech
from tests.recordings import litter, tone

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "LibriSpeech"


def write_published(root: Path, subset: str, speakers: range, kind: str = "flac") -> Path:
    """The tree of a subset's archive: two chapters a speaker, two utterances each."""
    for speaker in speakers:
        for chapter in (100, 200):
            folder = root / "LibriSpeech" / subset / str(speaker) / str(chapter)
            folder.mkdir(parents=True)
            lines = []
            for i in range(2):
                name = f"{speaker}-{chapter}-{i:04}"
                soundfile.write(folder / f"{name}.{kind}", tone(0.2 + 0.1 * i, 16000), 16000)
                lines.append(f"{name} HE SAID {i} AND IT'S SO\n")
            (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    return root


@pytest.fixture
def published(tmp_path: Path) -> Path:
    write_published(tmp_path / "source", "train-clean-5", range(10, 15))
    return write_published(tmp_path / "source", "dev-clean-2", range(20, 22), "ogg")


def test_manifests_of_a_local_copy(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    manifests = librispeech.prepare("mini", tmp_path / "data", published, say=said.append)
    assert list(manifests) == ["train", "dev", "test"]
    splits = {name: list(read_manifest(path)) for name, path in manifests.items()}
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 8, "dev": 12, "test": 8}
    speakers = {name: {row.speaker for row in rows} for name, rows in splits.items()}
    assert not speakers["train"] & speakers["dev"]
    assert speakers["test"] == {"20", "21"}
    first = splits["test"][0]
    assert (first.id, first.text) == ("20-100-0000", "HE SAID 0 AND IT'S SO")
    assert first.duration == pytest.approx(0.2, abs=0.01)
    assert said == [
        "not the whole published set: train-clean-5, 20 of 1519 utterances",
        "not the whole published set: dev-clean-2, 8 of 1089 utterances",
    ]
    # Either level of the archive's tree will do, and the same comes of it, whatever a Mac adds.
    litter(published)
    again = librispeech.prepare("mini", tmp_path / "again", published / "LibriSpeech")
    assert list(read_manifest(again["dev"])) == list(splits["dev"])


def test_of_two_formats_always_the_same_is_taken(published: Path, tmp_path: Path) -> None:
    chapter = published / "LibriSpeech" / "dev-clean-2" / "20" / "100"
    for kind in ("wav", "aiff", "flac"):
        soundfile.write(chapter / f"20-100-0000.{kind}", tone(0.2, 16000), 16000)
    paths = librispeech.prepare("mini", tmp_path / "data", published, say=lambda _: None)
    assert read_manifest(paths["test"])[0].audio.name == "20-100-0000.wav"


def test_the_larger_sets_have_their_own_dev(tmp_path: Path) -> None:
    for place, subset in enumerate(librispeech.ARCHIVES):
        write_published(tmp_path / "s", subset, range(10 * place, 10 * place + 1))
    found = {
        name: librispeech.prepare(name, tmp_path / name, tmp_path / "s") for name in ("100", "960")
    }
    assert list(found["100"]) == ["train", "dev", "test-clean", "test-other"]
    counts = {name: len(read_manifest(paths["train"])) for name, paths in found.items()}
    assert counts == {"100": 4, "960": 12}
    assert len(read_manifest(found["960"]["dev"])) == 8


def test_the_published_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Path, serve: Callable[[Path], str]
) -> None:
    archives = {}
    for subset in ("train-clean-5", "dev-clean-2"):
        path = tmp_path / "served" / f"{subset}.tar.gz"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w:gz") as tar:
            tar.add(published / "LibriSpeech" / subset, f"LibriSpeech/{subset}")
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        archives[subset] = replace(librispeech.ARCHIVES[subset], md5=md5)
    monkeypatch.setattr(librispeech, "ARCHIVES", archives)
    served = serve(tmp_path / "served") + "/{subset}.tar.gz"
    monkeypatch.setattr(librispeech, "URL", served)
    manifests = librispeech.prepare("mini", tmp_path / "data")
    assert len(read_manifest(manifests["test"])) == 8
    # A damaged archive is not kept.
    damaged = {name: replace(archive, md5="0" * 32) for name, archive in archives.items()}
    monkeypatch.setattr(librispeech, "ARCHIVES", damaged)
    with pytest.raises(AsrError, match=r"train-clean-5\.tar\.gz with the md5 0+, got .*run again"):
        librispeech.prepare("mini", tmp_path / "other")
    assert not list((tmp_path / "other").glob("*"))


def test_what_is_missing_is_told(published: Path, tmp_path: Path) -> None:
    with pytest.raises(
        AsrError, match=r"expected train-clean-100 or LibriSpeech/train-clean-100 in .*--source"
    ):
        librispeech.prepare("100", tmp_path / "data", published)
    chapter = published / "LibriSpeech" / "dev-clean-2" / "20" / "200"
    (chapter / "20-200-0001.ogg").unlink()
    with pytest.raises(AsrError, match=r"20-200\.trans\.txt:2: expected an id with a recording"):
        librispeech.prepare("mini", tmp_path / "data", published)
    assert not (tmp_path / "data" / "test.jsonl").exists()
    (chapter / "20-200.trans.txt").write_bytes(b"20-200-0000 CAF\xc9\n")
    with pytest.raises(AsrError, match=r"20-200\.trans\.txt: text that is not UTF-8"):
        librispeech.prepare("mini", tmp_path / "data", published)
    for path in published.glob("LibriSpeech/dev-clean-2/*/*/*.trans.txt"):
        path.unlink()
    with pytest.raises(AsrError, match="expected speakers with chapters"):
        librispeech.prepare("mini", tmp_path / "data", published)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/LibriSpeech")
def test_mini_librispeech_itself(tmp_path: Path) -> None:
    manifests = librispeech.prepare("mini", tmp_path, SHARED)
    splits = {name: list(read_manifest(path)) for name, path in manifests.items()}
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 1355,
        "dev": 164,
        "test": 118,
    }
    assert len({row.speaker for row in splits["dev"]}) == 3
