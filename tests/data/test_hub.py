"""Splits in the manner of the hub, made in memory: no network is used.

The package datasets takes two seconds to load, and every process of a test run loads this file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from asr.audio.load import load_audio
from asr.dataset.manifest import Utterance
from asr.errors import AsrError
from data import hub
from data.hub import Columns, Split, materialise
from tests.recordings import tone, with_soundfile

if TYPE_CHECKING:
    from datasets import Dataset

ROWS = 7
COLUMNS = Columns(text="sentence", id="key", speaker="who", extra=("gender", "region"))


def sound(i: int, kind: str = "WAV") -> bytes:
    return with_soundfile(tone(0.1 + 0.01 * i, 16000), 16000, kind)


def dataset(**changes: list[Any]) -> Dataset:
    from datasets import Audio, ClassLabel, Dataset

    columns: dict[str, list[Any]] = {
        "key": [f"20:{i}/a" for i in range(ROWS)],
        "audio": [{"bytes": sound(i), "path": f"part/{i}.wav"} for i in range(ROWS)],
        "sentence": [f"  Wort {i} " for i in range(ROWS)],
        "who": [f"s{i % 2}" for i in range(ROWS)],
        "gender": [i % 2 for i in range(ROWS)],
        "region": ["north"] * (ROWS - 1) + [None],
    }
    made = Dataset.from_dict(columns | changes)
    return made.cast_column("audio", Audio()).cast_column("gender", ClassLabel(names=["f", "m"]))


def as_repository(folder: Path, made: Dataset) -> Path:
    """Two parquet files, as the hub has them."""
    (folder / "de").mkdir(parents=True)
    for place, rows in enumerate((range(4), range(4, len(made)))):
        made.select(rows).to_parquet(folder / "de" / f"train-{place:05}-of-00002.parquet")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return as_repository(tmp_path / "repository", dataset())


def fetch(source: Path, folder: Path, **changes: Any) -> list[Utterance]:
    return materialise(Split(str(source), "de", "train"), COLUMNS, folder, **changes)


def content(folder: Path) -> dict[str, bytes]:
    """All but the journal, which notes where it stopped."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != hub.JOURNAL)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_rows_become_utterances(repository: Path, tmp_path: Path) -> None:
    found = fetch(repository, tmp_path / "out")
    assert [u.id for u in found] == [f"20:{i}/a" for i in range(ROWS)]
    last = found[-1]
    assert (last.text, last.speaker, dict(last.extra)) == ("Wort 6", "s0", {"gender": "f"})
    assert dict(found[1].extra) == {"gender": "m", "region": "north"}
    assert last.audio == tmp_path / "out" / "0000" / "0000006.flac"
    assert last.audio.read_bytes()[:4] == b"fLaC"
    np.testing.assert_array_equal(load_audio(last.audio), load_audio(sound(6)))
    assert last.duration == pytest.approx(0.16)


def test_saved_datasets(tmp_path: Path) -> None:
    from datasets import DatasetDict

    dataset().save_to_disk(tmp_path / "one")
    DatasetDict({"train": dataset()}).save_to_disk(tmp_path / "several")
    found = [fetch(tmp_path / name, tmp_path / f"{name}-out") for name in ("one", "several")]
    assert [[u.id for u in rows] for rows in found] == [[f"20:{i}/a" for i in range(ROWS)]] * 2


