"""VCTK, speechocean762 and TED-LIUM in their published layouts: tiny imitations of each."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from asr.errors import AsrError
from data import speechocean762, tedlium, vctk
from data.download import unpack
from tests.data.prepared import disjoint, read, refused, silent
from tests.recordings import litter, sphere, tone

SECONDS = 0.1


def record(path: Path, rate: int = 16000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(SECONDS, rate), rate)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# --- VCTK ---


@pytest.fixture
def readers(tmp_path: Path) -> Path:
    root = tmp_path / "vctk"
    lines = ["ID  AGE  GENDER  ACCENTS  REGION COMMENTS \n"]
    for number in range(225, 243):
        name = f"p{number}"
        lines.append(f"{name}  {number - 200}  F    English    Southern  England\n")
        for i in (1, 2):
            write(root / "txt" / name / f"{name}_{i:03}.txt", f"Please call, Stella's no {i}.\n")
            for microphone in (1, 2):
                place = root / "wav48_silence_trimmed" / name
                record(place / f"{name}_{i:03}_mic{microphone}.flac", 48000)
    lines.append("p315  18  M    American  New  England (Text unavailable)\n")
    record(root / "wav48_silence_trimmed" / "p315" / "p315_001_mic1.flac", 48000)
    write(root / "txt" / "p225" / "p225_003.txt", "not recorded")
    write(root / "speaker-info.txt", "".join(lines))
    return root


def test_vctk_holds_out_speakers(readers: Path, tmp_path: Path) -> None:
    said: list[str] = []
    parts = read(vctk.prepare(tmp_path / "data", readers, say=said.append))
    assert {name: len(part) for name, part in parts.items()} == {"train": 4, "dev": 12, "test": 20}
    assert disjoint(parts)
    rows = {u.id: u for part in parts.values() for u in part}
    assert rows["p230_002"].text == "Please call Stella's no 2"
    assert rows["p230_002"].audio.name == "p230_002_mic1.flac"
    assert rows["p230_002"].duration == pytest.approx(SECONDS)
    assert rows["p230_002"].extra == {"age": 30, "gender": "F", "accent": "English"}
    assert said == ["left out, without text: 1 of p315", "left out, without recording: 1 of p225"]


def test_vctk_on_a_disk_that_a_mac_wrote_to(readers: Path, tmp_path: Path) -> None:
    clean = read(vctk.prepare(tmp_path / "clean", readers, say=silent))
    litter(readers)
    assert read(vctk.prepare(tmp_path / "data", readers, say=silent)) == clean


def test_vctk_refuses(readers: Path, tmp_path: Path) -> None:
    assert "check --source" in refused(vctk.prepare, tmp_path / "data", tmp_path)
    info = readers / "speaker-info.txt"
    lines = info.read_text().splitlines()
    info.write_text("\n".join([*lines[:3], "p227 F English"]))
    message = refused(vctk.prepare, tmp_path / "data", readers)
    assert "speaker-info.txt:4: expected id, age, gender and accent" in message
    info.write_text("\n".join(lines[:3]))
    assert "expected p227 in" in refused(vctk.prepare, tmp_path / "data", readers)
    info.unlink()
    assert "no such file" in refused(vctk.prepare, tmp_path / "data", readers)


def test_vctk_comes_as_a_zip(
    readers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Path], str]
) -> None:
    served = tmp_path / "VCTK-Corpus-0.92.zip"
    with zipfile.ZipFile(served, "w") as packed:
        for path in sorted(readers.rglob("*.*")):
            packed.write(path, path.relative_to(readers))
    monkeypatch.setattr(vctk, "URL", serve(served))
    monkeypatch.setattr(vctk, "MD5", hashlib.md5(served.read_bytes()).hexdigest())
    first = {n: p.read_bytes() for n, p in vctk.prepare(tmp_path / "data", say=silent).items()}
    again = {n: p.read_bytes() for n, p in vctk.prepare(tmp_path / "data", say=silent).items()}
    assert first == again
    assert b"audio/wav48_silence_trimmed/p2" in first["test"]


def test_unsafe_and_damaged_zips_are_refused(tmp_path: Path) -> None:
    for name in ("../outside", "/outside", "a/../../outside"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
            packed.writestr("inside", "x")
            packed.writestr(name, "x")
        with pytest.raises(AsrError, match=r"expected a sound archive.*would be outside"):
            unpack(tmp_path / "a.zip", tmp_path / "folder")
        assert not (tmp_path / "folder").exists()
    whole = (tmp_path / "a.zip").read_bytes()
    for damaged in (whole[:-30], b"", whole[:40] + b"\x07" * 8 + whole[48:]):
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(AsrError, match="expected a sound archive"):
            unpack(tmp_path / "a.zip", tmp_path / "folder")
        assert not (tmp_path / "folder").exists()
    assert not (tmp_path.parent / "outside").exists()


# --- speechocean762 ---


@pytest.fixture
def learners(tmp_path: Path) -> Path:
    root = tmp_path / "served" / "speechocean762"
    scores = {}
    for part, speakers in (("train", range(1, 15)), ("test", range(20, 22))):
        tables: dict[str, list[str]] = {}
        for number in speakers:
            name = f"{number:04}0011"
            place = f"WAVE/SPEAKER{number:04}/{name}.WAV"
            record(root / place)
            rows = {"wav.scp": (name, place), "text": (name, f"WE CALL IT {number}")}
            rows |= {"utt2spk": (name, f"{number:04}"), "spk2age": (f"{number:04}", "6")}
            rows |= {"spk2gender": (f"{number:04}", "m"), "spk2utt": (f"{number:04}", name)}
            for table, row in rows.items():
                tables.setdefault(table, []).append("\t".join(row) + "\n")
            scores[name] = {"text": "", "accuracy": 8, "total": 9, "words": []}
        for table, lines in tables.items():
            write(root / part / table, "".join(lines))
    write(root / "resource" / "scores.json", json.dumps(scores))
    return root


def test_speechocean_has_a_dev_of_its_training_speakers(learners: Path, tmp_path: Path) -> None:
    said: list[str] = []
    parts = read(speechocean762.prepare(tmp_path / "data", learners, say=said.append))
    assert {name: len(part) for name, part in parts.items()} == {"train": 2, "dev": 12, "test": 2}
    assert disjoint(parts)
    first = parts["test"][0]
    assert (first.id, first.speaker, first.text) == ("00200011", "0020", "WE CALL IT 20")
    assert first.extra == {"age": 6, "gender": "m", "score": 9}
    assert said[1] == "not the whole published set: test, 2 of 2500 utterances"
    # A copy without scores will do.
    (learners / "resource" / "scores.json").unlink()
    parts = read(speechocean762.prepare(tmp_path / "data", learners.parent, say=silent))
    assert parts["test"][0].extra == {"age": 6, "gender": "m"}


def test_speechocean_refuses(learners: Path, tmp_path: Path) -> None:
    prepare, data = speechocean762.prepare, tmp_path / "data"
    assert "check --source" in refused(prepare, data, tmp_path)
    for table, missing in (("text", "00010011"), ("spk2age", "0001"), ("utt2spk", "00010011")):
        path = learners / "train" / table
        kept = path.read_text()
        path.write_text(kept.partition("\n")[2])
        assert f"expected {missing} in {path}, got none" in refused(prepare, data, learners)
        path.write_text("00010011\n")
        assert f"{table}:1: expected a new id" in refused(prepare, data, learners)
        path.write_text(kept)
    for content in ("[]", "{", '{"a": 1}', '{"a": {}}'):
        write(learners / "resource" / "scores.json", content)
        assert "with a total score" in refused(prepare, data, learners)
    (learners / "resource" / "scores.json").unlink()
    (learners / "WAVE" / "SPEAKER0020" / "00200011.WAV").unlink()
    assert "expected the recording of 00200011" in refused(prepare, data, learners)


# --- TED-LIUM 3 ---

STM = """;; a comment
{talk} 1 {talk} 0.10 0.50 <NA> <unk> it 's a talk(2)
{talk} 1 inter_segment_gap 0.50 0.60 <o,,unknown> ignore_time_segment_in_scoring
{talk} 1 {talk} 0.60 0.70 <o,f0,male> <sil> {{NOISE}}
{talk} 1 {talk} 0.70 0.95 <F0_M> they don 't ({talk}-2)
"""


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    root = tmp_path / "served" / "TEDLIUM_release-3"
    for part, names in (("train", "AB"), ("dev", "C"), ("test", "D")):
        for name in names:
            talk = f"{name}Speaker_2010"
            write(root / "legacy" / part / "stm" / f"{talk}.stm", STM.format(talk=talk))
            path = root / "legacy" / part / "sph" / f"{talk}.sph"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(sphere((1000 * tone(1.0, 16000)).astype("i2"), 16000, "01"))
    return root


def test_tedlium_is_stretches_of_talks(talks: Path, tmp_path: Path) -> None:
    said: list[str] = []
    parts = read(tedlium.prepare(tmp_path / "data", talks, say=said.append))
    assert {name: len(part) for name, part in parts.items()} == {"train": 4, "dev": 2, "test": 2}
    assert disjoint(parts)
    first, second = parts["test"]
    assert (first.id, first.text) == ("DSpeaker_2010-0000010-0000050", "it's a talk")
    assert (first.start, first.end, first.duration) == (0.1, 0.5, pytest.approx(0.4))
    assert (second.text, second.speaker) == ("they don't", "DSpeaker_2010")
    assert second.audio.is_file()
    assert said[0] == "not the whole published set: train, 2 of 2351 talks"


def test_tedlium_comes_as_a_tar(
    talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Path], str]
) -> None:
    served = tmp_path / "TEDLIUM_release-3.tgz"
    with tarfile.open(served, "w:gz") as tar:
        tar.add(talks, talks.name)
    monkeypatch.setattr(tedlium, "URL", serve(served))
    first = {n: p.read_bytes() for n, p in tedlium.prepare(tmp_path / "data", say=silent).items()}
    again = {n: p.read_bytes() for n, p in tedlium.prepare(tmp_path / "data", say=silent).items()}
    assert first == again


@pytest.mark.parametrize(
    "line", ["A 1 A 0.5", "A 1 A 0.9 0.5 <NA> late", "A 1 A x 2 <NA> a", "A 1 A nan 2 a", "word"]
)
def test_tedlium_refuses_a_wrong_line(talks: Path, tmp_path: Path, line: str) -> None:
    with (talks / "legacy" / "test" / "stm" / "DSpeaker_2010.stm").open("a") as file:
        file.write(line + "\n")
    message = refused(tedlium.prepare, tmp_path / "data", talks.parent)
    assert "DSpeaker_2010.stm:6: expected talk, channel, speaker, start" in message


def test_tedlium_refuses_what_is_missing(talks: Path, tmp_path: Path) -> None:
    assert "check --source" in refused(tedlium.prepare, tmp_path / "data", tmp_path)
    (talks / "legacy" / "dev" / "sph" / "CSpeaker_2010.sph").unlink()
    message = refused(tedlium.prepare, tmp_path / "data", talks)
    assert "expected the recording of" in message
    (talks / "legacy" / "dev" / "stm" / "CSpeaker_2010.stm").unlink()
    assert "expected transcripts in" in refused(tedlium.prepare, tmp_path / "data", talks)
