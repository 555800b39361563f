"""AISHELL-1 in its published layout: a tiny imitation."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from data import aishell
from tests.recordings import tone

SPEAKERS = {"S0002": "train", "S0003": "train", "S0724": "dev", "S0764": "test"}


def name(speaker: str, number: int) -> str:
    return f"BAC009{speaker}W{number:04}"


def expected() -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for speaker, split in SPEAKERS.items():
        splits[split] += [name(speaker, number) for number in (121, 122)]
    return splits


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """An archive a speaker; each speaker has one recording without a transcript."""
    root = tmp_path / "source" / "data_aishell"
    (root / "wav").mkdir(parents=True)
    (root / "transcript").mkdir()
    lines = []
    for speaker, split in SPEAKERS.items():
        folder = tmp_path / "made" / split / speaker
        folder.mkdir(parents=True)
        for number in (121, 122, 123):
            seconds = 0.1 * (number - 120)
            soundfile.write(folder / f"{name(speaker, number)}.wav", tone(seconds, 16000), 16000)
        with tarfile.open(root / "wav" / f"{speaker}.tar.gz", "w:gz") as tar:
            tar.add(folder, f"{split}/{speaker}")
        lines += [f"{name(speaker, number)} 而 对 楼市  成交\n" for number in (121, 122)]
    lines.append(f"{name('S0002', 999)} 无 人\n")  # said of no recording
    (root / aishell.TRANSCRIPTS).write_text("".join(lines), encoding="utf-8")
    return root


def ids(paths: dict[str, Path]) -> dict[str, list[str]]:
    return {split: [u.id for u in read_manifest(path)] for split, path in paths.items()}


def refused(folder: Path, source: Path) -> str:
    with pytest.raises(AsrError) as error:
        aishell.prepare(folder, source, say=lambda _: None)
    assert "\n" not in str(error.value)
    assert not list(folder.glob("*.jsonl"))
    return str(error.value)


def test_manifests_of_a_local_copy(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    before = sorted(published.rglob("*"))
    paths = aishell.prepare(tmp_path / "data", published.parent, say=said.append)
    assert ids(paths) == expected()
    second = read_manifest(paths["train"])[1]
    assert (second.text, second.speaker, second.duration) == ("而对楼市成交", "S0002", 0.2)
    assert second.audio.is_relative_to(tmp_path / "data" / "speakers" / "S0002")
    assert said == [
        f"not the whole published set: {split}, {len(names)} of {aishell.SPLITS[split]} utterances"
        for split, names in expected().items()
    ]
    assert sorted(published.rglob("*")) == before  # nothing is written into the copy
    content = [path.read_bytes() for path in paths.values()]
    again = aishell.prepare(tmp_path / "data", published, say=said.append)
    assert [path.read_bytes() for path in again.values()] == content


def test_speakers_may_lie_unpacked(published: Path, tmp_path: Path) -> None:
    for speaker in ("S0002", "S0724", "S0764"):
        with tarfile.open(published / "wav" / f"{speaker}.tar.gz") as tar:
            tar.extractall(published / "wav", filter="data")
    (published / "wav" / "S0724.tar.gz").unlink()
    told: list[tuple[int, int]] = []
    paths = aishell.prepare(tmp_path / "data", published, lambda *c: told.append(c))
    assert told[-1] == (1, 1)
    assert ids(paths) == expected()


def test_the_published_archive(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Path], str]
) -> None:
    archive = tmp_path / "data_aishell.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(published, "data_aishell")
    monkeypatch.setattr(aishell, "URL", serve(archive))
    with pytest.raises(AsrError, match="with the md5 2f494334"):
        aishell.prepare(tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))
    monkeypatch.setattr(aishell, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    assert ids(aishell.prepare(tmp_path / "data")) == expected()


def test_refusals(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert "aishell_transcript_v0.8.txt" in refused(out, tmp_path / "absent")
    damaged = published / "wav" / "S0003.tar.gz"
    sound = damaged.read_bytes()
    damaged.write_bytes(sound[:40])
    assert "expected a sound archive" in refused(out, published)
    assert not list((out / "speakers").glob("*S0003*"))
    damaged.write_bytes(sound)
    transcripts = published / aishell.TRANSCRIPTS
    content = transcripts.read_text(encoding="utf-8")
    transcripts.write_text(content + "BAC009S0002W0124\n", encoding="utf-8")
    message = refused(out, published)
    assert "got 'BAC009S0002W0124'" in message
    assert "v0.8.txt:10" in message
    transcripts.write_bytes(b"\xff")
    assert "text that is not UTF-8" in refused(out, published)
    transcripts.write_text(
        "".join(line for line in content.splitlines(True) if "S0764" not in line)
    )
    assert "expected utterances in test, got none" in refused(out, published)
