"""Commands on recordings whose names hold line ends, tabs, control characters or no UTF-8."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from asr.dataset.manifest import read_manifest, write_manifest
from asr.inference.output_names import recording_ids
from asr.inference.time_formats import ctm_names
from asr.inference.untranscribed import find_recordings
from tests.commands import Command

NAMES = (
    b"bad-\xff.wav", b"esc\x1b[2J.wav", b"new\nline.wav", b"tab\there.wav", b"rlo\xe2\x80\xae.wav",
)  # fmt: skip

Tones = tuple[dict[str, Path], Path]


@pytest.fixture
def folder(tmp_path: Path, tones: Tones) -> Path:
    """A folder of copies of one recording under odd names."""
    folder = tmp_path / "odd"
    folder.mkdir()
    source = next(iter(read_manifest(tones[0]["test"]))).audio
    for name in NAMES:
        shutil.copy(source, folder / os.fsdecode(name))
    return folder


def test_what_no_manifest_can_hold_is_skipped(
    run: Command, tones: Tones, folder: Path, tmp_path: Path
) -> None:
    ended = run("label", tones[1], folder, "--out", tmp_path / "labels.jsonl")
    assert ended.status == 0
    assert "bad-\\udcff.wav': expected a file name in UTF-8; rename it" in ended.err
    assert len({u.audio for u in read_manifest(tmp_path / "labels.jsonl")}) == len(NAMES) - 1
    said: list[str] = []
    found = find_recordings([folder], said.append)
    assert len(found) == len(NAMES) - 1
    assert len(said) == 1


def test_a_blank_name_is_skipped(tones: Tones, tmp_path: Path) -> None:
    shutil.copy(next(iter(read_manifest(tones[0]["test"]))).audio, tmp_path / " .wav")
    said: list[str] = []
    assert not recording_ids(tmp_path, [tmp_path / " .wav"], said.append)
    assert said == [
        f"skipped '{tmp_path}/ .wav': expected a file name that is not blank; rename it"
    ]


def test_txt_is_one_printable_line_a_file(run: Command, tones: Tones, folder: Path) -> None:
    ended = run("transcribe", folder, "--model", tones[1])
    assert ended.status == 0
    names = [line.split("\t")[0].rpartition("/")[2] for line in ended.out.splitlines()]
    assert names == [
        "bad-\\xff.wav", "esc\\x1b[2J.wav", "new\\nline.wav", "rlo\\u202e.wav", "tab\\there.wav"
    ]  # fmt: skip
    assert all(line.replace("\t", "").isprintable() for line in ended.out.splitlines())


def test_json_is_utf_8_and_names_are_exact(run: Command, tones: Tones, folder: Path) -> None:
    ended = run("transcribe", folder, "--model", tones[1], "--format", "json")
    rows = [json.loads(line) for line in ended.out.encode("utf-8").splitlines()]
    names = {
        unquote_to_bytes(row["file_uri"].removeprefix("file://"))
        if "file_uri" in row
        else row["file"].encode("utf-8")
        for row in rows
    }
    assert names == {os.fsencode(folder) + b"/" + name for name in NAMES}
    assert [row["file"] for row in rows if "file_uri" in row] == [f"{folder}/bad-\ufffd.wav"]


def test_ctm_has_six_fields_a_line(run: Command, tones: Tones, folder: Path) -> None:
    ended = run("transcribe", folder, "--model", tones[1], "--format", "ctm")
    lines = ended.out.encode("utf-8").decode().splitlines()
    assert lines
    assert {len(line.split(" ")) for line in lines} == {6}
    assert len({line.split()[0] for line in lines}) == len(NAMES)


def test_recordings_never_share_a_name_in_ctm() -> None:
    paths = [Path(p) for p in ("my talk.wav", "my_talk.wav", "my\ttalk.wav", ";;x.wav", "x.wav")]
    names = list(ctm_names(paths).values())
    assert len(set(names)) == len(paths)
    assert all(name.split() == [name] and not name.startswith(";;") for name in names)


def test_align_names_a_recording_that_is_no_utf_8(
    run: Command, tones: Tones, folder: Path, tmp_path: Path
) -> None:
    said = next(iter(read_manifest(tones[0]["test"]))).text
    (tmp_path / "said.txt").write_text(said, encoding="utf-8")
    audio = folder / os.fsdecode(NAMES[0])
    for format in ("json", "ctm", "textgrid"):
        arguments = ("align", tones[1], audio, "--text", tmp_path / "said.txt", "--format", format)
        ended = run(*arguments)
        assert ended.status == 0, ended.err
        assert ended.out.encode("utf-8")
        assert run(*arguments, "--out", tmp_path / "out").status == 0
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"bad-\\xff"}


def test_reports_on_a_folder_that_is_no_utf_8(run: Command, tones: Tones, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"f-\xff")
    folder.mkdir()
    rows = list(read_manifest(tones[0]["test"]))[:3]
    for row in rows:
        shutil.copy(row.audio, folder / row.audio.name)
    write_manifest(folder / "test.jsonl", [replace(u, audio=folder / u.audio.name) for u in rows])
    out = tmp_path / "out"
    ended = run("evaluate", tones[1], folder / "test.jsonl", "--out", out)
    assert ended.status == 0, ended.err
    assert "f-\\xff/test.jsonl" in ended.out
    (out / "report.html").read_text(encoding="utf-8")
    assert run("report", out, "--texts", "trn", "--out", tmp_path / "texts").status == 0
    (folder / "text").write_text("u low up\n")
    scored = run("score", folder / "text", folder / "text", "--out", tmp_path / "scored")
    assert scored.status == 0, scored.err
    assert run("report", tmp_path, "--out", tmp_path / "board.html").status == 0
    assert run("check", folder / "test.jsonl").out.encode("utf-8")
