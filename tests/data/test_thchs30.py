"""THCHS-30 in its published layout: a tiny imitation."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from data import thchs30
from tests.recordings import litter, tone

TRAIN = [f"{speaker}_{number}" for speaker in ("A11", "A2", "B4", "C6") for number in (0, 1)]
PARTS = {"train": TRAIN, "dev": ["A11_2", "C6_2"], "test": ["D4_750", "D6_751"]}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Recordings beside links that are files with the name of what they stand for."""
    root = tmp_path / "source" / "data_thchs30"
    (root / "data").mkdir(parents=True)
    for part, names in PARTS.items():
        (root / part).mkdir()
        for name in names:
            wav = f"{name}.wav"
            soundfile.write(root / part / wav, tone(0.2, 16000), 16000)
            (root / "data" / f"{wav}.trn").write_text(
                "绿 是  阳春\nlv4 shi4\nl v4\n", encoding="utf-8"
            )
            (root / part / f"{wav}.trn").write_text(f"../data/{wav}.trn\n")
    return root


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(thchs30, "PARTS", {part: len(names) for part, names in PARTS.items()})
    monkeypatch.setattr(thchs30, "DEV_SPEAKERS", 1)
    return []


def ids(paths: dict[str, Path]) -> dict[str, list[str]]:
    return {split: [u.id for u in read_manifest(path)] for split, path in paths.items()}


def refused(folder: Path, source: Path) -> str:
    with pytest.raises(AsrError) as error:
        thchs30.prepare(folder, source, say=lambda _: None)
    assert "\n" not in str(error.value)
    assert not folder.exists()
    return str(error.value)


def test_dev_is_whole_speakers(published: Path, tmp_path: Path, said: list[str]) -> None:
    paths = thchs30.prepare(tmp_path / "data", published.parent, say=said.append)
    splits = {name: list(read_manifest(path)) for name, path in paths.items()}
    held = {u.speaker for u in splits["dev"]}
    assert len(held) == 1
    assert held.isdisjoint(u.speaker for u in splits["train"])
    assert sorted(ids(paths)["train"] + ids(paths)["dev"]) == sorted(TRAIN + PARTS["dev"])
    assert ids(paths)["test"] == PARTS["test"]
    assert said == [
        f"dev is {held.pop()} of train and dev: speakers of the published dev are in train"
    ]
    first = splits["test"][0]
    assert (first.text, first.speaker, first.duration) == ("绿 是 阳春", "D4", 0.2)
    content = [path.read_bytes() for path in paths.values()]
    litter(published)
    again = thchs30.prepare(tmp_path / "data", published, say=said.append)
    assert [path.read_bytes() for path in again.values()] == content


def test_what_nobody_says_is_taken_out(published: Path, tmp_path: Path, said: list[str]) -> None:
    words = published / "data" / "D4_750.wav.trn"
    words.write_text("他 仅 凭 腰部 l = 的 力量\nta1 jin3\nt a1\n", encoding="utf-8")
    paths = thchs30.prepare(tmp_path / "data", published, say=said.append)
    assert read_manifest(paths["test"])[0].text == "他 仅 凭 腰部 的 力量"


def test_a_dev_of_other_speakers_is_kept(published: Path, tmp_path: Path, said: list[str]) -> None:
    for path in (published / "train").glob("[AC][16]*"):
        path.unlink()
    paths = thchs30.prepare(tmp_path / "data", published, say=said.append)
    assert ids(paths)["dev"] == PARTS["dev"]
    assert said == ["not the whole published set: train, 4 of 8 utterances"]


def test_links_and_recordings_in_data_only(
    published: Path, tmp_path: Path, said: list[str]
) -> None:
    for path in (published / "test").iterdir():
        if path.suffix == ".trn":
            path.unlink()
            path.symlink_to(f"../data/{path.name}")
        else:
            path.rename(published / "data" / path.name)
    paths = thchs30.prepare(tmp_path / "data", published, say=said.append)
    found = read_manifest(paths["test"])
    assert [u.text for u in found] == ["绿 是 阳春"] * 2
    assert found[0].audio == published / "data" / "D4_750.wav"


def test_the_published_archive(
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
    serve: Callable[[Path], str],
) -> None:
    archive = tmp_path / "data_thchs30.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(published, "data_thchs30")
    monkeypatch.setattr(thchs30, "URL", serve(archive))
    with pytest.raises(AsrError, match="with the md5 2d2252bd"):
        thchs30.prepare(tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))
    monkeypatch.setattr(thchs30, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert ids(thchs30.prepare(tmp_path / "data"))["test"] == PARTS["test"]


def test_refusals(published: Path, tmp_path: Path, said: list[str]) -> None:
    out = tmp_path / "data"
    assert "data_thchs30/train or train" in refused(out, tmp_path / "absent")
    words = published / "data" / "D4_750.wav.trn"
    for content in ("\nlv4\n", "../data/D4_750.wav.trn\n"):
        words.write_text(content)
        message = refused(out, published)
        assert "expected words, got" in message
        assert "D4_750.wav.trn:1" in message
    words.write_bytes(b"\xff\n")
    assert "text that is not UTF-8" in refused(out, published)
    words.unlink()
    assert "no such file" in refused(out, published)
    (published / "dev" / "C6_2.wav").unlink()
    assert "got " + str(published / "dev" / "C6_2.wav.trn") in refused(out, published)
    for path in (published / "dev").iterdir():
        path.unlink()
    assert "expected *.wav.trn in" in refused(out, published)
