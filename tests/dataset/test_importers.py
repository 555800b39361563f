"""Every kind of source gives the same utterances; what is malformed is named by file and line.

Covers `asr/dataset/records.py`, `asr/dataset/lines.py`, `asr/dataset/tables.py`,
`asr/dataset/source.py`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from asr.dataset.importers import Source, detect, read_source
from asr.errors import AsrError
from asr.text.normalise import TextConfig, normalise
from tests.tones import write_recordings

SPEAKERS = {"ann": 2, "ben": 2}
NAMES = ["ann00", "ann01", "ben00", "ben01"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_recordings(tmp_path / "rec", SPEAKERS)
    return tmp_path / "rec"


def texts(folder: Path) -> dict[str, str]:
    return {p.stem: p.read_text().strip() for p in sorted(folder.rglob("*.txt"))}


def flat(folder: Path, place: Path) -> dict[str, str]:
    """The recordings in `place`, without their texts, which are given back."""
    place.mkdir(parents=True)
    for path in folder.rglob("*.wav"):
        shutil.copy(path, place)
    return texts(folder)


def check(source: Source, spoken: dict[str, str], *, speakers: bool) -> None:
    assert [u.text for u in source.utterances] == list(spoken.values())
    assert all(u.audio.is_absolute() and u.audio.is_file() for u in source.utterances)
    assert [u.audio.stem for u in source.utterances] == list(spoken)
    assert [u.speaker for u in source.utterances] == [n[:3] if speakers else "" for n in spoken]
    assert bool(source.speakers) == speakers
    assert len({u.id for u in source.utterances}) == len(spoken)


# --- folders ---


def test_a_folder(folder: Path) -> None:
    assert detect(folder) == "folder"
    check(read_source(folder), texts(folder), speakers=True)
    for path in folder.rglob("*.txt"):
        path.rename(path.with_suffix(".lab"))
    assert len(read_source(folder).utterances) == 4


def test_texts_may_lie_in_a_folder_of_their_own(folder: Path, tmp_path: Path) -> None:
    spoken = flat(folder, tmp_path / "all" / "wav")
    (tmp_path / "all" / "txt").mkdir()
    for name, text in spoken.items():
        (tmp_path / "all" / "txt" / f"{name}.txt").write_text(text)
    check(read_source(tmp_path / "all"), spoken, speakers=False)


def test_parts_of_a_corpus_are_no_speakers(folder: Path) -> None:
    (folder / "ann").rename(folder / "train")
    (folder / "ben").rename(folder / "test")
    assert read_source(folder).speakers == ""


def test_partners_that_are_missing_are_named(folder: Path) -> None:
    (folder / "ann" / "ann00.txt").unlink()
    (folder / "ann" / "ann01.wav").unlink()
    (folder / "ben" / "ben00.txt").write_text("")
    (folder / "ben" / "ben01.txt").write_bytes(b"\xff\xfe")
    (folder / "ben" / "._ben01.wav").write_text("left by a Mac")
    found = read_source(folder)
    assert not found.utterances
    why = {Path(item.name).name: item.why for item in found.left_out}
    assert why["ann00.wav"] == "no text of the same name"
    assert why["ann01.txt"] == "no recording of the same name"
    assert "is empty" in why["ben00.wav"]
    assert "ben01.txt:1: expected UTF-8" in why["ben01.wav"]
    assert len(why) == 4


def test_a_second_text_of_a_recording_is_named(folder: Path) -> None:
    (folder / "ann" / "ann00.lab").write_text("another")
    found = read_source(folder)
    assert "another" not in {u.text for u in found.utterances}
    assert not found.left_out
    assert found.note == (
        "left 1 text aside, since another of the same name is used: ann/ann00.lab"
    )


def test_a_folder_without_pairs(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AsrError, match="got 0 recordings"):
        read_source(tmp_path / "empty")
    flat(folder, tmp_path / "sounds")
    (tmp_path / "sounds" / "list.csv").write_text("audio,text\nann00.wav,low\n")
    with pytest.raises(AsrError, match=r"name the table, .*list\.csv"):
        read_source(tmp_path / "sounds")
    for path in ("absent", "sounds/ann00.wav"):
        with pytest.raises(AsrError, match="expected a folder or a table"):
            read_source(tmp_path / path)


# --- tables ---


@pytest.mark.parametrize("kind", ["csv", "semicolons.csv", "tsv", "json", "lines.json", "jsonl"])
@pytest.mark.parametrize("columns", [("audio", "text", "speaker"), ("path", "Sentence", "spk")])
def test_tables(folder: Path, tmp_path: Path, kind: str, columns: tuple[str, ...]) -> None:
    spoken = flat(folder, tmp_path / "flat" / "wavs")
    suffix = ".wav" if columns[0] == "audio" else ""
    rows = [[name + suffix, text, name[:3]] for name, text in spoken.items()]
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    parts = {"csv": ",", "semicolons.csv": ";", "tsv": "\t"}
    if kind in parts:
        lines = [parts[kind].join(row) for row in [columns, *rows]]
    elif kind == "json":
        lines = [json.dumps(objects)]
    else:
        lines = [json.dumps(item) for item in objects]
    path = tmp_path / "flat" / f"list.{kind}"
    path.write_text("\ufeff" + "\n".join(lines) + "\n")
    assert detect(path) == "table"
    check(read_source(path), spoken, speakers=True)


def test_names_of_recordings_keep_their_spaces(folder: Path, tmp_path: Path) -> None:
    flat(folder, tmp_path / "flat")
    names = ["my  talk.wav", "Recording at 3.14\u202fPM.wav"]
    for name, old in zip(names, NAMES, strict=False):
        (tmp_path / "flat" / f"{old}.wav").rename(tmp_path / "flat" / name)
    csv = "".join(f" {name} , yes  no \n" for name in names) + "ben00.wav\u00a0,stray\n"
    lines = "".join(json.dumps({"audio": name, "text": "yes no"}) + "\n" for name in names)
    (tmp_path / "flat" / "list.csv").write_text("audio,text\n" + csv)
    (tmp_path / "flat" / "list.jsonl").write_text(lines)
    expected = [(name, "yes no") for name in names]
    for table, more in (("list.csv", [("ben00.wav", "stray")]), ("list.jsonl", [])):
        source = read_source(tmp_path / "flat" / table)
        assert [(u.audio.name, u.text) for u in source.utterances] == expected + more


def test_json_of_texts_by_recording(folder: Path, tmp_path: Path) -> None:
    spoken = flat(folder, tmp_path / "flat")
    path = tmp_path / "flat" / "texts.json"
    path.write_text(json.dumps({f"{name}.wav": text for name, text in spoken.items()}, indent=1))
    check(read_source(path), spoken, speakers=False)


def test_lj_speech(folder: Path, tmp_path: Path) -> None:
    spoken = flat(folder, tmp_path / "LJ" / "wavs")
    lines = [f'{name}|No. 3, "{text}|{text}' for name, text in spoken.items()]
    (tmp_path / "LJ" / "metadata.csv").write_text("\n".join(lines) + "\n")
    for source in (tmp_path / "LJ", tmp_path / "LJ" / "metadata.csv"):
        found = read_source(source)
        check(found, spoken, speakers=False)
        assert not any(u.extra for u in found.utterances)


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_hugging_face_folder(folder: Path, tmp_path: Path, parts: tuple[str, ...]) -> None:
    spoken = texts(folder)
    names = sorted(spoken) if len(parts) == 1 else [n for n in sorted(spoken) if n < "ben"]
    for part in parts:
        chosen = names if part == parts[0] else [n for n in spoken if n not in names]
        place = tmp_path / "hf" / part
        (place / "data").mkdir(parents=True)
        lines = ["file_name,transcription,accent"]
        for name in chosen:
            shutil.copy(folder / name[:3] / f"{name}.wav", place / "data")
            lines.append(f'data/{name}.wav,"{spoken[name]}",north')
        (place / "metadata.csv").write_text("\n".join(lines))
    found = read_source(tmp_path / "hf")
    assert sorted(u.text for u in found.utterances) == sorted(spoken.values())
    assert all(u.extra == {"accent": "north"} for u in found.utterances)


def test_metadata_written_twice_is_read_once(folder: Path, tmp_path: Path) -> None:
    for part, name in (("train", "ann00"), ("test", "ben00"), ("notes", "ann00")):
        place = tmp_path / "hf" / part
        place.mkdir(parents=True)
        shutil.copy(folder / name[:3] / f"{name}.wav", place)
        (place / "metadata.csv").write_text(f"file_name,text\n{name}.wav,low\n")
        (place / "metadata.jsonl").write_text(f'{{"file_name": "{name}.wav", "text": "low"}}\n')
    found = read_source(tmp_path / "hf")
    assert [u.id for u in found.utterances] == ["ben00", "ann00"]


def test_stretches_of_longer_recordings(folder: Path) -> None:
    name = "ann/ann00.wav"
    rows = [
        {"audio_filepath": name, "text": "low", "offset": 0.1, "duration": 0.2},
        {"audio_filepath": name, "text": "up", "start": 0.3},
        {"audio_filepath": name, "text": "up", "duration": 0.3},
        {"audio_filepath": name, "text": "up", "start": 0.0, "duration": 0.3},
        {"audio_filepath": name, "text": "up", "start": 0.2, "duration": 0.1},
    ]
    (folder / "nemo.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_source(folder / "nemo.jsonl").utterances
    assert [(u.start, u.end) for u in found] == [
        (0.1, pytest.approx(0.3)),
        (0.3, None),
        (0, None),
        (0, 0.3),
        (0.2, pytest.approx(0.3)),
    ]
    assert [u.id for u in found][:3] == ["ann/ann00", "ann/ann00-2", "ann/ann00-3"]


def test_numbers_that_are_none_are_no_columns(folder: Path) -> None:
    row = '{"audio": "ann/ann00.wav", "text": "low", "score": NaN, "noise": -Infinity, "take": 2.5}'
    (folder / "scores.jsonl").write_text(row)
    assert read_source(folder / "scores.jsonl").utterances[0].extra == {"take": 2.5}


def test_ids_of_absolute_paths_are_short(folder: Path) -> None:
    rows = [f"{path},low" for path in sorted(folder.rglob("*0.wav"))]
    (folder / "list.csv").write_text("\n".join(["audio,text", *rows, rows[0]]))
    found = read_source(folder / "list.csv").utterances
    assert [u.id for u in found] == ["ann00", "ben00", "ann00-2"]
    (folder / "list.csv").write_text("audio,text,,\nann/ann00.wav,low,,\n")  # by a spreadsheet
    assert len(read_source(folder / "list.csv").utterances) == 1


def test_rows_that_lack_something_are_named(folder: Path) -> None:
    path = folder / "list.csv"
    path.write_text("audio,text\nann/ann00.wav,\n,low\nann/none.wav,low\nann/ann01.wav,low\n")
    found = read_source(path)
    assert [item.name for item in found.left_out] == [f"{path}:{n}" for n in (2, 3, 4)]
    assert len(found.utterances) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "sound,text\nx,y\n", r"a\.csv:1\): rename"),
        ("a.csv", "audio,words\nx,y\n", "column of texts"),
        ("a.csv", "audio,text\nx,y\nx,y,z\n", r"expected 2 fields .*a\.csv:3"),
        ("a.csv", 'audio,text\nx,"y\n', r"a\.csv:2: expected CSV"),
        ("a.csv", "audio,text,Text\nx,y,z\n", "expected one column 'text'"),
        ("a.csv", "audio,text\n", "expected rows of recordings"),
        ("a.csv", "", "empty file"),
        ("a.csv", "a|b|c\na|b\n", r"expected 3 fields .*a\.csv:2"),
        ("a.jsonl", '{"audio": "x", "text": "y"}\n{"audio"\n', r"a\.jsonl:2: expected JSON"),
        ("a.jsonl", '{"audio": "x", "text": 3}\n', r"'text' to be text.*a\.jsonl:1"),
        ("a.jsonl", '{"audio": "x", "text": "y", "start": "z"}\n', r"seconds, got 'z' .*:1"),
        ("a.jsonl", '{"audio": "x", "text": "y", "start": 1' + "0" * 400 + "}\n", "to be seconds"),
        ("a.jsonl", '{"audio": "x", "text": "y", "start": 2, "end": 1}\n', "an end after"),
        ("a.json", "[3]", "object 1"),
        ("a.json", "3", "expected a list"),
        ("a.tsv", "id\taudio\ttext\na\tx\ty\na\tx\ty\n", r"a\.tsv:3: expected a new id"),
    ],
)
def test_malformed_tables(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(AsrError, match=message) as error:
        read_source(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("audio,text\nx.wav,größer\n".encode("latin-1"))
    with pytest.raises(AsrError, match=r"a\.csv:2: expected UTF-8"):
        read_source(tmp_path / "a.csv")


# --- Common Voice, and tables of any kind ---


def test_common_voice(folder: Path, tmp_path: Path) -> None:
    spoken = flat(folder, tmp_path / "cv-corpus-9" / "de" / "clips")
    lines = ["client_id\tpath\tsentence\tage\tgender"]
    lines += [f'{n[:3]}\t{n}.wav\t"{t}\ttwenties\t' for n, t in spoken.items()]
    (tmp_path / "cv-corpus-9" / "de" / "validated.tsv").write_text("\n".join(lines) + "\n")
    for source in (tmp_path / "cv-corpus-9", tmp_path / "cv-corpus-9" / "de"):
        assert detect(source) == "Common Voice"
        found = read_source(source)
        check(found, {n: f'"{t}' for n, t in spoken.items()}, speakers=True)
        assert found.utterances[0].extra == {"age": "twenties"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("t.csv", ["path,text", 'ann00.wav,"low, ""up"""', "ann01.wav,up"]),
        ("t.csv", ["path;text", 'ann00.wav;low, "up"', "ann01.wav;up"]),
        ("t.csv", ["\ufeffpath|text", 'ann00.wav|low, "up"', "ann01.wav|up"]),
        ("t.tsv", ["\u200bpath\ttext", 'ann00.wav\tlow, "up"', "ann01.wav\tup"]),
        ("t.jsonl", ['{"path": "ann00.wav", "text": "low, \\"up\\""}',
                     '{"path": "ann01.wav", "text": "up"}']),
        ("t.json", ['{"path": "ann00.wav", "text": "low, \\"up\\""}',
                    '{"path": "ann01.wav", "text": "up"}']),
    ],
)  # fmt: skip
def test_tables_end_their_lines_in_any_way(
    folder: Path, tmp_path: Path, name: str, lines: list[str], end: str
) -> None:
    flat(folder, tmp_path / "flat")
    text = "\ufeff" + end.join(lines) + end
    (tmp_path / "flat" / name).write_text(text, encoding="utf-8", newline="")
    found = read_source(tmp_path / "flat" / name)
    assert [(u.id, u.text) for u in found.utterances] == [("ann00", 'low, "up"'), ("ann01", "up")]


def test_a_field_may_be_long_and_hold_zero_bytes(folder: Path, tmp_path: Path) -> None:
    flat(folder, tmp_path / "flat")
    long = "low " * 100_000
    path = tmp_path / "flat" / "t.csv"
    path.write_text(f'path,text\nann00.wav,{long}\nann01.wav,"lo\0w"\n"a\0.wav",up\n')
    found = read_source(path)
    assert [normalise(u.text, TextConfig()) for u in found.utterances] == [long.strip(), "low"]
    assert [item.why for item in found.left_out] == ["no such recording: a\0.wav"]
