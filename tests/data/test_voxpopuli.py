"""VoxPopuli as the hub publishes it: a tiny imitation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asr.dataset.manifest import read_manifest
from asr.errors import AsrError
from data import hub, voxpopuli
from tests.recordings import tone, with_soundfile


def row(name: str, speaker: str, text: str) -> dict[str, Any]:
    identity = f"20130114-0900-PLENARY-{name}-hr_20130114-17:12:30_0"
    wav = with_soundfile(tone(0.2, 16000), 16000, "WAV")
    return {
        "audio_id": identity,
        "language": 1,
        "audio": {"bytes": wav, "path": f"train_part_0/{identity}.wav"},
        "raw_text": text.capitalize(),
        "normalized_text": text,
        "gender": "female",
        "speaker_id": speaker,
        "is_gold_transcript": True,
        "accent": "None",
    }


@pytest.fixture
def published(tmp_path: Path) -> Path:
    from datasets import Audio, ClassLabel, Dataset

    splits = {
        "train": [row("1", "11", "hvala"), row("2", "12", ""), row("3", "12", "dobar dan")],
        "validation": [row("4", "None", "da")],
        "test": [row("5", "None", "ne")],
    }
    (tmp_path / "source" / "hr").mkdir(parents=True)
    for split, rows in splits.items():
        made = Dataset.from_list(rows).cast_column("audio", Audio(sampling_rate=16000))
        made = made.cast_column("language", ClassLabel(names=["en", "hr"]))
        made.to_parquet(tmp_path / "source" / "hr" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "source"


def test_manifests(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "data"
    paths = voxpopuli.prepare(folder, published, say=said.append, language="hr")
    splits = {name: list(read_manifest(path)) for name, path in paths.items()}
    assert {name: [u.text for u in rows] for name, rows in splits.items()} == {
        "train": ["hvala", "dobar dan"],
        "dev": ["da"],
        "test": ["ne"],
    }
    last = splits["train"][1]
    assert last.id == "20130114-0900-PLENARY-3-hr_20130114-17:12:30_0"
    assert splits["test"][0].speaker == ""
    assert (last.speaker, last.duration) == ("12", 0.2)
    assert dict(last.extra) == {"gender": "female", "is_gold_transcript": True}
    assert last.audio == folder / "audio" / "train" / "0000" / "0000002.flac"
    assert len(said) == 1
    assert said[0].endswith("(hr, train): 1 of 3 rows, without text or sound")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    voxpopuli.prepare(folder, published, say=said.append, language="hr")
    assert {path: path.read_bytes() for path in before} == before


def test_the_hub_is_asked_for_the_language(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(*places: Any, split: str, streaming: bool, **rest: Any) -> None:
        asked.append((*places, split, streaming))
        raise ConnectionError("no network")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(AsrError, match=r"facebook/voxpopuli \(hr, train\).*got 'no network'"):
        voxpopuli.prepare(tmp_path / "data", language="hr")
    assert asked == [("facebook/voxpopuli", "hr", "train", True)]
    assert not list((tmp_path / "data").glob("*.jsonl"))
    monkeypatch.undo()
    # The journal has nothing yet, so a local copy may take over.
    assert voxpopuli.prepare(tmp_path / "data", published, language="hr")
    assert (tmp_path / "data" / "audio" / "test" / hub.JOURNAL).is_file()


def test_refusals(published: Path, tmp_path: Path) -> None:
    with pytest.raises(AsrError, match="got 'xx': correct --language"):
        voxpopuli.prepare(tmp_path / "data", published, language="xx")
    with pytest.raises(AsrError, match="check --source"):
        voxpopuli.prepare(tmp_path / "data", tmp_path / "absent", language="hr")
    (published / "hr" / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(AsrError, match=r"\(hr, validation\) from the hub or a local copy"):
        voxpopuli.prepare(tmp_path / "data", published, language="hr")
    assert not list((tmp_path / "data").glob("*.jsonl"))
