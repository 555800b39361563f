"""AN4 in its published layout: a tiny imitation everywhere, and the corpus itself where it lies."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from asr.audio.load import load_audio
from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from data import an4

RATE = 16000
# Speaker, utterance, transcript, in the order of the file lists.
TRAIN = [
    ("fash", "an251-fash-b", "YES"),
    ("fash", "cen1-fash-b", "H I N I C H"),
    ("mblw", "an1-mblw-b", "ENTER FOUR FIVE"),
    ("mblw", "cen5-mblw-b", "P I T T S B U R G H"),
    ("mtje", "an9-mtje-b", "STOP"),
]
TEST = [("fcaw", "an406-fcaw-b", "RUBOUT G M E F THREE NINE"), ("menk", "an2-menk-b", "GO")]


def sphere(seconds: float, seed: int) -> bytes:
    """A NIST SPHERE file of noise, as the corpus has them: 16-bit, one channel, low byte first."""
    count = round(seconds * RATE)
    header = (
        "NIST_1A\n   1024\n"
        f"sample_count -i {count}\nsample_rate -i {RATE}\nsample_n_bytes -i 2\n"
        "sample_byte_format -s2 01\nchannel_count -i 1\nsample_coding -s3 pcm\nend_head\n"
    )
    samples = np.random.default_rng(seed).integers(-1000, 1000, count).astype("<i2")
    return header.encode().ljust(1024) + samples.tobytes()


def write_published(root: Path) -> Path:
    """The tree of the published archive, with a few utterances."""
    etc = root / "an4" / "etc"
    etc.mkdir(parents=True)
    (etc / "an4_train.fileids").write_text("".join(f"an4_clstk/{s}/{n}\n" for s, n, _ in TRAIN))
    (etc / "an4_test.fileids").write_text("".join(f"test/{s}/{n}.wav\n" for s, n, _ in TEST))
    (etc / "an4_train.transcription").write_text(
        "".join(f"<s> {t} </s> ({n})\n" for _, n, t in TRAIN)
    )
    (etc / "an4_test.transcription").write_text("".join(f"{t} ({n})\n" for _, n, t in TEST))
    for folder, part in (("an4_clstk", TRAIN), ("an4test_clstk", TEST)):
        for i, (speaker, name, _) in enumerate(part):
            path = root / "an4" / "wav" / folder / speaker / f"{name}.sph"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sphere(0.1 + 0.05 * i, i))
    return root / "an4"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = write_published(tmp_path / "published")
    digest = hashlib.sha256()
    for folder, part in (("an4_clstk", TRAIN), ("an4test_clstk", TEST)):
        for speaker, name, text in part:
            digest.update(f"{name} {text}\n".encode())
            digest.update((source / "wav" / folder / speaker / f"{name}.sph").read_bytes())
    monkeypatch.setattr(an4, "SHA256", digest.hexdigest())
    monkeypatch.setattr(an4, "PARTS", {"train": len(TRAIN), "test": len(TEST)})
    monkeypatch.setattr(an4, "DEV_SPEAKERS", 1)
    return source


def refused(source: Path, folder: Path) -> str:
    with pytest.raises(AsrError) as error:
        an4.prepare(folder, source)
    message = str(error.value)
    assert "\n" not in message
    assert not list(folder.glob("*.jsonl"))
    return message


# --- the imitation ---


def test_manifests_of_the_published_layout(published: Path, tmp_path: Path) -> None:
    paths = an4.prepare(tmp_path / "data", published)
    assert paths == {name: tmp_path / "data" / f"{name}.jsonl" for name in ("train", "dev", "test")}
    parts = {name: list(read_manifest(path)) for name, path in paths.items()}
    learnt = {u.id: u for u in parts["train"] + parts["dev"]}
    assert {(u.speaker, u.id, u.text) for u in learnt.values()} == set(TRAIN)
    assert [(u.speaker, u.id, u.text) for u in parts["test"]] == TEST
    assert learnt["an251-fash-b"].duration == pytest.approx(0.1)
    assert parts["test"][1].duration == pytest.approx(0.15)
    samples = load_audio(parts["test"][0].audio)
    assert len(samples) == 1600
    expected = np.random.default_rng(0).integers(-1000, 1000, 1600) / 32768
    np.testing.assert_allclose(samples, expected, atol=1e-6)


def test_dev_is_whole_speakers_of_the_training_part(published: Path, tmp_path: Path) -> None:
    paths = an4.prepare(tmp_path / "data", published)
    speakers = {name: {u.speaker for u in read_manifest(path)} for name, path in paths.items()}
    assert len(speakers["dev"]) == 1
    assert not speakers["dev"] & speakers["train"]
    assert speakers["dev"] | speakers["train"] == {"fash", "mblw", "mtje"}
    assert speakers["test"] == {"fcaw", "menk"}


def test_preparing_twice_gives_the_same(published: Path, tmp_path: Path) -> None:
    first = {n: p.read_bytes() for n, p in an4.prepare(tmp_path / "data", published).items()}
    again = {n: p.read_bytes() for n, p in an4.prepare(tmp_path / "data", published).items()}
    assert first == again


def test_the_archive_is_downloaded_and_unpacked(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, path: Path, progress: object) -> Path:
        assert url == an4.URL
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:gz") as tar:
            tar.add(published, "an4")
        return path

    monkeypatch.setattr(an4, "download", download)
    paths = an4.prepare(tmp_path / "data")
    test = read_manifest(paths["test"])
    assert [u.id for u in test] == [name for _, name, _ in TEST]
    assert all(u.audio.is_relative_to(tmp_path / "data") for u in test)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    assert "check --source" in refused(tmp_path, tmp_path / "data")
    assert "check --source" in refused(tmp_path / "absent", tmp_path / "data")


@pytest.mark.parametrize("damage", ["word", "sample", "utterance"])
def test_a_changed_corpus_is_refused(published: Path, tmp_path: Path, damage: str) -> None:
    if damage == "word":
        transcripts = published / "etc" / "an4_train.transcription"
        transcripts.write_text(transcripts.read_text().replace("YES", "NO"))
    elif damage == "sample":
        audio = published / "wav" / "an4test_clstk" / "menk" / "an2-menk-b.sph"
        audio.write_bytes(audio.read_bytes()[:-1] + b"\x7f")
    else:
        for name in ("an4_test.fileids", "an4_test.transcription"):
            path = published / "etc" / name
            path.write_text(path.read_text().splitlines()[0] + "\n")
    message = refused(published, tmp_path / "data")
    assert "expected AN4 as published" in message
    assert str(published) in message


@pytest.mark.parametrize(
    "lost",
    [
        "wav/an4_clstk/fash/an251-fash-b.sph",
        "wav",
        "etc/an4_train.fileids",
        "etc/an4_test.transcription",
    ],
)
def test_a_corpus_with_something_missing_is_one_line(
    published: Path, tmp_path: Path, lost: str
) -> None:
    path = published / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert str(published) in refused(published, tmp_path / "data")


def test_truncated_audio_is_one_line(published: Path, tmp_path: Path) -> None:
    audio = published / "wav" / "an4_clstk" / "fash" / "an251-fash-b.sph"
    audio.write_bytes(audio.read_bytes()[:1500])
    refused(published, tmp_path / "data")
    audio.write_bytes(audio.read_bytes()[:10])
    assert audio.name in refused(published, tmp_path / "data")


def test_garbled_transcripts_are_one_line(published: Path, tmp_path: Path) -> None:
    (published / "etc" / "an4_train.transcription").write_bytes(b"\xff\xfe\x80 (an251-fash-b)\n")
    refused(published, tmp_path / "data")


# --- the corpus itself ---


def test_the_real_corpus_is_the_published_one(shared_data: Path, tmp_path: Path) -> None:
    # prepare() verifies the digest of transcripts and audio before it writes.
    paths = an4.prepare(tmp_path, shared_data / "an4")
    parts = {name: list(read_manifest(path)) for name, path in paths.items()}
    assert len(parts["train"]) + len(parts["dev"]) == 948
    assert len(parts["test"]) == 130
    assert sum(len(u.text.split()) for u in parts["test"]) == 773
    assert sum(u.duration for u in parts["train"] + parts["dev"]) / 60 == pytest.approx(
        42.4, abs=0.1
    )
    assert sum(u.duration for u in parts["test"]) / 60 == pytest.approx(5.95, abs=0.01)
    speakers = {name: {u.speaker for u in part} for name, part in parts.items()}
    assert {name: len(names) for name, names in speakers.items()} == {
        "train": 65,
        "dev": 9,
        "test": 10,
    }
    assert not speakers["dev"] & speakers["train"]
    assert not speakers["test"] & (speakers["train"] | speakers["dev"])
    first = parts["test"][0]
    assert (first.id, first.text) == ("an406-fcaw-b", "RUBOUT G M E F THREE NINE")
