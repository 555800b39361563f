"""Common Voice in its published layout: a tiny imitation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from data import common_voice
from tests.recordings import tone

HEADER = (
    "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\t"
    "accents\tvariant\tlocale\tsegment"
)
# Split, speaker, clip, sentence.
ROWS = [
    ("train", "ann", 1, 'Er sagte: "Ja!"'),
    ("train", "ann", 2, "Zwei"),
    ("train", "bob", 3, "Drei"),
    ("dev", "cid", 4, "Vier"),
    ("test", "dot", 5, "Fünf"),
]
UNSPLIT = [("validated", "ann", 6, "Fünf"), ("validated", "eve", 7, "Sieben")]


def name(clip: int) -> str:
    return f"common_voice_de_{clip}.mp3"


def write_table(root: Path, split: str, rows: list[tuple[str, str, int, str]]) -> None:
    lines = [
        f"{speaker}\t{name(clip)}\tx{clip}\t{text}\t\t2\t0\ttwenties\tfemale_feminine\t\t\tde\t"
        for _, speaker, clip, text in rows
    ]
    (root / f"{split}.tsv").write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    root = tmp_path / "source" / "cv-corpus-22.0-2025-06-20" / "de"
    (root / "clips").mkdir(parents=True)
    for _, _, clip, _ in [*ROWS, *UNSPLIT]:
        soundfile.write(root / "clips" / name(clip), tone(0.1 * clip, 32000), 32000, format="MP3")
    for split in ("train", "dev", "test"):
        write_table(root, split, [row for row in ROWS if row[0] == split])
    write_table(root, "validated", [*ROWS, *UNSPLIT])
    return root


def texts(paths: dict[str, Path]) -> dict[str, list[str]]:
    return {split: [u.text for u in read_manifest(path)] for split, path in paths.items()}


def refused(folder: Path, source: Path | None, language: str = "de", part: str = "") -> str:
    with pytest.raises(AsrError) as error:
        common_voice.prepare(folder, source, language=language, part=part)
    assert "\n" not in str(error.value)
    assert not folder.exists()
    return str(error.value)


def test_manifests_of_a_release(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    release = published.parent
    for place in (release.parent, release, published):
        paths = common_voice.prepare(tmp_path / "data", place, say=said.append, language="de")
        content = [path.read_bytes() for path in paths.values()]
        assert texts(paths) == {
            "train": ['Er sagte: "Ja!"', "Zwei", "Drei"],
            "dev": ["Vier"],
            "test": ["Fünf"],
        }
        assert [path.read_bytes() for path in paths.values()] == content
    assert said == []
    first = read_manifest(paths["train"])[1]
    assert (first.id, first.speaker) == ("common_voice_de_2", "ann")
    assert dict(first.extra) == {"age": "twenties", "gender": "female_feminine", "locale": "de"}
    assert first.duration == pytest.approx(0.2, abs=0.08)  # mp3 pads


def test_clips_may_be_links_to_files_of_other_names(published: Path, tmp_path: Path) -> None:
    for clip in (1, 2, 3):
        path = published / "clips" / name(clip)
        path.rename(tmp_path / f"8f3a{clip}.mp3")
        path.symlink_to(tmp_path / f"8f3a{clip}.mp3")
    paths = common_voice.prepare(tmp_path / "data", published, language="de")
    assert [u.id for u in read_manifest(paths["train"])] == [Path(name(i)).stem for i in (1, 2, 3)]


def test_everything_validated_without_what_dev_and_test_hold(
    published: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    paths = common_voice.prepare(
        tmp_path / "data", published, say=said.append, language="de", part="validated"
    )
    assert texts(paths)["train"] == ['Er sagte: "Ja!"', "Zwei", "Drei", "Sieben"]
    assert said == [
        "left out of train: 2 utterances of speakers of dev or test",
        "left out of train: 1 sentences of dev or test",
    ]


def test_speakers_of_two_splits_stay_in_the_later_one(published: Path, tmp_path: Path) -> None:
    write_table(published, "dev", [("dev", "cid", 4, "Vier"), ("dev", "dot", 6, "Sechs")])
    write_table(published, "test", [("test", "dot", 5, "Fünf"), ("test", "bob", 7, "Sieben")])
    said: list[str] = []
    paths = common_voice.prepare(tmp_path / "data", published, say=said.append, language="de")
    assert texts(paths) == {
        "train": ['Er sagte: "Ja!"', "Zwei"],
        "dev": ["Vier"],
        "test": ["Fünf", "Sieben"],
    }
    assert said == [
        "left out of train: 1 utterances of speakers of dev or test",
        "left out of dev: 1 utterances of speakers of test",
    ]


def test_published_lengths_are_believed_and_empty_clips_left_out(
    published: Path, tmp_path: Path
) -> None:
    lines = [f"{name(clip)}\t{1000 * (clip - 1)}" for clip in range(1, 5)]  # 5 is not listed
    (published / "clip_durations.tsv").write_text("\n".join(["clip\tduration[ms]", *lines]))
    said: list[str] = []
    paths = common_voice.prepare(tmp_path / "data", published, say=said.append, language="de")
    assert [u.duration for u in read_manifest(paths["train"])] == [1.0, 2.0]
    assert read_manifest(paths["test"])[0].duration == pytest.approx(0.5, abs=0.08)
    assert said == ["left out of train: 1 clips without text or sound"]


def test_refusals(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    message = refused(out, None)
    assert "need an account" in message
    assert "--source" in message
    assert "check --source and --language" in refused(out, published.parent, language="fr")
    assert "check --source and --language" in refused(out, published, language="fr")
    assert "got 'other'" in refused(out, published, part="other")
    shutil.copytree(published.parent, published.parents[1] / "cv-corpus-23.0-2025-09-05")
    assert "expected one release" in refused(out, published.parents[1])
    (published / "clip_durations.tsv").write_text("clip\tduration[ms]\nx.mp3\tlong\n")
    assert "clip_durations.tsv:2" in refused(out, published)
    (published / "clip_durations.tsv").unlink()
    (published / "clips" / name(3)).unlink()
    message = refused(out, published)
    assert f"'bob' and '{name(3)}'" in message
    assert "train.tsv:4" in message
    write_table(published, "train", [])
    assert "expected utterances in train, got none" in refused(out, published)
    (published / "dev.tsv").write_text("path\tsentence\n")
    assert "expected the column client_id" in refused(out, published)
    (published / "dev.tsv").write_bytes(b"client_id\tpath\tsentence\n\xff\t\t\n")
    assert "text that is not UTF-8" in refused(out, published)
    (published / "dev.tsv").unlink()
    assert "no such file" in refused(out, published)


def test_clips_without_a_byte_are_left_out(published: Path, tmp_path: Path) -> None:
    (published / "clips" / name(2)).write_bytes(b"")
    said: list[str] = []
    paths = common_voice.prepare(tmp_path / "data", published, say=said.append, language="de")
    assert texts(paths)["train"] == ['Er sagte: "Ja!"', "Drei"]
    assert said == ["left out of train: 1 clips without text or sound"]
