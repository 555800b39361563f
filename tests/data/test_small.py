"""yesno, Speech Commands and LJ Speech in their published layouts: tiny imitations, and yesno."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import soundfile

from asr.errors import AsrError
from data import ljspeech, speech_commands, yesno
from data.text import read_columns, read_lines, read_table
from tests.data.prepared import read, refused
from tests.recordings import litter, tone


def wav(path: Path, seconds: float = 0.1, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, rate), rate)


# --- yesno ---


@pytest.fixture
def spoken_bits(tmp_path: Path) -> Path:
    for number in range(0, 240, 8):
        name = "_".join(f"{number:08b}")
        wav(tmp_path / "published" / "waves_yesno" / f"{name}.wav", 0.1 + number / 1000)
    (tmp_path / "published" / "waves_yesno" / "README").write_text("free")
    (tmp_path / "published" / "waves_yesno" / "._0_0.wav").write_bytes(b"what a Mac adds")
    return tmp_path / "published"


def test_yesno_is_cut_by_recording(spoken_bits: Path, tmp_path: Path) -> None:
    said: list[str] = []
    parts = read(yesno.prepare(tmp_path / "data", spoken_bits, say=said.append))
    assert {name: len(part) for name, part in parts.items()} == {"train": 20, "dev": 4, "test": 6}
    assert [u.id for u in parts["test"]][:2] == ["0_0_0_0_0_0_0_0", "0_0_1_0_1_0_0_0"]
    assert parts["test"][1].text == "NO NO YES NO YES NO NO NO"
    assert parts["test"][1].duration == pytest.approx(0.14)
    assert said == ["not the whole published set: yesno, 30 of 60 recordings"]
    ids = [u.id for part in parts.values() for u in part]
    assert len(set(ids)) == 30
    # Either level of the archive's tree will do.
    again = yesno.prepare(tmp_path / "again", spoken_bits / "waves_yesno", say=said.append)
    assert read(again) == parts


def test_yesno_refuses_what_it_is_not(spoken_bits: Path, tmp_path: Path) -> None:
    assert "check --source" in refused(yesno.prepare, tmp_path / "data", tmp_path / "absent")
    wav(spoken_bits / "waves_yesno" / "0_1_2.wav")
    message = refused(yesno.prepare, tmp_path / "data", spoken_bits)
    assert "expected a name of eight 0 and 1" in message
    assert "0_1_2.wav" in message
    (spoken_bits / "waves_yesno" / "0_1_2.wav").unlink()
    (spoken_bits / "waves_yesno" / "0_0_0_0_0_0_0_0.wav").write_bytes(b"nothing")
    assert "0_0_0_0_0_0_0_0.wav" in refused(yesno.prepare, tmp_path / "data", spoken_bits)


def test_yesno_itself(shared_data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    parts = read(yesno.prepare(tmp_path, shared_data / "waves_yesno", say=said.append))
    assert {name: len(part) for name, part in parts.items()} == {"train": 40, "dev": 8, "test": 12}
    assert sum(u.duration for part in parts.values() for u in part) / 60 == pytest.approx(6.1, 0.02)
    assert all(len(u.text.split()) == 8 for part in parts.values() for u in part)
    assert not said


# --- Speech Commands ---


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    root = tmp_path / "published"
    speakers = ("0a7c2a8d", "b4ea0d9a", "c1d39ce8")
    for word in ("yes", "left"):
        for speaker in speakers:
            for take in (0, 1):
                wav(root / word / f"{speaker}_nohash_{take}.wav", 0.2, 16000)
    wav(root / "_background_noise_" / "pink_noise.wav", 0.5, 16000)
    for file, speaker in (("validation_list.txt", speakers[1]), ("testing_list.txt", speakers[2])):
        names = [f"{w}/{speaker}_nohash_{t}.wav\n" for w in ("left", "yes") for t in (0, 1)]
        (root / file).write_text("".join(names))
    return root


def test_speech_commands_keep_the_published_split(commands: Path, tmp_path: Path) -> None:
    said: list[str] = []
    parts = read(speech_commands.prepare(tmp_path / "data", commands, say=said.append))
    assert {name: {u.speaker for u in part} for name, part in parts.items()} == {
        "train": {"0a7c2a8d"},
        "dev": {"b4ea0d9a"},
        "test": {"c1d39ce8"},
    }
    assert [(u.id, u.text) for u in parts["test"]][:3:2] == [
        ("left-c1d39ce8_nohash_0", "left"),
        ("yes-c1d39ce8_nohash_0", "yes"),
    ]
    assert said[0] == "not the whole published set: train, 4 of 84843 recordings"


def test_speech_commands_refuse_lists_that_do_not_fit(commands: Path, tmp_path: Path) -> None:
    message = refused(speech_commands.prepare, tmp_path / "data", tmp_path / "absent")
    assert "expected validation_list.txt or speech_commands_v0.02/validation_list.txt" in message
    testing = commands / "testing_list.txt"
    listed = testing.read_text()
    # In both lists; not there.
    for line in ("yes/b4ea0d9a_nohash_0.wav", "yes/absent_nohash_0.wav"):
        testing.write_text(listed + line)
        message = refused(speech_commands.prepare, tmp_path / "data", commands)
        assert "testing_list.txt:5: expected a recording that is there and in one list" in message
        assert f"got '{line}'" in message
    testing.unlink()
    assert "no such file" in refused(speech_commands.prepare, tmp_path / "data", commands)
    testing.write_text(listed)
    wav(commands / "yes" / "hello.wav")
    message = refused(speech_commands.prepare, tmp_path / "data", commands)
    assert "expected a name as in 0a7c2a8d_nohash_0.wav" in message


# --- LJ Speech ---

LINES = {
    "LJ001-0001": ("Printing, in the 1st sense", "Printing, in the first sense"),
    "LJ002-0001": ('"Yes," he said', '"Yes," he said'),
    "LJ003-0001": ("the jury's well-known", "the jury’s well-known"),
    "LJ004-0001": ("Ⅳ.", "four."),
    "LJ050-0002": ("end", "end"),
}


@pytest.fixture
def chapters(tmp_path: Path) -> Path:
    root = tmp_path / "published" / "LJSpeech-1.1"
    for name in LINES:
        wav(root / "wavs" / f"{name}.wav", 0.3, 22050)
    lines = [f"{name}|{a}|{b}\n" for name, (a, b) in LINES.items()]
    (root / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return root.parent


def test_ljspeech_is_cut_by_chapter(chapters: Path, tmp_path: Path) -> None:
    said: list[str] = []
    parts = read(ljspeech.prepare(tmp_path / "data", chapters, say=said.append))
    assert {name: [u.text for u in part] for name, part in parts.items()} == {
        "train": ["four", "end"],
        "dev": ["the jury's well known"],
        "test": ["Printing in the first sense", "Yes he said"],
    }
    assert parts["test"][0].extra == {"written": "Printing, in the 1st sense"}
    assert said == ["not the whole published set: LJ Speech, 5 of 13100 clips"]


@pytest.mark.parametrize("line", ["LJ004-0009|no|recording", "LJ004-0001|two fields", "LJ4|a|b"])
def test_ljspeech_refuses_a_wrong_line(chapters: Path, tmp_path: Path, line: str) -> None:
    with (chapters / "LJSpeech-1.1" / "metadata.csv").open("a") as file:
        file.write(line + "\n")
    message = refused(ljspeech.prepare, tmp_path / "data", chapters)
    assert "metadata.csv:6: expected id|text|normalised text with wavs/id.wav" in message
    assert "expected metadata.csv or" in refused(ljspeech.prepare, tmp_path / "data", tmp_path)


# --- all of them ---


@pytest.mark.parametrize(
    ("module", "tree", "archive"),
    [
        (yesno, "spoken_bits", "waves_yesno.tar.gz"),
        (speech_commands, "commands", "speech_commands_v0.02.tar.gz"),
        (ljspeech, "chapters", "LJSpeech-1.1.tar.bz2"),
    ],
)
def test_archives_give_what_copies_give_and_the_same_twice(
    module: ModuleType,
    tree: str,
    archive: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    serve: Callable[[Path], str],
) -> None:
    source = request.getfixturevalue(tree)
    served = tmp_path / archive
    with tarfile.open(served, f"w:{served.suffix[1:]}") as tar:  # type: ignore[call-overload]
        for path in sorted(source.iterdir()):
            tar.add(path, path.name)
    monkeypatch.setattr(module, "URL", serve(served))
    monkeypatch.setattr(module, "MD5", hashlib.md5(served.read_bytes()).hexdigest())
    copy = read(module.prepare(tmp_path / "copy", source, say=lambda line: None))
    first = module.prepare(tmp_path / "data", say=lambda line: None)
    texts = {name: path.read_bytes() for name, path in first.items()}
    for name, utterances in read(first).items():
        assert [(u.id, u.text) for u in utterances] == [(u.id, u.text) for u in copy[name]]
    again = module.prepare(tmp_path / "data", say=lambda line: None)
    assert {name: path.read_bytes() for name, path in again.items()} == texts
    monkeypatch.setattr(module, "MD5", "0" * 32)
    with pytest.raises(AsrError, match=r"with the md5 0+, got"):
        module.prepare(tmp_path / "other")
    assert not list((tmp_path / "other").glob("*"))


@pytest.mark.parametrize(
    ("module", "tree"), [(yesno, "spoken_bits"), (speech_commands, "commands")]
)
def test_what_a_mac_leaves_behind_is_passed_over(
    module: ModuleType, tree: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(tree)
    clean = read(module.prepare(tmp_path / "clean", source, say=lambda line: None))
    litter(source)
    assert read(module.prepare(tmp_path / "data", source, say=lambda line: None)) == clean


# --- lists ---


def test_lists_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbfa b\r\n\n c\td e\n")
    assert read_lines(path) == [(1, "a b"), (3, "c\td e")]
    assert read_table(path) == {"a": "b", "c": "d e"}
    path.write_text("a\t\u2028b\x85c\t\n\n", encoding="utf-8")  # two characters of texts
    assert read_columns(path, 3) == [(1, ["a", "b\x85c", ""])]
    assert len(read_lines(path)) == 1
    with pytest.raises(AsrError, match=r"list:1: expected 2 columns, got 'a"):
        read_columns(path, 2)
    for content in (b"a b\nc\n", b"a b\na c\n"):
        path.write_bytes(content)
        with pytest.raises(AsrError, match=r"list:2: expected a new id"):
            read_table(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AsrError, match="text that is not UTF-8; get the corpus again"):
        read_lines(path)
