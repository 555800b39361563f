"""Multilingual LibriSpeech in its published layout: a tiny imitation."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from data import mls
from tests.recordings import tone

NAMES = {
    "train": ["10_100_000000", "10_100_000001", "10_101_000000", "11_102_000000"],
    "dev": ["12_103_000000"],
    "test": ["13_104_000000"],
}


def write_published(root: Path, kind: str = "flac") -> Path:
    for split, names in NAMES.items():
        for name in names:
            speaker, book, count = name.split("_")
            path = root / split / "audio" / speaker / book / f"{name}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            form = "FLAC" if kind == "flac" else "OGG"
            subtype = "PCM_16" if kind == "flac" else "OPUS"
            seconds = 0.2 + 0.1 * int(count)
            soundfile.write(path, tone(seconds, 16000), 16000, format=form, subtype=subtype)
        lines = [f"{name}\tgdzieś {name[-1]}\n" for name in names]
        (root / split / "transcripts.txt").write_text("".join(lines), encoding="utf-8")
    lists = root / "train" / "limited_supervision"
    for place, number in (("9hr", 0), ("1hr/0", 1), ("1hr/1", 3)):
        (lists / place).mkdir(parents=True)
        (lists / place / "handles.txt").write_text(NAMES["train"][number] + "\n")
    return root


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return write_published(tmp_path / "source" / "mls_polish")


def ids(paths: dict[str, Path]) -> dict[str, list[str]]:
    return {split: [u.id for u in read_manifest(path)] for split, path in paths.items()}


def refused(folder: Path, source: Path, **options: Any) -> str:
    with pytest.raises(AsrError) as error:
        mls.prepare(folder, source, **{"language": "polish"} | options)
    assert "\n" not in str(error.value)
    assert not folder.exists()
    return str(error.value)


def test_manifests_of_a_local_copy(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    paths = mls.prepare(tmp_path / "data", published.parent, say=said.append, language="polish")
    assert ids(paths) == NAMES
    second = read_manifest(paths["train"])[1]
    assert (second.text, second.speaker, second.duration) == ("gdzieś 1", "10", 0.3)
    assert dict(second.extra) == {"book": "100"}
    assert said == []
    before = [path.read_bytes() for path in paths.values()]
    again = mls.prepare(tmp_path / "data", published, language="polish")
    assert [path.read_bytes() for path in again.values()] == before


def test_opus(tmp_path: Path) -> None:
    write_published(tmp_path / "mls_polish_opus", "opus")
    paths = mls.prepare(tmp_path / "data", tmp_path, language="polish")
    assert ids(paths) == NAMES
    assert read_manifest(paths["dev"])[0].duration == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    ("limited", "places"), [("9hr", [0]), ("1hr", [1, 3]), ("10hr", [0, 1, 3])]
)
def test_little_training(published: Path, tmp_path: Path, limited: str, places: list[int]) -> None:
    # Only what is wanted need be there.
    (published / "train" / "audio" / "10" / "101" / "10_101_000000.flac").unlink()
    paths = mls.prepare(tmp_path / "data", published, language="polish", limited=limited)
    assert ids(paths)["train"] == [NAMES["train"][place] for place in places]
    assert ids(paths)["dev"] == NAMES["dev"]


def test_the_published_archive(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Path], str]
) -> None:
    archive = tmp_path / "served" / "mls_polish.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(published, "mls_polish")
    monkeypatch.setattr(mls, "URL", serve(archive.parent) + "/mls_{language}.tar.gz")
    with pytest.raises(AsrError, match="with the md5 ce1a1278"):
        mls.prepare(tmp_path / "data", language="polish")
    assert not list((tmp_path / "data").glob("*"))
    monkeypatch.setitem(mls.MD5, "polish", hashlib.md5(archive.read_bytes()).hexdigest())
    assert ids(mls.prepare(tmp_path / "data", language="polish")) == NAMES


def test_speakers_of_two_splits_are_left_out_of_train(published: Path, tmp_path: Path) -> None:
    path = published / "dev" / "audio" / "11" / "105" / "11_105_000000.flac"
    path.parent.mkdir(parents=True)
    soundfile.write(path, tone(0.2, 16000), 16000)
    with (published / "dev" / "transcripts.txt").open("a") as file:
        file.write("11_105_000000\tcoś\n")
    said: list[str] = []
    paths = mls.prepare(tmp_path / "data", published, say=said.append, language="polish")
    assert ids(paths)["train"] == NAMES["train"][:3]
    assert said == ["left out of train: 1 utterances of speakers of dev or test"]


def test_refusals(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert "got 'czech': correct --language" in refused(out, published, language="czech")
    assert "1hr, 9hr, 10hr, got '5hr'" in refused(out, published, limited="5hr")
    assert "mls_dutch or mls_dutch_opus" in refused(out, published, language="dutch")
    handles = published / "train" / "limited_supervision" / "9hr" / "handles.txt"
    handles.write_text("10_100_000009\n")
    assert "got none of 10_100_000009" in refused(out, published, limited="9hr")
    handles.unlink()
    assert "expected handles.txt in" in refused(out, published, limited="10hr")
    (published / "dev" / "audio" / "12" / "103" / "12_103_000000.flac").unlink()
    assert "expected 12_103_000000.flac or .opus" in refused(out, published)
    transcripts = published / "test" / "transcripts.txt"
    for line in ("13_104\tcoś", "../13_104_0\tcoś", "13_104_000000\t "):
        transcripts.write_text(line + "\n")
        message = refused(out, published)
        assert "transcripts.txt:1" in message
    transcripts.write_bytes(b"\xff\n")
    assert "text that is not UTF-8" in refused(out, published)
    transcripts.write_text("")
    (published / "dev" / "transcripts.txt").write_text("")
    assert "expected utterances in dev, got none" in refused(out, published)
    transcripts.unlink()
    assert "no such file" in refused(out, published)