def test_a_stopped_run_goes_on(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fetch(repository, tmp_path / "whole")
    monkeypatch.setattr(hub, "STATE_EVERY", 2)
    write = hub._write_audio
    wrote: list[str] = []

    def stops(path: Path, *rest: Any) -> float:
        if len(wrote) == 5:
            raise KeyboardInterrupt
        wrote.append(path.name)
        return write(path, *rest)

    monkeypatch.setattr(hub, "_write_audio", stops)
    with pytest.raises(KeyboardInterrupt):
        fetch(repository, tmp_path / "out")
    journal = tmp_path / "out" / hub.JOURNAL
    with journal.open("a") as file:
        file.write('{"row": 5, "id": "cut sho')
    wrote.clear()
    told: list[tuple[int, int]] = []
    found = fetch(repository, tmp_path / "out", progress=lambda *counts: told.append(counts))
    assert wrote == ["0000005.flac", "0000006.flac"]
    assert told == [(6, 0)]  # rows of streamed files are not known beforehand
    assert [(u.id, u.text, u.duration) for u in found] == [
        (u.id, u.text, u.duration) for u in expected
    ]
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_finished_run_reads_nothing_again(repository: Path, tmp_path: Path) -> None:
    first = fetch(repository, tmp_path / "out")
    before = (tmp_path / "out" / hub.JOURNAL).read_bytes()
    repository.rename(tmp_path / "gone")
    assert fetch(repository, tmp_path / "out") == first
    assert (tmp_path / "out" / hub.JOURNAL).read_bytes() == before


def test_rows_without_text_or_sound_are_left_out_and_told(tmp_path: Path) -> None:
    texts: list[Any] = [f"w{i}" for i in range(ROWS)]
    texts[1], texts[2] = "  ", None
    audio: list[Any] = [{"bytes": sound(i, "FLAC"), "path": None} for i in range(ROWS)]
    audio[4] = {"bytes": b"no sound", "path": "a.wav"}
    made = dataset(sentence=texts, audio=audio, key=["x"] * ROWS)
    said: list[str] = []
    found = fetch(as_repository(tmp_path / "r", made), tmp_path / "out", say=said.append)
    # An id that comes again gets its row's number.
    assert [u.id for u in found] == ["x", "x-3", "x-5", "x-6"]
    assert len(said) == 1
    assert said[0].endswith("(de, train): 3 of 7 rows, without text or sound")
    assert sorted(content(tmp_path / "out")) == [f"0000/{i:07}.flac" for i in (0, 3, 5, 6)]


def test_without_ids_rows_are_numbered(repository: Path, tmp_path: Path) -> None:
    split = Split(str(repository), "de", "train")
    found = materialise(split, Columns("sentence"), tmp_path / "out")
    assert [u.id for u in found[:2]] == ["train-0000000", "train-0000001"]
    assert (found[0].speaker, dict(found[0].extra)) == ("", {})


def refused(call: Any) -> str:
    with pytest.raises(AsrError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refusals(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    message = refused(lambda: fetch(tmp_path / "absent", out))
    assert "from the hub or a local copy, got" in message
    assert "run again to resume" in message
    (tmp_path / "empty").mkdir()
    refused(lambda: fetch(tmp_path / "empty", tmp_path / "other"))
    split = Split(str(repository), "de", "train")
    message = refused(lambda: materialise(split, Columns("words"), tmp_path / "columns"))
    assert "expected the column words in" in message
    assert "key, audio, sentence" in message
    assert len(materialise(split, Columns("sentence"), tmp_path / "columns")) == ROWS
    fetch(repository, tmp_path / "good")
    message = refused(lambda: materialise(split, Columns("sentence"), tmp_path / "good"))
    assert "with id=key, speaker=who, extra=['gender', 'region'], got another" in message
    assert "name another folder" in message
    (tmp_path / "good" / "0000" / "0000003.flac").unlink()
    message = refused(lambda: fetch(repository, tmp_path / "good"))
    assert "expected 0000/0000003.flac, got no such file" in message
    assert f"{hub.JOURNAL}:5" in message


@pytest.mark.parametrize(
    "line", [b"\0\0\0", b"[]", b'{"audio": "a"}', b'{"row": 1, "id": 2}', b"\xff"]
)
@pytest.mark.parametrize("place", [1, 3])
def test_a_garbled_journal_is_named(
    repository: Path, tmp_path: Path, line: bytes, place: int
) -> None:
    fetch(repository, tmp_path / "out")
    journal = tmp_path / "out" / hub.JOURNAL
    lines = journal.read_bytes().splitlines()
    lines[place - 1] = line
    journal.write_bytes(b"\n".join(lines) + b"\n")
    message = refused(lambda: fetch(repository, tmp_path / "out"))
    assert f"{hub.JOURNAL}:{place}): delete {tmp_path / 'out'} and run again" in message


def test_code_of_a_dataset_is_never_run(tmp_path: Path) -> None:
    script = tmp_path / "evil" / "evil.py"
    script.parent.mkdir()
    script.write_text("from pathlib import Path\nPath('ran').touch()\n")
    refused(lambda: fetch(script.parent, tmp_path / "out"))
    refused(lambda: fetch(script, tmp_path / "out"))
    assert not Path("ran").exists()


def test_a_failing_network_is_one_line_and_the_run_goes_on(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hub._open

    def failing(*arguments: Any) -> Any:
        rows, total, names = whole(*arguments)

        class Rows:
            def __iter__(self) -> Any:
                yield next(iter(rows))
                raise ConnectionError("reset\nby peer")

        return Rows(), total, names

    monkeypatch.setattr(hub, "_open", failing)
    assert "got 'reset by peer'" in refused(lambda: fetch(repository, tmp_path / "out"))
    lines = (tmp_path / "out" / hub.JOURNAL).read_text().splitlines()
    assert [json.loads(line).get("row") for line in lines] == [None, 0]
    monkeypatch.undo()
    assert len(fetch(repository, tmp_path / "out")) == ROWS
